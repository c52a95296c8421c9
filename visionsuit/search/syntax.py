"""What a person types -> what it asks for, as data. Anything is understood somehow; nothing is refused.

`red fox "long hair" tag:portrait -tag:sketch type:lora base:sdxl user:mia`: words, a phrase, filters; a minus leaves
out. Fields are looked up in the table that the caller hands in; a name not in it is a word like any other.
"""

import re
from collections.abc import Container
from dataclasses import dataclass, field

from visionsuit.search.match import Term
from visionsuit.search.words import words

#: More would not narrow anything down, but could slow the index.
MAX_PARTS = 32
MAX_CHARACTERS = 2000

_PART = re.compile(
    r"""(?P<minus>-)?
        (?:(?P<field>[A-Za-z_]{1,20}):(?=\S|$))?
        (?:"(?P<quoted>[^"]*)(?P<end>"|$)|(?P<bare>[^\s"]+)|(?P<nothing>))""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Filter:
    """`name:value`, or with a minus before it."""

    name: str
    value: str
    negated: bool = False


@dataclass(slots=True)
class Query:
    """`notes` are sentences about what was not understood."""

    terms: list[Term] = field(default_factory=list)
    unwanted: list[Term] = field(default_factory=list)
    filters: list[Filter] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def parse(text: str, fields: Container[str], *, typing: bool = True) -> Query:
    """Read a query.

    Args:
        fields: names that may stand before a colon, in lower case.
        typing: the last word, if nothing follows it, also matches as a beginning.
    """
    query = Query()
    if len(text) > MAX_CHARACTERS:
        query.notes.append(f"Only the first {MAX_CHARACTERS} characters were read.")
        text = text[:MAX_CHARACTERS]
    position = parts = 0
    while position < len(text):
        found = _PART.match(text, position)
        if found is None or found.end() == position:
            position += 1
            continue
        position = found.end()
        parts += 1
        if parts > MAX_PARTS:
            query.notes.append(f"Only the first {MAX_PARTS} words were read.")
            break
        _add(query, found, fields, goes_on=typing and position == len(text))
    return query


def _add(query: Query, found: re.Match[str], fields: Container[str], *, goes_on: bool) -> None:
    negated = bool(found["minus"])
    quoted = found["quoted"] is not None
    value = found["quoted"] if quoted else found["bare"] or ""
    name = (found["field"] or "").lower()
    if quoted and not found["end"]:
        query.notes.append("A quotation mark is not closed.")
    if name in fields:
        if value.strip():
            query.filters.append(Filter(name, value.strip(), negated))
        else:
            query.notes.append(f"'{name}:' lacks a value.")
        return
    if name:
        query.notes.append(f"'{name}:' is no known field; it was searched for as a word.")
        _add_words(query, name, negated=negated, goes_on=False)
    _add_words(query, value, negated=negated, goes_on=goes_on and not (quoted and found["end"]))


def _add_words(query: Query, value: str, *, negated: bool, goes_on: bool) -> None:
    found = tuple(words(value, MAX_PARTS))
    if not found:
        if value:
            query.notes.append(f"'{value[:40]}' has no letter or digit to search for.")
        return
    # One letter begins too many words to mean anything.
    prefix = goes_on and not negated and len(found[-1]) > 1
    (query.unwanted if negated else query.terms).append(Term(found, prefix))

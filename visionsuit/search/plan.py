"""A list request -> what the index is asked. Fields of the query syntax are the table FIELDS."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from visionsuit.accounts.queries import find_named_ids, find_user_id
from visionsuit.core.paging import DEFAULT_LIMIT
from visionsuit.runtime import Ctx
from visionsuit.search.document import EVERYTHING, Kind, base_token, owner_token, tag_token, type_token
from visionsuit.search.match import Match, Term
from visionsuit.search.syntax import parse
from visionsuit.search.words import facet
from visionsuit.visibility import token_filter


class Sort(StrEnum):
    NEWEST = "newest"
    OLDEST = "oldest"
    TITLE = "title"
    DOWNLOADS = "downloads"
    LIKES = "likes"
    RELEVANCE = "relevance"


@dataclass(frozen=True, slots=True)
class ListRequest:
    """What a list was asked for. `owner` is a public id or `me`; `sort` None: relevance with words, else newest."""

    q: str = ""
    tags: tuple[str, ...] = ()
    type: str | None = None
    base_model: str | None = None
    owner: str | None = None
    sort: Sort | None = None
    cursor: str | None = None
    limit: int = DEFAULT_LIMIT


@dataclass(frozen=True, slots=True)
class SearchField:
    """A name that may stand before a colon.

    Attributes:
        kinds: lists that have it.
        tokens: value -> index tokens of which a row needs one; none: no row has it.
    """

    kinds: frozenset[Kind]
    tokens: Callable[[Ctx, str], list[str]]


ALL = frozenset(Kind)
FIELDS: dict[str, SearchField] = {
    "tag": SearchField(ALL, lambda ctx, value: [tag_token(value)]),
    "type": SearchField(frozenset({Kind.MODEL}), lambda ctx, value: [type_token(value)]),
    "base": SearchField(frozenset({Kind.MODEL, Kind.IMAGE}), lambda ctx, value: [base_token(value)]),
    "user": SearchField(ALL, lambda ctx, value: [owner_token(id_) for id_ in find_named_ids(ctx, value)]),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """`notes` are sentences for the person who asked. `filtered`: more than "what the viewer may see" is asked for."""

    match: Match
    filtered: bool
    notes: list[str] = field(default_factory=list)


def make_plan(ctx: Ctx, kind: Kind, request: ListRequest) -> Plan | None:
    """None when nothing can match: a filter names somebody or something that is not there."""
    query = parse(request.q, FIELDS)
    notes = query.notes
    wanted: list[tuple[str, ...]] = [(tag_token(tag),) for tag in request.tags if tag.strip()]
    unwanted = list(query.unwanted)
    if request.type:
        wanted.append((type_token(request.type),))
    if request.base_model:
        wanted.append((base_token(request.base_model),))
    if request.owner:
        owner_id = find_user_id(ctx, request.owner)
        if owner_id is None:
            return None
        wanted.append((owner_token(owner_id),))
    for asked in query.filters:
        known = FIELDS[asked.name]
        if kind not in known.kinds:
            notes.append(f"'{asked.name}:' does not apply here.")
            continue
        tokens = known.tokens(ctx, asked.value)
        if asked.negated:
            unwanted += [Term((token,)) for token in tokens]
        elif tokens:
            wanted.append(tuple(tokens))
        else:
            return None
    filtered = bool(wanted or unwanted or query.terms)
    shown = token_filter(ctx.actor)
    groups = [tuple(facet("", token) for token in shown)] if shown is not None else [(EVERYTHING,)]
    match = Match(terms=tuple(query.terms), any_of=tuple(groups + wanted), none_of=tuple(unwanted))
    return Plan(match, filtered, notes)

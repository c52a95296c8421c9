"""What people type, made fit to keep: one place for titles, descriptions, tags, and how words are compared."""

import re
import unicodedata
from collections.abc import Iterable

from visionsuit.core.errors import InvalidInput

TITLE_CHARACTERS = 180
DESCRIPTION_CHARACTERS = 1500
TAGS = 24
TAG_CHARACTERS = 60

#: Control characters, halves of UTF-16 pairs (no database keeps them), and what turns the direction of text around.
_UNKEPT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
#: Accents of Latin, Greek and Cyrillic. Marks of other scripts carry meaning and stay.
_ACCENTS = re.compile("[\u0300-\u036f]")


def clean_line(text: str) -> str:
    """One line: no control characters, single spaces, nothing around it."""
    return " ".join(_UNKEPT.sub("", unicodedata.normalize("NFC", text)).split())


def clean_text(text: str) -> str:
    """Many lines: no control characters but line ends and tabs."""
    return _UNKEPT.sub("", unicodedata.normalize("NFC", text)).replace("\r\n", "\n").replace("\r", "\n").strip()


def fold(text: str) -> str:
    """The form in which words are compared: without case, accents and compatibility variants."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return unicodedata.normalize("NFC", _ACCENTS.sub("", decomposed)).casefold()


def clean_title(text: str, field: str = "title") -> str:
    """
    Raises:
        InvalidInput: empty, or longer than TITLE_CHARACTERS.
    """
    title = clean_line(text)
    if not title:
        raise InvalidInput("A title is needed.", field=field)
    return within(title, TITLE_CHARACTERS, field)


def clean_description(text: str, field: str = "description") -> str:
    """
    Raises:
        InvalidInput: longer than DESCRIPTION_CHARACTERS.
    """
    return within(clean_text(text), DESCRIPTION_CHARACTERS, field)


def clean_tags(tags: Iterable[str], field: str = "tags") -> list[str]:
    """Trimmed, in the order given, spelled as first given, each once whatever its case and accents.

    Raises:
        InvalidInput: more than TAGS, or one longer than TAG_CHARACTERS.
    """
    kept: dict[str, str] = {}
    for tag in tags:
        name = within(clean_line(tag).lstrip("#").strip(), TAG_CHARACTERS, field)
        if name:
            kept.setdefault(fold(name), name)
    if len(kept) > TAGS:
        raise InvalidInput(f"There are {len(kept)} tags; {TAGS} is the most.", field=field)
    return list(kept.values())


def within(text: str, characters: int, field: str) -> str:
    """
    Raises:
        InvalidInput: `text` is longer than `characters`.
    """
    if len(text) > characters:
        raise InvalidInput(f"The {field} has {len(text)} characters; {characters} is the most.", field=field)
    return text

"""Text -> index words, in Python, so that both databases index and find exactly the same."""

import re
from hashlib import blake2b

from visionsuit.core.text import fold

#: Scripts written without spaces: each character is a word, and a typed word becomes a phrase of them.
_SINGLE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fa1f"
_WORD = re.compile(f"[{_SINGLE}]|(?:(?![{_SINGLE}])[^\\W_])+")
_ASCII_WORD = re.compile("[a-z0-9]+")
WORD_CHARACTERS = 64

#: Private-use characters that no word can contain, so nothing typed ever meets a filter token.
FACET = "\ue000"
TITLE = "\ue001"


def words(text: str, most: int = 4000) -> list[str]:
    """Folded words in order: "Café_Noir v1.5" -> cafe noir v1 5."""
    folded = fold(text[: most * 16])
    found = (_ASCII_WORD if folded.isascii() else _WORD).findall(folded)
    return [word[:WORD_CHARACTERS] for word in found[:most]]


def facet(kind: str, value: object) -> str:
    """Filter token of a plain value, as `visibility_tokens` and enums are."""
    return f"{FACET}{kind}{value}"


def facet_of_text(kind: str, value: str) -> str:
    """Filter token of free text, equal for texts that differ by case and accents only."""
    return f"{FACET}{kind}{blake2b(fold(value).encode(errors='replace'), digest_size=8).hexdigest()}"

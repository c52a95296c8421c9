"""Cursor paging: a page and the opaque text that continues it.

A cursor is base64url JSON of the last row's sort key. It holds no secret and grants nothing: every page is
filtered by visibility again.
"""

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from visionsuit.core.errors import InvalidInput

T = TypeVar("T")
DEFAULT_LIMIT = 24
MAX_LIMIT = 100


class BadCursor(InvalidInput):
    code = "bad_cursor"


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    items: list[T]
    next_cursor: str | None


def encode_cursor(*key: Any) -> str:
    """Sort key of a page's last row -> text for the address bar."""
    return base64.urlsafe_b64encode(json.dumps(key, separators=(",", ":")).encode()).rstrip(b"=").decode()


def decode_cursor(cursor: str, *kinds: type | tuple[type, ...]) -> tuple[Any, ...]:
    """Text -> sort key, checked against `kinds` (one a part).

    Raises:
        BadCursor: not made by `encode_cursor` for this sort.
    """
    try:
        key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error) as error:
        raise BadCursor("This cursor is not one that a list gave out.", field="cursor") from error
    if not isinstance(key, list) or len(key) != len(kinds):
        raise BadCursor("This cursor belongs to another sort order.", field="cursor")
    for part, kind in zip(key, kinds, strict=True):
        if not isinstance(part, kind) or isinstance(part, bool) or (isinstance(part, int) and abs(part) >= 2**63):
            raise BadCursor("This cursor belongs to another sort order.", field="cursor")
    return tuple(key)

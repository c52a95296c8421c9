"""Opaque random ids, as programs and address bars see them."""

import re
import secrets

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def new_id() -> str:
    """16 characters of base64url, 96 random bits: cannot be guessed, sorts by nothing."""
    return secrets.token_urlsafe(12)


def is_id(text: str) -> bool:
    """Whether `text` could be an id at all. What could not never reaches the database: PostgreSQL refuses a NUL."""
    return _ID.fullmatch(text) is not None


def row_id(row: object) -> int:
    """Primary key of a row that has been written (`flush`) or loaded."""
    id_ = getattr(row, "id", None)
    assert isinstance(id_, int), f"{type(row).__name__} has not been written yet"
    return id_

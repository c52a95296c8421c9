"""Opaque random ids, as programs and address bars see them."""

import secrets


def new_id() -> str:
    """16 characters of base64url, 96 random bits: cannot be guessed, sorts by nothing."""
    return secrets.token_urlsafe(12)

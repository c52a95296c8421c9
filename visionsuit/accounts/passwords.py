"""Password hashing. Slow on purpose, so never inside a transaction: hash first, then open one."""

import base64
import hashlib
import secrets
import unicodedata
from functools import cache

import bcrypt

from visionsuit.core.errors import InvalidInput

MIN_CHARACTERS = 8
MAX_CHARACTERS = 1024
#: log2 of bcrypt's rounds: about a quarter of a second on a small server's core.
COST = 12


class BadPassword(InvalidInput):
    code = "bad_password"


def check_new_password(password: str, field: str = "password") -> None:
    """Refuse what may not become a password.

    Raises:
        BadPassword: shorter than 8 or longer than 1,024 characters.
    """
    if not MIN_CHARACTERS <= len(password) <= MAX_CHARACTERS:
        message = f"A password has {MIN_CHARACTERS} to {MAX_CHARACTERS:,} characters; this one has {len(password):,}."
        raise BadPassword(message, field=field)


def hash_password(password: str, cost: int = COST) -> str:
    """bcrypt over a digest of the password: bcrypt alone reads 72 bytes and stops at a NUL."""
    return bcrypt.hashpw(_digest(password), bcrypt.gensalt(cost)).decode()


def verify_password(password: str, password_hash: str | None) -> bool:
    """Whether `password` made `password_hash`. None (no such account) takes the same time, and so does a hash that
    no password makes."""
    if password_hash is None or not password_hash.startswith("$2"):
        bcrypt.checkpw(_digest(password), _nobodys_hash())
        return False
    return bcrypt.checkpw(_digest(password), password_hash.encode())


def _digest(password: str) -> bytes:
    # NFKC: the same password typed on another keyboard or system may come as other code points.
    # Base64 of 48 bytes is 64 characters: under bcrypt's 72, and never a NUL.
    text = unicodedata.normalize("NFKC", password).encode(errors="surrogatepass")
    return base64.b64encode(hashlib.sha384(text).digest())


@cache
def _nobodys_hash() -> bytes:
    return bcrypt.hashpw(secrets.token_bytes(32).hex().encode(), bcrypt.gensalt(COST))

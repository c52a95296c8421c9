"""Sessions: one row and one signed token each. The token names the row; deleting the row ends the session at once."""

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import jwt
import sqlalchemy as sa
from sqlmodel import col, select

from visionsuit.accounts.tables import Account, AccountSession
from visionsuit.core.actor import SYSTEM
from visionsuit.core.clock import utcnow
from visionsuit.core.errors import NotFound
from visionsuit.core.ids import new_id
from visionsuit.core.permissions import Permission, require
from visionsuit.db import UtcDateTime
from visionsuit.runtime import Ctx, Runtime

ALGORITHM = "HS256"
#: `last_seen_at` is written at most this often, so that reading a page is not also a write.
SEEN_EVERY = timedelta(minutes=1)
#: What is longer than any token made here is not worth decoding.
MAX_TOKEN_CHARACTERS = 2000


_accounts: sa.Table = Account.__table__  # type: ignore[attr-defined]
_sessions: sa.Table = AccountSession.__table__  # type: ignore[attr-defined]
#: What an Actor is made of, for a SELECT.
ACTOR_COLUMNS = tuple(_accounts.c[name] for name in ("id", "public_id", "name", "role", "shows_adult"))
#: Asked at every request: built once, and of columns rather than objects.
_SIGNED_IN: sa.Select[Any] = (
    sa.select(*ACTOR_COLUMNS, _sessions.c.id.label("session_id"), _sessions.c.last_seen_at)
    .join(_sessions, _sessions.c.account_id == _accounts.c.id)
    .where(
        _sessions.c.id == sa.bindparam("session_id", type_=sa.String()),
        _accounts.c.public_id == sa.bindparam("account_id", type_=sa.String()),
        _accounts.c.token_version == sa.bindparam("version", type_=sa.Integer()),
        _accounts.c.is_active.is_(True),
        _sessions.c.expires_at > sa.bindparam("now", type_=UtcDateTime()),
    )
)


class SessionNotFound(NotFound):
    code = "session_not_found"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a request comes from: network address and browser, as the edge saw them."""

    address: str = ""
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says."""

    account_public_id: str
    version: int
    session_id: str
    expires_at: datetime


def start_session(ctx: Ctx, account: Account, source: Source | None = None) -> str:
    """Write the session's row in `ctx` and return its token.

    Expired sessions of the account go away on the same occasion.
    """
    source = source or Source()
    now = utcnow()
    assert account.id is not None
    ctx.session.execute(
        sa.delete(AccountSession).where(
            col(AccountSession.account_id) == account.id, col(AccountSession.expires_at) < now
        )
    )
    row = AccountSession(
        id=new_id(),
        account_id=account.id,
        address=source.address[:64],
        user_agent=source.user_agent[:300],
        created_at=now,
        last_seen_at=now,
        expires_at=now + timedelta(days=ctx.settings.session_days),
    )
    ctx.session.add(row)
    ctx.session.flush()
    return _sign(ctx.runtime, account, row)


def issue_token(runtime: Runtime, account: Account) -> str:
    """`start_session` in a transaction of its own, for callers that hold no write transaction."""
    with runtime.open_ctx(SYSTEM) as ctx:
        return start_session(ctx, account)


def _sign(runtime: Runtime, account: Account, row: AccountSession) -> str:
    claims = {
        "sub": account.public_id,
        "ver": account.token_version,
        "jti": row.id,
        "iat": int(row.created_at.timestamp()),
        "exp": int(row.expires_at.timestamp()),
    }
    return jwt.encode(claims, runtime.secret, algorithm=ALGORITHM)


def read_token(runtime: Runtime, token: str) -> Claims | None:
    """Claims of a token signed here and not expired; None for anything else. Looks at no database."""
    if len(token) > MAX_TOKEN_CHARACTERS:
        return None
    try:
        claims = _verify(token, runtime.secret)
    except (jwt.InvalidTokenError, ValueError):
        return None
    return claims if claims.expires_at > utcnow() else None


# What a good token says never changes; whether it still counts is for its end and its row to say.
@lru_cache(maxsize=2048)
def _verify(token: str, secret: bytes) -> Claims:
    """Raises: jwt.InvalidTokenError, ValueError"""
    if not _is_canonical(token):
        raise ValueError("another spelling of a token")
    claims = jwt.decode(token, secret, algorithms=[ALGORITHM], options={"require": ["sub", "ver", "jti", "exp"]})
    subject, version, session_id = claims["sub"], claims["ver"], claims["jti"]
    if not (isinstance(subject, str) and isinstance(version, int) and isinstance(session_id, str)):
        raise ValueError("claims of another shape")
    # Whole seconds in the token, so this is at most a second before the row's own end.
    expires_at = datetime.fromtimestamp(int(claims["exp"]), tz=utcnow().tzinfo)
    return Claims(subject, version, session_id, expires_at)


def _is_canonical(token: str) -> bool:
    """Refuse other spellings of the same token: base64url ignores the spare bits of a last character."""
    for part in token.split("."):
        try:
            decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        except (binascii.Error, ValueError):
            return False
        if base64.urlsafe_b64encode(decoded).rstrip(b"=").decode() != part:
            return False
    return True


def find_signed_in(ctx: Ctx, claims: Claims) -> sa.Row[Any] | None:
    """ACTOR_COLUMNS of the account that `claims` name, with `session_id` and `last_seen_at`, if both account and
    session still stand; None when the session has been ended."""
    asked = {
        "session_id": claims.session_id,
        "account_id": claims.account_public_id,
        "version": claims.version,
        "now": utcnow(),
    }
    return ctx.connection.execute(_SIGNED_IN, asked).first()


def end_session(ctx: Ctx, token: str) -> None:
    """End the session of `token`; a token that is no good ends nothing and is no error."""
    claims = read_token(ctx.runtime, token)
    if claims is not None:
        ctx.session.execute(sa.delete(AccountSession).where(col(AccountSession.id) == claims.session_id))


def end_all_sessions(ctx: Ctx, account: Account) -> None:
    """End every session of `account`: for a new password, another role, a deactivation."""
    account.token_version += 1
    ctx.session.add(account)
    ctx.session.execute(sa.delete(AccountSession).where(col(AccountSession.account_id) == account.id))


def delete_expired_sessions(ctx: Ctx) -> int:
    """Rows of sessions that ran out. Returns how many; for the scheduler."""
    result = ctx.session.execute(sa.delete(AccountSession).where(col(AccountSession.expires_at) < utcnow()))
    return int(getattr(result, "rowcount", 0))


def end_own_session(ctx: Ctx, session_id: str) -> None:
    """End one of the asker's sessions.

    Raises:
        SessionNotFound: also for somebody else's.
    """
    require(ctx.actor, Permission.TOKENS_MANAGE)
    rows = ctx.session.exec(select(AccountSession).where(col(AccountSession.account_id) == ctx.actor.user_id))
    row = next((row for row in rows if row.id == session_id), None)
    if row is None:
        raise SessionNotFound("You have no such session.")
    ctx.session.delete(row)


def end_other_sessions(ctx: Ctx, keep_id: str | None) -> None:
    """End the asker's sessions but `keep_id`."""
    require(ctx.actor, Permission.TOKENS_MANAGE)
    delete = sa.delete(AccountSession).where(col(AccountSession.account_id) == ctx.actor.user_id)
    ctx.session.execute(delete.where(col(AccountSession.id) != (keep_id or "")))

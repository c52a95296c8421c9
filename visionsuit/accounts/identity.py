"""Who sends this request: bearer token or session cookie -> Actor. Called once a request, by the web edge."""

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import OperationalError
from sqlmodel import Session, col, select

from visionsuit.accounts.sessions import ACTOR_COLUMNS, SEEN_EVERY, find_signed_in, read_token
from visionsuit.accounts.tables import Account, AccountSession, ApiToken
from visionsuit.audit.service import record
from visionsuit.core.actor import ALL_SCOPES, GUEST, SYSTEM, Actor, Role, Scope
from visionsuit.core.clock import utcnow
from visionsuit.core.errors import NotSignedIn
from visionsuit.runtime import Ctx, Runtime

log = structlog.get_logger()

#: How every API token begins, so that people and scanners recognise one.
API_TOKEN_PREFIX = "vs_"


class BadToken(NotSignedIn):
    code = "bad_token"


_ACTIVE: sa.Select[Any] = sa.select(*ACTOR_COLUMNS).where(
    col(Account.id) == sa.bindparam("account_id", type_=sa.Integer()), col(Account.is_active).is_(True)
)


def actor_of(account: Account | sa.Row[Any], scopes: frozenset[Scope] = ALL_SCOPES) -> Actor:
    """The Actor that acts for `account`, or for its ACTOR_COLUMNS."""
    return Actor(
        user_id=account.id,
        role=Role(account.role),
        name=account.name,
        public_id=account.public_id,
        shows_adult=account.shows_adult,
        scopes=scopes,
    )


def find_actor(ctx: Ctx, account_id: int) -> Actor | None:
    """Who acts for an account as it is now, outside of its requests; None unless it is active."""
    found = ctx.connection.execute(_ACTIVE, {"account_id": account_id}).first()
    return None if found is None else actor_of(found)


def hash_api_token(token: str) -> str:
    """SHA-256, hex. The token has 256 random bits: a slow hash would add nothing but time."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def resolve_actor(runtime: Runtime, bearer: str | None, cookie: str | None) -> Actor:
    """Who that is.

    A bearer token (session JWT or API token) goes before the cookie. A cookie that is no longer good makes a
    guest, since the browser sends it unasked; a bearer token that is no good is an answer.

    Raises:
        BadToken: the bearer token is unknown, expired, revoked, or its account is not active.
    """
    if bearer is None:
        return (_session_actor(runtime, cookie) if cookie else None) or GUEST
    actor = _token_actor(runtime, bearer) if bearer.startswith(API_TOKEN_PREFIX) else _session_actor(runtime, bearer)
    if actor is None:
        raise BadToken("This token is not valid, has expired, or its session has ended.", hint="Log in again.")
    return actor


def _session_actor(runtime: Runtime, token: str) -> Actor | None:
    claims = read_token(runtime, token)
    if claims is None:
        return None
    now = utcnow()
    with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        row = find_signed_in(ctx, claims)
        if row is None:
            return None
    if now - row.last_seen_at >= SEEN_EVERY:
        _write_down(
            runtime,
            sa.update(AccountSession)
            .where(col(AccountSession.id) == row.session_id, col(AccountSession.last_seen_at) <= now - SEEN_EVERY)
            .values(last_seen_at=now),
        )
    return actor_of(row)


def _token_actor(runtime: Runtime, token: str) -> Actor | None:
    now = utcnow()
    with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        found = _find_api_token(ctx.session, token, now)
        if found is None:
            return None
        account, row = found
    unused_for = now - row.last_used_at if row.last_used_at else timedelta.max
    if unused_for >= SEEN_EVERY:
        last_used = col(ApiToken.last_used_at)
        # Administrators' tokens leave a trace, once for each hour in which one is used.
        watched = actor_of(account).is_admin and unused_for >= timedelta(hours=1)
        _write_down(
            runtime,
            sa.update(ApiToken)
            .where(col(ApiToken.id) == row.id, sa.or_(last_used.is_(None), last_used <= now - SEEN_EVERY))
            .values(last_used_at=now),
            (lambda ctx: record(ctx, "token.used", row.public_id, {"name": row.name}, actor=actor_of(account)))
            if watched
            else None,
        )
    # A scope that this version does not know grants nothing.
    return actor_of(account, frozenset(scope for scope in Scope if scope in row.scopes))


def _find_api_token(session: Session, token: str, now: datetime) -> tuple[Account, ApiToken] | None:
    found = session.execute(
        select(Account, ApiToken)
        .join(ApiToken, col(ApiToken.account_id) == col(Account.id))
        .where(
            col(ApiToken.token_hash) == hash_api_token(token),
            col(Account.is_active).is_(True),
            sa.or_(col(ApiToken.expires_at).is_(None), col(ApiToken.expires_at) > now),
        )
    ).first()
    return (found[0], found[1]) if found else None


def _write_down(runtime: Runtime, statement: sa.Update, then: Callable[[Ctx], None] | None = None) -> None:
    """A note on the side: the request goes on when the database is too busy to take it.

    `then` runs in the same transaction if the statement changed a row, so of requests at once only one's does.
    """
    try:
        with runtime.open_ctx(SYSTEM) as ctx:
            changed = ctx.session.execute(statement)
            if then is not None and getattr(changed, "rowcount", False):
                then(ctx)
    except OperationalError:
        log.warning("last_use_not_written", exc_info=True)

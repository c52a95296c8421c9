"""Personal API tokens: made, listed, revoked by their owner."""

import secrets
from datetime import datetime, timedelta

from sqlmodel import col, select

from visionsuit.accounts.identity import API_TOKEN_PREFIX, hash_api_token
from visionsuit.accounts.profile_fields import one_line
from visionsuit.accounts.service import own_account
from visionsuit.accounts.tables import ApiToken
from visionsuit.audit.service import record
from visionsuit.core.actor import Scope
from visionsuit.core.clock import utcnow
from visionsuit.core.errors import Conflict, InvalidInput, NotFound, NotPermitted
from visionsuit.core.permissions import Permission, require
from visionsuit.runtime import Ctx

NAME_MAX_CHARACTERS = 80
MAX_DAYS = 3650
MAX_TOKENS = 50


class TokenNotFound(NotFound):
    code = "token_not_found"


class BadToken(InvalidInput):
    code = "bad_token_request"


class TooManyTokens(Conflict):
    code = "too_many_tokens"


def create_token(
    ctx: Ctx, name: str, scopes: list[Scope], expires_in_days: int | None = None, *, now: datetime | None = None
) -> tuple[ApiToken, str]:
    """A new token's row and the token itself, which nobody can read again.

    A token made with a token can do no more than that one: the asker's scopes bound it.

    Raises:
        BadToken: no name, no scope, or an odd number of days.
        NotPermitted: a scope that the token in use doesn't have.
        TooManyTokens
    """
    require(ctx.actor, Permission.TOKENS_MANAGE)
    account = own_account(ctx, lock=True)
    name = one_line(name, 1, NAME_MAX_CHARACTERS, "name", "A token's name")
    if not scopes:
        raise BadToken("A token needs at least one scope.", field="scopes", hint=", ".join(Scope))
    if expires_in_days is not None and not 1 <= expires_in_days <= MAX_DAYS:
        raise BadToken(f"A token lives 1 to {MAX_DAYS} days, or without end.", field="expires_in_days")
    beyond = sorted(set(scopes) - ctx.actor.scopes)
    if beyond:
        raise NotPermitted(f"The token in use lacks the scope '{beyond[0]}'.", field="scopes")
    held = ctx.session.exec(select(ApiToken.id).where(col(ApiToken.account_id) == account.id)).all()
    if len(held) >= MAX_TOKENS:
        raise TooManyTokens(f"An account has at most {MAX_TOKENS} tokens. Revoke one first.")
    now = now or utcnow()
    token = API_TOKEN_PREFIX + secrets.token_urlsafe(32)
    assert account.id is not None
    row = ApiToken(
        account_id=account.id,
        name=name,
        token_hash=hash_api_token(token),
        scopes=[scope.value for scope in Scope if scope in scopes],
        created_at=now,
        expires_at=now + timedelta(days=expires_in_days) if expires_in_days is not None else None,
    )
    ctx.session.add(row)
    ctx.session.flush()
    record(ctx, "token.created", row.public_id, {"name": name, "scopes": row.scopes, "days": expires_in_days})
    return row, token


def revoke_token(ctx: Ctx, public_id: str) -> None:
    """End one of the asker's own tokens at once.

    Raises:
        TokenNotFound: also for somebody else's.
    """
    require(ctx.actor, Permission.TOKENS_MANAGE)
    query = select(ApiToken).where(col(ApiToken.account_id) == ctx.actor.user_id)
    row = next((row for row in ctx.session.exec(query) if row.public_id == public_id), None)
    if row is None:
        raise TokenNotFound("You have no such token.")
    ctx.session.delete(row)
    record(ctx, "token.revoked", row.public_id, {"name": row.name})

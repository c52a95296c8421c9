"""People whom an administrator does not let render, with the reason and for how long."""

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlmodel import col, select

from visionsuit.accounts.queries import get_account
from visionsuit.accounts.tables import Account
from visionsuit.audit.service import record
from visionsuit.core.actor import Role
from visionsuit.core.clock import utcnow
from visionsuit.core.errors import Conflict, InvalidInput, NotFound, NotPermitted
from visionsuit.core.permissions import Permission, require
from visionsuit.core.text import clean_line
from visionsuit.generation.tables import GenerationBlock
from visionsuit.jobs import queue
from visionsuit.runtime import Ctx

_LONGEST_REASON = 500
_LAST_YEAR = 9998
_OF_ACTOR = select(col(GenerationBlock.reason), col(GenerationBlock.until)).where(
    col(GenerationBlock.account_id) == sa.bindparam("user_id", type_=sa.Integer())
)


class GenerationBlocked(NotPermitted):
    code = "generation_blocked"


class BadBlock(InvalidInput):
    code = "bad_block"


class OwnBlock(Conflict):
    code = "own_account"


class NotBlocked(NotFound):
    code = "not_blocked"


def require_unblocked(ctx: Ctx) -> None:
    """Raises: GenerationBlocked: with the reason, and until when."""
    row = ctx.connection.execute(_OF_ACTOR, {"user_id": ctx.actor.user_id}).first()
    if row is not None:
        refuse_blocked(row.reason, row.until)


def refuse_blocked(reason: str | None, until: datetime | None) -> None:
    """The same with what was read of a block; no reason, no block."""
    if reason is not None and _holds(until):
        end = f" until {until:%Y-%m-%d %H:%M} UTC" if until else ""
        raise GenerationBlocked(f"An administrator does not let you render{end}: {reason}")


def list_blocks(ctx: Ctx) -> list[tuple[GenerationBlock, Account]]:
    """Those that hold, newest first.

    Raises:
        NotPermitted: the actor is no administrator.
    """
    require(ctx.actor, Permission.QUEUE_MANAGE)
    rows = ctx.session.exec(
        select(GenerationBlock, Account)
        .join(Account, col(Account.id) == col(GenerationBlock.account_id))
        .order_by(col(GenerationBlock.created_at).desc())
    )
    return [(block, account) for block, account in rows if _holds(block.until)]


def block(ctx: Ctx, user_id: str, *, reason: str, until: datetime | None = None) -> tuple[GenerationBlock, Account]:
    """Let a person render no more; what waits of theirs is cancelled, what runs goes on. Replaces an earlier block.

    Args:
        user_id: public id.
        until: with a zone, in the future; None for good.

    Raises:
        NotPermitted: the actor is no administrator, or the person is one and the actor does not look after those.
        AccountNotFound, BadBlock, OwnBlock
    """
    account = _manageable(ctx, user_id)
    if account.id == ctx.actor.user_id:
        raise OwnBlock("You can't keep yourself from rendering.")
    reason = clean_line(reason)
    if not reason or len(reason) > _LONGEST_REASON:
        raise BadBlock(f"Say why, in 1 to {_LONGEST_REASON} characters; the person reads it.", field="reason")
    until = None if until is None else _checked_end(until)
    assert account.id is not None
    row = ctx.session.get(GenerationBlock, account.id) or GenerationBlock(account_id=account.id, reason=reason)
    row.reason, row.until, row.created_by, row.created_at = reason, until, ctx.actor.user_id, utcnow()
    ctx.session.add(row)
    ctx.session.flush()
    queue.cancel_waiting(ctx, owner_id=account.id)
    record(ctx, "generation.blocked", account.public_id, {"reason": reason, "until": until and until.isoformat()})
    return row, account


def unblock(ctx: Ctx, user_id: str) -> None:
    """Raises: NotPermitted, AccountNotFound, NotBlocked"""
    account = _manageable(ctx, user_id)
    row = ctx.session.get(GenerationBlock, account.id)
    if row is None:
        raise NotBlocked(f"{account.name} may render already.")
    ctx.session.delete(row)
    ctx.session.flush()
    record(ctx, "generation.unblocked", account.public_id)


def _manageable(ctx: Ctx, user_id: str) -> Account:
    require(ctx.actor, Permission.QUEUE_MANAGE)
    account = get_account(ctx, user_id)
    if Role(account.role).rank >= Role.ADMIN.rank and account.id != ctx.actor.user_id:
        require(ctx.actor, Permission.ADMINS_MANAGE)
    return account


def _checked_end(until: datetime) -> datetime:
    """In UTC. Raises: BadBlock"""
    if until.tzinfo is None or until <= utcnow():
        raise BadBlock("The end must be a time in the future, with its zone.", field="until")
    # Nearer to the last of all years, some zone would have none for it.
    if until.year > _LAST_YEAR:
        raise BadBlock(f"The end must be before the year {_LAST_YEAR + 1}; left out, it is for good.", field="until")
    return until.astimezone(UTC)


def _holds(until: datetime | None) -> bool:
    return until is None or until > utcnow()

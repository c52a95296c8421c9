"""Adding to the audit log and reading it."""

from typing import Any

from sqlmodel import col, select

from visionsuit.audit.tables import AuditEntry
from visionsuit.core.actor import Actor
from visionsuit.core.paging import Page, decode_cursor, encode_cursor
from visionsuit.core.permissions import Permission, require
from visionsuit.runtime import Ctx


def record(
    ctx: Ctx, action: str, target: str = "", detail: dict[str, Any] | None = None, *, actor: Actor | None = None
) -> None:
    """Write down, in the transaction of the deed itself, that `ctx.actor` did `action`.

    `detail` is JSON and must hold no secret. `actor` is given where the doer is not the asker: a login is asked
    for by a guest.
    """
    who = actor or ctx.actor
    ctx.session.add(
        AuditEntry(
            actor_id=who.user_id,
            actor_public_id=who.public_id,
            actor_name=who.name,
            actor_role=who.role.value,
            action=action,
            target=target[:200],
            detail=detail or {},
        )
    )


def list_entries(
    ctx: Ctx, *, action: str = "", actor_id: str = "", target: str = "", cursor: str | None = None, limit: int = 24
) -> Page[AuditEntry]:
    """Newest first. `action` may be a beginning (`login.`); `actor_id` is a public id.

    Raises:
        NotPermitted: the asker is no administrator.
    """
    require(ctx.actor, Permission.USERS_MANAGE)
    query = select(AuditEntry).order_by(col(AuditEntry.id).desc()).limit(limit + 1)
    if action:
        query = query.where(col(AuditEntry.action).startswith(_plain(action), autoescape=True))
    if actor_id:
        query = query.where(col(AuditEntry.actor_public_id) == _plain(actor_id))
    if target:
        query = query.where(col(AuditEntry.target) == _plain(target))
    if cursor:
        query = query.where(col(AuditEntry.id) < decode_cursor(cursor, int)[0])
    rows = list(ctx.session.exec(query))
    more = len(rows) > limit
    rows = rows[:limit]
    return Page(rows, encode_cursor(rows[-1].id) if more else None)


def _plain(text: str) -> str:
    # PostgreSQL refuses text with NUL; nothing stored holds one.
    return text.replace("\0", "")

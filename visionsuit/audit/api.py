"""GET /api/audit: who did what, for administrators."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, Field

from visionsuit.audit import service
from visionsuit.audit.tables import AuditEntry
from visionsuit.core.paging import DEFAULT_LIMIT, MAX_LIMIT
from visionsuit.router import ReadCtxDep, Router

router = Router(prefix="/api/audit", tags=["audit"])


class AuditActorOut(BaseModel):
    id: str | None = Field(description="Public id; null for guests and for the server itself.")
    name: str
    role: str


class AuditEntryOut(BaseModel):
    at: datetime
    actor: AuditActorOut
    action: str = Field(examples=["login.failed"])
    target: str
    detail: dict[str, Any]


class AuditListOut(BaseModel):
    items: list[AuditEntryOut]
    next_cursor: str | None


def _entry_out(entry: AuditEntry) -> AuditEntryOut:
    return AuditEntryOut(
        at=entry.at,
        actor=AuditActorOut(id=entry.actor_public_id or None, name=entry.actor_name, role=entry.actor_role),
        action=entry.action,
        target=entry.target,
        detail=entry.detail,
    )


@router.get("", summary="Audit log, newest first")
def list_audit(
    ctx: ReadCtxDep,
    action: Annotated[str, Query(max_length=60, description="Action or the beginning of one, such as `login.`")] = "",
    actor: Annotated[str, Query(max_length=32, description="Public id of who did it")] = "",
    target: Annotated[str, Query(max_length=200)] = "",
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
) -> AuditListOut:
    page = service.list_entries(ctx, action=action, actor_id=actor, target=target, cursor=cursor, limit=limit)
    return AuditListOut(items=[_entry_out(entry) for entry in page.items], next_cursor=page.next_cursor)

"""/api/queue: the render queue, for administrators."""

from typing import Annotated

from fastapi import APIRouter, Query

from visionsuit.core.paging import DEFAULT_LIMIT, MAX_LIMIT
from visionsuit.generation import queue_admin
from visionsuit.generation.schemas import FailureListOut, QueueOut
from visionsuit.web import CtxDep, ReadCtxDep

router = APIRouter(prefix="/api/queue", tags=["queue"])


@router.get("", summary="What waits and what runs")
def get_queue(ctx: ReadCtxDep) -> QueueOut:
    return queue_admin.show_queue(ctx)


@router.post("/pause", summary="Begin nothing new")
def pause_queue(ctx: CtxDep) -> QueueOut:
    """What runs goes on, new requests are admitted and wait."""
    return queue_admin.set_paused(ctx, True)


@router.post("/resume", summary="Go on")
def resume_queue(ctx: CtxDep) -> QueueOut:
    return queue_admin.set_paused(ctx, False)


@router.get("/failures", summary="Failed renders with their traces")
def list_failures(
    ctx: ReadCtxDep,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
) -> FailureListOut:
    page = queue_admin.list_failures(ctx, cursor=cursor, limit=limit)
    return FailureListOut(items=page.items, next_cursor=page.next_cursor)

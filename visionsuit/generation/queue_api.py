"""/api/queue: the render queue, for administrators."""

from typing import Annotated

from fastapi import Query

from visionsuit.accounts.queries import owners_of
from visionsuit.accounts.tables import Account
from visionsuit.core.paging import DEFAULT_LIMIT, MAX_LIMIT
from visionsuit.generation import blocks, queue_admin
from visionsuit.generation.schemas import BlockIn, BlockListOut, BlockOut, FailureListOut, JobChangeIn, QueueOut
from visionsuit.generation.tables import GenerationBlock
from visionsuit.router import CtxDep, ReadCtxDep, Router
from visionsuit.runtime import Ctx

router = Router(prefix="/api/queue", tags=["queue"])


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


@router.post("/drain", summary="Take nothing new")
def drain_queue(ctx: CtxDep) -> QueueOut:
    """What waits and runs is done; new requests get 503 `queue_draining` until /resume."""
    return queue_admin.drain(ctx)


@router.post("/clear", summary="Cancel all that waits")
def clear_queue(ctx: CtxDep) -> QueueOut:
    return queue_admin.clear(ctx)


@router.post("/jobs/{job_id}/cancel", summary="Cancel a job")
def cancel_job(ctx: CtxDep, job_id: str) -> QueueOut:
    """Waiting: at once. Running: within a step. Finished: nothing changes."""
    return queue_admin.cancel_job(ctx, job_id)


@router.post("/jobs/{job_id}/retry", summary="Try a failed or cancelled job again")
def retry_job(ctx: CtxDep, job_id: str) -> QueueOut:
    return queue_admin.retry_job(ctx, job_id)


@router.patch("/jobs/{job_id}", summary="Let a job go earlier or later")
def change_job(ctx: CtxDep, job_id: str, body: JobChangeIn) -> QueueOut:
    return queue_admin.prioritise_job(ctx, job_id, body.priority)


@router.get("/blocks", summary="Who may not render")
def list_blocks(ctx: ReadCtxDep) -> BlockListOut:
    return BlockListOut(items=[_block_out(ctx, *entry) for entry in blocks.list_blocks(ctx)])


@router.put("/blocks/{user_id}", summary="Let a person render no more")
def block_person(ctx: CtxDep, user_id: str, body: BlockIn) -> BlockOut:
    """What waits of theirs is cancelled; they read the reason when they try."""
    return _block_out(ctx, *blocks.block(ctx, user_id, reason=body.reason, until=body.until))


@router.delete("/blocks/{user_id}", status_code=204, summary="Let a person render again")
def unblock_person(ctx: CtxDep, user_id: str) -> None:
    blocks.unblock(ctx, user_id)


@router.get("/failures", summary="Failed renders with their traces")
def list_failures(
    ctx: ReadCtxDep,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
) -> FailureListOut:
    page = queue_admin.list_failures(ctx, cursor=cursor, limit=limit)
    return FailureListOut(items=page.items, next_cursor=page.next_cursor)


def _block_out(ctx: Ctx, block: GenerationBlock, account: Account) -> BlockOut:
    user = owners_of(ctx, [account.id])[block.account_id]
    return BlockOut(user=user, reason=block.reason, until=block.until, created_at=block.created_at)

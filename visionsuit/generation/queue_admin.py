"""The queue as administrators see and steer it."""

from dataclasses import asdict

from sqlmodel import col, select

from visionsuit.accounts.queries import owners_of
from visionsuit.audit.service import record
from visionsuit.core.errors import Conflict
from visionsuit.core.paging import DEFAULT_LIMIT, Page, decode_cursor, encode_cursor
from visionsuit.core.permissions import Permission, require
from visionsuit.generation.schemas import ErrorOut, FailureOut, QueueItemOut, QueueOut, WorkerOut
from visionsuit.generation.tables import Generation
from visionsuit.jobs import queue
from visionsuit.jobs.forecast import Forecast, forecast_job, forecast_queue
from visionsuit.jobs.presence import list_workers
from visionsuit.jobs.tables import FINISHED, RENDER_QUEUE, WAITING, Job, JobState
from visionsuit.runtime import Ctx

#: The least and the most that administrators may give a job.
PRIORITIES = (-100, 100)
_SHOWN = 200


class RequestDeleted(Conflict):
    code = "request_deleted"


def show_queue(ctx: Ctx) -> QueueOut:
    """
    Raises:
        NotPermitted: the actor is no administrator.
    """
    require(ctx.actor, Permission.QUEUE_MANAGE)
    forecasts = forecast_queue(ctx, RENDER_QUEUE)
    jobs = list(
        ctx.session.exec(
            select(Job)
            .where(col(Job.queue) == RENDER_QUEUE, col(Job.state).in_([*WAITING, JobState.RUNNING]))
            .order_by(col(Job.id))
        )
    )
    running = [job for job in jobs if job.state == JobState.RUNNING]
    # What came since the forecast is behind all of it.
    places = {job_id: forecast.place for job_id, forecast in forecasts.items() if forecast.place is not None}
    waiting = [job for job in jobs if job.state in WAITING]
    waiting.sort(key=lambda job: places.get(job.id or 0, len(forecasts) + 1))
    return QueueOut(
        paused=queue.is_paused(ctx),
        draining=queue.is_draining(ctx),
        waiting=_items(ctx, waiting[:_SHOWN], forecasts),
        running=_items(ctx, running, {job.id or 0: forecast_job(ctx, job) for job in running}),
        engine=asdict(ctx.runtime.engine.status()),
        workers=[
            WorkerOut(**worker.model_dump(include=set(WorkerOut.model_fields)))
            for worker in list_workers(ctx, RENDER_QUEUE)
        ],
    )


def set_paused(ctx: Ctx, paused: bool) -> QueueOut:
    """Pause or go on, and write down who did. Going on admits new work again too.

    Raises:
        NotPermitted: the actor is no administrator.
    """
    require(ctx.actor, Permission.QUEUE_MANAGE)
    changed = queue.is_paused(ctx) != paused
    if changed:
        queue.set_paused(ctx, paused)
    if not paused and queue.is_draining(ctx):
        queue.set_draining(ctx, False)
        changed = True
    if changed:
        record(ctx, "queue.paused" if paused else "queue.resumed", RENDER_QUEUE)
    return show_queue(ctx)


def drain(ctx: Ctx) -> QueueOut:
    """Admit nothing new; what waits and runs is done.

    Raises:
        NotPermitted: the actor is no administrator.
    """
    require(ctx.actor, Permission.QUEUE_MANAGE)
    if not queue.is_draining(ctx):
        queue.set_draining(ctx, True)
        record(ctx, "queue.draining", RENDER_QUEUE)
    return show_queue(ctx)


def clear(ctx: Ctx) -> QueueOut:
    """Cancel all that waits.

    Raises:
        NotPermitted: the actor is no administrator.
    """
    require(ctx.actor, Permission.QUEUE_MANAGE)
    count = queue.cancel_waiting(ctx)
    if count:
        record(ctx, "queue.cleared", RENDER_QUEUE, {"cancelled": count})
    return show_queue(ctx)


def cancel_job(ctx: Ctx, public_id: str) -> QueueOut:
    """
    Raises:
        NotPermitted: the actor is no administrator.
        JobNotFound
    """
    job = _locked(ctx, public_id)
    assert job.id is not None
    if job.state not in FINISHED:
        queue.cancel(ctx, job.id)
        record(ctx, "queue.cancelled", public_id)
    return show_queue(ctx)


def retry_job(ctx: Ctx, public_id: str) -> QueueOut:
    """
    Raises:
        NotPermitted: the actor is no administrator.
        JobNotFound
        NotOver: it did not fail and was not cancelled.
        RequestDeleted: there is nothing left to render.
        QueueDraining: nothing is taken now.
    """
    job = _locked(ctx, public_id)
    queue.require_open(ctx)
    if ctx.session.exec(select(Generation.id).where(col(Generation.job_id) == job.id)).first() is None:
        raise RequestDeleted("The request of this job was deleted; there is nothing to render.")
    queue.retry(ctx, job)
    record(ctx, "queue.retried", public_id)
    return show_queue(ctx)


def prioritise_job(ctx: Ctx, public_id: str, priority: int) -> QueueOut:
    """Let a job go before all of smaller priority.

    Args:
        priority: within PRIORITIES; requests have 0.

    Raises:
        NotPermitted: the actor is no administrator.
        JobNotFound
    """
    job = _locked(ctx, public_id)
    if job.priority != priority:
        record(ctx, "queue.prioritised", public_id, {"from": job.priority, "to": priority})
        queue.set_priority(ctx, job, priority)
    return show_queue(ctx)


def _locked(ctx: Ctx, public_id: str) -> Job:
    require(ctx.actor, Permission.QUEUE_MANAGE)
    return queue.lock_named(ctx, public_id)


def list_failures(ctx: Ctx, *, cursor: str | None = None, limit: int = DEFAULT_LIMIT) -> Page[FailureOut]:
    """Failed renders with their traces, newest first.

    Raises:
        NotPermitted: the actor is no administrator.
    """
    require(ctx.actor, Permission.QUEUE_MANAGE)
    failed = (col(Job.queue) == RENDER_QUEUE, col(Job.state) == JobState.FAILED)
    query = select(Job).where(*failed).order_by(col(Job.id).desc()).limit(limit + 1)
    if cursor:
        query = query.where(col(Job.id) < decode_cursor(cursor, int)[0])
    rows = list(ctx.session.exec(query))
    more, rows = len(rows) > limit, rows[:limit]
    owners = owners_of(ctx, [job.owner_id for job in rows])
    items = [
        FailureOut(
            id=job.public_id,
            generation_id=job.payload.get("generation_id"),
            owner=owners.get(job.owner_id or 0),
            error=ErrorOut(code=job.error_code or "internal", message=job.error_message or ""),
            trace=job.error_trace or "",
            attempts=job.attempts,
            device_seconds=job.device_seconds,
            created_at=job.created_at,
            finished_at=job.finished_at,
        )
        for job in rows
    ]
    return Page(items, encode_cursor(rows[-1].id) if more else None)


def _items(ctx: Ctx, jobs: list[Job], forecasts: dict[int, Forecast]) -> list[QueueItemOut]:
    owners = owners_of(ctx, [job.owner_id for job in jobs])
    return [
        QueueItemOut(
            id=job.public_id,
            generation_id=job.payload.get("generation_id"),
            owner=owners.get(job.owner_id or 0),
            status=job.state,
            phase=job.phase,
            step=job.step,
            steps=job.steps,
            priority=job.priority,
            attempts=job.attempts,
            created_at=job.created_at,
            started_at=job.started_at,
            **asdict(forecasts.get(job.id or 0, Forecast())),
        )
        for job in jobs
    ]

"""The queue as administrators see and steer it."""

from dataclasses import asdict

from sqlmodel import col, select

from visionsuit.accounts.queries import owners_of
from visionsuit.audit.service import record
from visionsuit.core.paging import DEFAULT_LIMIT, Page, decode_cursor, encode_cursor
from visionsuit.core.permissions import Permission, require
from visionsuit.generation.schemas import ErrorOut, FailureOut, QueueItemOut, QueueOut, WorkerOut
from visionsuit.jobs import queue
from visionsuit.jobs.forecast import Forecast, forecast_job, forecast_queue
from visionsuit.jobs.presence import list_workers
from visionsuit.jobs.tables import RENDER_QUEUE, WAITING, Job, JobState
from visionsuit.runtime import Ctx

_SHOWN = 200


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
    waiting = sorted((job for job in jobs if job.state in WAITING), key=lambda job: forecasts[job.id or 0].place or 0)
    return QueueOut(
        paused=queue.is_paused(ctx),
        waiting=_items(ctx, waiting[:_SHOWN], forecasts),
        running=_items(ctx, running, {job.id or 0: forecast_job(ctx, job) for job in running}),
        engine=asdict(ctx.runtime.engine.status()),
        workers=[
            WorkerOut(**worker.model_dump(include=set(WorkerOut.model_fields)))
            for worker in list_workers(ctx, RENDER_QUEUE)
        ],
    )


def set_paused(ctx: Ctx, paused: bool) -> QueueOut:
    """Pause or go on, and write down who did.

    Raises:
        NotPermitted: the actor is no administrator.
    """
    require(ctx.actor, Permission.QUEUE_MANAGE)
    if queue.is_paused(ctx) != paused:
        queue.set_paused(ctx, paused)
        record(ctx, "queue.paused" if paused else "queue.resumed", RENDER_QUEUE)
    return show_queue(ctx)


def list_failures(ctx: Ctx, *, cursor: str | None = None, limit: int = DEFAULT_LIMIT) -> Page[FailureOut]:
    """Failed renders with their traces, newest first.

    Raises:
        NotPermitted: the actor is no administrator.
    """
    require(ctx.actor, Permission.QUEUE_MANAGE)
    query = select(Job).where(col(Job.state) == JobState.FAILED).order_by(col(Job.id).desc()).limit(limit + 1)
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
            attempts=job.attempts,
            created_at=job.created_at,
            started_at=job.started_at,
            **asdict(forecasts.get(job.id or 0, Forecast())),
        )
        for job in jobs
    ]

"""The queue as those see it who put work in: defer, cancel, pause. What workers do with it is in claims.py."""

from typing import Any

import sqlalchemy as sa
from sqlmodel import col, select

from visionsuit.core.clock import utcnow
from visionsuit.core.errors import Conflict, NotFound, TooMany, Unavailable
from visionsuit.core.ids import is_id, new_id
from visionsuit.jobs import statements
from visionsuit.jobs.events import cancel_topic, forecast_topic, tell_job, tell_queue
from visionsuit.jobs.rows import JobRow
from visionsuit.jobs.shares import lock_share
from visionsuit.jobs.sql import insert_row, upsert
from visionsuit.jobs.tables import FINISHED, RENDER_QUEUE, WAITING, Job, JobState, QueueState
from visionsuit.runtime import Ctx

_INSERT = sa.insert(Job.__table__)  # type: ignore[attr-defined]
#: What a new job has besides the fields of a JobRow.
_NEW = {"attempts": 0, "cancel_requested": False, "charged_s": 0.0, "device_seconds": 0.0}


class TooManyActive(TooMany):
    code = "too_many_active"


class JobNotFound(NotFound):
    code = "job_not_found"


class NotOver(Conflict):
    code = "job_not_over"


class QueueDraining(Unavailable):
    code = "queue_draining"


def defer(
    ctx: Ctx,
    kind: str,
    payload: dict[str, Any],
    *,
    owner_id: int | None,
    queue: str = RENDER_QUEUE,
    priority: int = 0,
    pace_key: str = "",
    pace_size: int = 0,
    units: int = 0,
    affinity: str = "",
    public_id: str | None = None,
) -> JobRow:
    """Put work in the queue, in the caller's transaction: it exists if and only if that commits."""
    job = JobRow(
        id=0,
        public_id=public_id or new_id(),
        queue=queue,
        kind=kind,
        owner_id=owner_id,
        state=JobState.QUEUED,
        priority=priority,
        phase=None,
        step=0,
        steps=0,
        units=units,
        pace_key=pace_key,
        pace_size=pace_size,
        error_code=None,
        error_message=None,
        error_trace=None,
        created_at=utcnow(),
        started_at=None,
        finished_at=None,
    )
    values = job._asdict() | {"payload": payload, "affinity": affinity, **_NEW}
    del values["id"]
    tell_queue(ctx, queue)
    return job._replace(id=insert_row(ctx, _INSERT, values))


def limit_active(ctx: Ctx, owner_id: int, most: int, *, queue: str = RENDER_QUEUE) -> None:
    """Refuse if `owner_id` already has `most` jobs waiting or running. Holds until the transaction ends: two
    requests at once are counted one after the other.

    Raises:
        TooManyActive: the cap is reached.
    """
    lock_share(ctx, owner_id)
    count = statements.ask(ctx, statements.ACTIVE_OF, owner_id=owner_id, queue=queue).scalar_one()
    if count >= most:
        raise TooManyActive(
            f"You have {count} renders waiting or running; the most at once is {most}.",
            retry_after_s=10,
            hint="Wait until one is done, or cancel one.",
        )


def find_job(ctx: Ctx, job_id: int) -> Job | None:
    return ctx.session.get(Job, job_id, populate_existing=True)


def lock_job(ctx: Ctx, job_id: int) -> Job:
    """The row as it is now, kept from workers until the transaction ends.

    Raises:
        JobNotFound: it went away, at the latest while its row was waited for.
    """
    job = ctx.session.exec(
        select(Job).where(col(Job.id) == job_id).with_for_update().execution_options(populate_existing=True)
    ).one_or_none()
    if job is None:
        raise JobNotFound("There is no such job.")
    return job


def lock_named(ctx: Ctx, public_id: str, queue: str = RENDER_QUEUE) -> Job:
    """Raises: JobNotFound"""
    job_id = None
    if is_id(public_id):
        job_id = ctx.session.exec(select(Job.id).where(Job.public_id == public_id, Job.queue == queue)).first()
    if job_id is None:
        raise JobNotFound("There is no such job.")
    return lock_job(ctx, job_id)


def cancel(ctx: Ctx, job_id: int) -> Job:
    """Waiting work ends at once; running work is asked to stop and does so within a step. Finished work stays.

    Raises:
        JobNotFound
    """
    job = lock_job(ctx, job_id)
    if job.state in WAITING:
        job.state = JobState.CANCELLED
        job.cancel_requested = True
        job.finished_at = utcnow()
        tell_queue(ctx, job.queue)
    elif job.state == JobState.RUNNING:
        job.cancel_requested = True
        ctx.after_commit(lambda: ctx.bus.publish(cancel_topic(job.queue), {"job": job.public_id}))
    ctx.session.add(job)
    ctx.session.flush()
    tell_job(ctx, job.public_id)
    return job


def remove(ctx: Ctx, job: Job) -> None:
    """Forget a finished job."""
    assert job.state in FINISHED
    ctx.session.delete(job)
    ctx.session.flush()


def retry(ctx: Ctx, job: Job) -> None:
    """Let a failed or cancelled job wait again, as if it were new. The row is locked by the caller.

    Raises:
        NotOver: it waits, runs, or has its results.
    """
    if job.state not in (JobState.FAILED, JobState.CANCELLED):
        raise NotOver(f"This job is {job.state}; only failed and cancelled ones can be tried again.")
    job.state = JobState.QUEUED
    job.cancel_requested = False
    job.attempts = 0
    job.error_code = job.error_message = job.error_trace = None
    job.phase, job.step, job.steps = None, 0, 0
    job.run_after = job.started_at = job.finished_at = None
    # Its owner waits from now on, not since it was asked for.
    job.created_at = utcnow()
    ctx.session.add(job)
    ctx.session.flush()
    tell_queue(ctx, job.queue)
    tell_job(ctx, job.public_id)


def set_priority(ctx: Ctx, job: Job, priority: int) -> None:
    """Larger ones go first. The row is locked by the caller."""
    job.priority = priority
    ctx.session.add(job)
    ctx.session.flush()
    ctx.after_commit(lambda: ctx.bus.forget(forecast_topic(job.queue)))
    tell_queue(ctx, job.queue)


def cancel_waiting(ctx: Ctx, queue: str = RENDER_QUEUE, *, owner_id: int | None = None) -> int:
    """Cancel all that waits, of one person if `owner_id` is given; what runs goes on. Returns how many."""
    waiting = select(Job).where(col(Job.queue) == queue, col(Job.state).in_(WAITING)).with_for_update()
    if owner_id is not None:
        waiting = waiting.where(col(Job.owner_id) == owner_id)
    jobs = ctx.session.exec(waiting.execution_options(populate_existing=True)).all()
    for job in jobs:
        job.state = JobState.CANCELLED
        job.cancel_requested = True
        job.finished_at = utcnow()
        ctx.session.add(job)
        tell_job(ctx, job.public_id)
    ctx.session.flush()
    tell_queue(ctx, queue)
    return len(jobs)


def is_paused(ctx: Ctx, queue: str = RENDER_QUEUE) -> bool:
    row = statements.ask(ctx, statements.STATE, queue=queue).first()
    return row is not None and bool(row.is_paused)


def is_draining(ctx: Ctx, queue: str = RENDER_QUEUE) -> bool:
    row = statements.ask(ctx, statements.STATE, queue=queue).first()
    return row is not None and bool(row.is_draining)


def require_open(ctx: Ctx, queue: str = RENDER_QUEUE) -> None:
    """Raises: QueueDraining: nothing new is admitted now."""
    if is_draining(ctx, queue):
        raise QueueDraining("The queue is being emptied and takes no new renders just now. Try again later.")


def set_paused(ctx: Ctx, paused: bool, queue: str = RENDER_QUEUE) -> None:
    """Paused: what runs goes on, nothing new begins, new work is still admitted."""
    _set_state(ctx, queue, is_paused=paused)


def set_draining(ctx: Ctx, draining: bool, queue: str = RENDER_QUEUE) -> None:
    """Draining: what was admitted is done, nothing new is admitted."""
    _set_state(ctx, queue, is_draining=draining)


def _set_state(ctx: Ctx, queue: str, **values: bool) -> None:
    ctx.session.execute(
        upsert(ctx, QueueState)
        .values(name=queue, **{"is_paused": False, "is_draining": False, **values})
        .on_conflict_do_update(index_elements=["name"], set_=values)
    )
    ctx.after_commit(lambda: ctx.bus.forget(forecast_topic(queue)))
    tell_queue(ctx, queue)

"""Which workers live, and taking back the work of those that do not.

A worker is provably dead when the lock on its file is free: the kernel lets go of it however the process ends, and
anyone who shares the data folder can look. Workers elsewhere are given up after STALLED_AFTER_S without a heartbeat.

What they worked on waits again, up to MAX_ATTEMPTS; idle work is given up at once.
"""

import os
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from sqlmodel import col, select

from visionsuit.core.clock import utcnow
from visionsuit.core.ids import new_id
from visionsuit.jobs.claims import MAX_ATTEMPTS, give_back
from visionsuit.jobs.events import recall, remember, tell_job
from visionsuit.jobs.tables import IDLE_PRIORITY, Job, JobState, WorkerPresence
from visionsuit.runtime import Ctx

try:
    import fcntl
except ImportError:  # Windows: no proof there, the heartbeat alone decides.
    fcntl = None  # type: ignore[assignment]

log = structlog.get_logger()

STALLED_AFTER_S = 30.0
_CAPACITY_KEPT_S = 1.0
#: Rows of workers that are gone are kept this long, for the administrator's eyes.
_FORGET_AFTER_S = 24 * 3600.0


class Capacity(NamedTuple):
    """Workers of a queue that were heard of lately, and jobs that they run at once."""

    workers: int
    slots: int


class LifeLock:
    """A locked file that says "this worker lives" for as long as the process does."""

    def __init__(self, data_dir: Path) -> None:
        self.worker_id = new_id()
        self.path = _lock_path(data_dir, self.worker_id)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("wb")
        if fcntl is not None:
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def release(self) -> None:
        self.path.unlink(missing_ok=True)
        self._file.close()


def enter(ctx: Ctx, worker_id: str, queue: str) -> WorkerPresence:
    """Write the worker down; before its first claim."""
    row = WorkerPresence(id=worker_id, queue=queue, host=socket.gethostname()[:255], pid=os.getpid())
    ctx.session.add(row)
    ctx.session.flush()
    _forget_capacity(ctx, queue)
    return row


def beat(ctx: Ctx, worker_id: str, queue: str, slots: int, engine: dict[str, Any]) -> None:
    row = ctx.session.get(WorkerPresence, worker_id)
    if row is None:
        # Given up by others: the machine slept, or its clock was put forward.
        row = enter(ctx, worker_id, queue)
    row.heartbeat_at = utcnow()
    if row.slots != slots:
        _forget_capacity(ctx, row.queue)
    row.slots = slots
    row.engine = engine
    ctx.session.add(row)


def leave(ctx: Ctx, worker_id: str) -> None:
    row = ctx.session.get(WorkerPresence, worker_id)
    if row is not None:
        ctx.session.delete(row)
        _forget_capacity(ctx, row.queue)


def read_capacity(ctx: Ctx, queue: str) -> Capacity:
    """Up to a second old."""
    capacity: Capacity | None = recall(ctx.bus, _capacity_topic(queue), _CAPACITY_KEPT_S)
    if capacity is None:
        workers = list_workers(ctx, queue)
        capacity = Capacity(len(workers), sum(worker.slots for worker in workers))
        remember(ctx.bus, _capacity_topic(queue), capacity)
    return capacity


def _forget_capacity(ctx: Ctx, queue: str) -> None:
    ctx.after_commit(lambda: ctx.bus.forget(_capacity_topic(queue)))


def _capacity_topic(queue: str) -> str:
    return f"capacity:{queue}"


def list_workers(ctx: Ctx, queue: str, within_s: float = STALLED_AFTER_S) -> list[WorkerPresence]:
    """Workers heard of lately."""
    since = utcnow() - timedelta(seconds=within_s)
    return list(
        ctx.session.exec(
            select(WorkerPresence).where(col(WorkerPresence.queue) == queue, col(WorkerPresence.heartbeat_at) >= since)
        )
    )


def take_back_from_dead(ctx: Ctx) -> int:
    """Requeue at once what provably dead workers held. Returns how many jobs."""
    count = 0
    for worker in ctx.session.exec(select(WorkerPresence)).all():
        path = _lock_path(ctx.settings.data_dir, worker.id)
        if not _is_free(path):
            continue
        jobs = ctx.session.exec(
            select(Job)
            .where(col(Job.claimed_by) == worker.id, col(Job.state) == JobState.RUNNING)
            .with_for_update(skip_locked=True)
        ).all()
        for job in jobs:
            _requeue(ctx, job)
        count += len(jobs)
        ctx.session.delete(worker)
        _forget_capacity(ctx, worker.queue)
        ctx.after_commit(lambda path=path: path.unlink(missing_ok=True))  # type: ignore[misc]
    return count


def take_back_stalled(ctx: Ctx, *, after_s: float = STALLED_AFTER_S) -> int:
    """Requeue jobs without a heartbeat for `after_s`, and forget workers long gone. Returns how many jobs."""
    now = utcnow()
    jobs = ctx.session.exec(
        select(Job)
        .where(col(Job.state) == JobState.RUNNING, col(Job.heartbeat_at) < now - timedelta(seconds=after_s))
        .with_for_update(skip_locked=True)
    ).all()
    for job in jobs:
        _requeue(ctx, job)
    gone = col(WorkerPresence.heartbeat_at) < now - timedelta(seconds=_FORGET_AFTER_S)
    for worker in ctx.session.exec(select(WorkerPresence).where(gone)).all():
        ctx.session.delete(worker)
    return len(jobs)


def _requeue(ctx: Ctx, job: Job) -> None:
    log.warning("job_stalled", job=job.public_id, attempt=job.attempts, worker=job.claimed_by)
    last = f"worker {job.claimed_by} stopped in phase {job.phase or 'start'}, step {job.step} of {job.steps}"
    give_back(ctx, job, counts=True)
    job.run_after = None
    # If it was the reason, it has to run alone from now on; idle work never should, as it lets others pass.
    is_idle = job.priority <= IDLE_PRIORITY
    if job.state == JobState.QUEUED and (is_idle or job.attempts >= MAX_ATTEMPTS):
        often = "" if job.attempts == 1 else f" {job.attempts} times"
        job.state = JobState.FAILED
        job.finished_at = utcnow()
        job.error_code = "worker_lost"
        job.error_message = f"The renderer stopped{often} while it worked on this, so it was given up."
        job.error_trace = last
        tell_job(ctx, job.public_id)
    ctx.session.add(job)
    ctx.session.flush()


def _lock_path(data_dir: Path, worker_id: str) -> Path:
    return data_dir / "workers" / f"{worker_id}.lock"


def _is_free(path: Path) -> bool:
    """Whether the process that locked `path` is gone. No file: it is on another machine, nothing is known."""
    if fcntl is None:
        return False
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:  # locked, or not here
        return False

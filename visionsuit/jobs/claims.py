"""The queue as workers see it: claim, report, finish, give back.

A claim carries a random token. Every report is an UPDATE that matches the token, so a worker whose job was given to
another (it hung, its machine slept) changes nothing: it gets ClaimLost, and the transaction with its results rolls
back. That is what makes "rendered once, saved once" true without trusting clocks.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlmodel import col, select

from visionsuit.core.clock import utcnow
from visionsuit.core.ids import new_id
from visionsuit.jobs import statements
from visionsuit.jobs.events import tell_job, tell_queue
from visionsuit.jobs.fairness import UNKNOWN_COST_S, Candidate, choose, faded
from visionsuit.jobs.pace import load_paces
from visionsuit.jobs.shares import charge
from visionsuit.jobs.sql import upsert
from visionsuit.jobs.tables import IDLE_PRIORITY, Job, JobState, QueueState
from visionsuit.runtime import Ctx

#: Claims of one job that end with a dead or silent worker before the job is given up.
MAX_ATTEMPTS = 3


class ClaimLost(Exception):
    """The job is no longer this worker's: another has it, or it was ended. Drop everything made for it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A job as it was when this worker took it. `is_idle`: nobody waits for it. `is_last`: nothing else in its queue
    waited then, for whatever. `is_suspect`: the worker that had it before died or fell silent."""

    job_id: int
    public_id: str
    queue: str
    kind: str
    payload: dict[str, Any]
    owner_id: int | None
    token: str
    attempt: int
    affinity: str
    pace_key: str
    pace_size: int
    is_idle: bool
    is_last: bool
    is_suspect: bool


def has_waiting(ctx: Ctx, queue: str) -> bool:
    """Whether a claim could succeed; takes no lock, so that idle workers cost nothing."""
    return statements.ask(ctx, statements.HAS_WAITING, queue=queue, now=utcnow()).first() is not None


def claim(ctx: Ctx, worker_id: str, queue: str, *, loaded: str = "") -> Claim | None:
    """Take the job whose turn it is, or None. `loaded` is the affinity of what this worker ran last."""
    # One claim at a time: two would weigh the same shares and serve one person twice.
    is_paused = statements.ask(ctx, statements.QUEUE_FOR_UPDATE, queue=queue).scalar_one_or_none()
    if is_paused is None:
        ctx.connection.execute(upsert(ctx, QueueState).values(name=queue, is_paused=False).on_conflict_do_nothing())
        is_paused = statements.ask(ctx, statements.QUEUE_FOR_UPDATE, queue=queue).scalar_one()
    if is_paused:
        return None
    now = utcnow()
    first = statements.ask(ctx, statements.NEXT_OF_EACH, queue=queue, now=now).all()
    candidates = [_candidate(row, now) for row in first]
    while candidates:
        chosen = choose(candidates, now, loaded=loaded)
        job = statements.ask(ctx, statements.READY_FOR_UPDATE, job_id=chosen.job_id, queue=queue, now=now).first()
        if job is not None:
            is_idle, is_last = chosen.priority <= IDLE_PRIORITY, first[0].waiting == 1
            return _take(ctx, job, worker_id, now, is_idle=is_idle, is_last=is_last)
        # Its row is held by somebody who cancels it just now.
        candidates = [c for c in candidates if c.job_id != chosen.job_id]
    return None


def _candidate(row: Any, now: datetime) -> Candidate:
    return Candidate(
        job_id=row.id,
        priority=row.priority,
        share_s=faded(row.used_s, row.used_at, now) if row.used_s is not None else 0.0,
        waits_since=max(row.created_at, row.served_at) if row.served_at else row.created_at,
        affinity=row.affinity,
    )


def report(ctx: Ctx, claim: Claim, phase: str, step: int, steps: int) -> bool:
    """Write progress down; it is a heartbeat too. Returns whether the job is to stop.

    Raises:
        ClaimLost: the job is another's now.
    """
    values = {"new_phase": phase, "new_step": step, "new_steps": steps, "now": utcnow()}
    changed = statements.ask(ctx, statements.REPORT, job_id=claim.job_id, token=claim.token, **values)
    if changed.rowcount != 1:
        raise ClaimLost(f"job {claim.public_id} is no longer this worker's")
    return is_stopped(ctx, claim)


def heartbeat(ctx: Ctx, tokens: Iterable[str]) -> dict[str, bool]:
    """Say that the jobs of `tokens` are alive. Returns token -> asked to stop, of those that are still held."""
    held = list(tokens)
    if not held:
        return {}
    mine = (col(Job.claim_token).in_(held), col(Job.state) == JobState.RUNNING)
    ctx.connection.execute(sa.update(Job).where(*mine).values(heartbeat_at=utcnow()))
    rows = ctx.connection.execute(select(col(Job.claim_token), col(Job.cancel_requested)).where(*mine))
    return {str(token): bool(cancel) for token, cancel in rows}


def is_stopped(ctx: Ctx, claim: Claim) -> bool:
    """Whether the job was cancelled or taken away."""
    row = statements.ask(ctx, statements.STOPPED, job_id=claim.job_id).first()
    return row is None or row[0] != claim.token or bool(row[1])


def complete(ctx: Ctx, claim: Claim, *, device_seconds: float) -> None:
    """The work is done; call it in the transaction that writes the results.

    Raises:
        ClaimLost: the job is another's now; let the transaction roll back.
    """
    _finish(ctx, claim, JobState.COMPLETED, device_seconds)


def fail(ctx: Ctx, claim: Claim, *, code: str, message: str, trace: str, device_seconds: float) -> None:
    """Give up. `message` is for the person, `trace` for administrators."""
    _finish(ctx, claim, JobState.FAILED, device_seconds, code=code[:64], message=message, trace=trace)


def release(ctx: Ctx, claim: Claim, *, after_s: float = 0.0, counts: bool = False, device_seconds: float = 0.0) -> None:
    """Give the job back: it waits again, or is cancelled if its owner asked for that.

    `counts` lets the attempt count towards MAX_ATTEMPTS; `device_seconds` were used all the same.

    Raises:
        ClaimLost: the job is another's now.
    """
    job = _held(ctx, claim)
    if job.cancel_requested:
        _finish(ctx, claim, JobState.CANCELLED, device_seconds)
        return
    give_back(ctx, job, counts=counts)
    charge(ctx, job.owner_id, device_seconds)
    if after_s:
        job.state = JobState.PENDING
        job.run_after = utcnow() + timedelta(seconds=after_s)
    ctx.session.flush()


def give_back(ctx: Ctx, job: Job, *, counts: bool) -> None:
    """Make a running job wait again, as if it had not begun. The row is locked by the caller."""
    charge(ctx, job.owner_id, -job.charged_s)
    if job.cancel_requested:
        job.state = JobState.CANCELLED
        job.finished_at = utcnow()
    else:
        job.state = JobState.QUEUED
        job.started_at = None
    job.claim_token = None
    job.claimed_by = None
    job.claimed_at = None
    job.heartbeat_at = None
    job.phase = None
    job.step = 0
    job.charged_s = 0.0
    if not counts:
        job.attempts -= 1
    ctx.session.add(job)
    tell_queue(ctx, job.queue)
    tell_job(ctx, job.public_id)


def _take(ctx: Ctx, job: Any, worker_id: str, now: datetime, *, is_idle: bool, is_last: bool) -> Claim:
    """`job`: columns of a row that is locked."""
    cost, token = load_paces(ctx).of(job), new_id()
    charged_s = cost if cost is not None else UNKNOWN_COST_S
    taken = {"new_token": token, "worker": worker_id, "charged": charged_s}
    statements.ask(ctx, statements.TAKE, job_id=job.id, now=now, **taken)
    charge(ctx, job.owner_id, charged_s, served=True)
    tell_job(ctx, job.public_id, JobState.RUNNING)
    return Claim(
        job_id=job.id,
        public_id=job.public_id,
        queue=job.queue,
        kind=job.kind,
        payload=job.payload,
        owner_id=job.owner_id,
        token=token,
        attempt=job.attempts + 1,
        affinity=job.affinity,
        pace_key=job.pace_key,
        pace_size=job.pace_size,
        is_idle=is_idle,
        is_last=is_last,
        # After a passing disturbance there is a time from which on it is tried again.
        is_suspect=job.attempts > 0 and job.run_after is None,
    )


def _held(ctx: Ctx, claim: Claim) -> Job:
    mine = {"job_id": claim.job_id, "token": claim.token}
    job: Job | None = ctx.session.execute(statements.HELD_FOR_UPDATE, mine).scalar_one_or_none()
    if job is None:
        raise ClaimLost(f"job {claim.public_id} is no longer this worker's")
    return job


def _finish(
    ctx: Ctx,
    claim: Claim,
    state: JobState,
    device_seconds: float,
    *,
    code: str | None = None,
    message: str | None = None,
    trace: str | None = None,
) -> None:
    errors = {"new_error_code": code, "new_error_message": message, "new_error_trace": trace}
    mine = {"job_id": claim.job_id, "token": claim.token, "now": utcnow()}
    done = statements.ask(ctx, statements.FINISH, **mine, new_state=state, device_s=device_seconds, **errors).first()
    if done is None:
        raise ClaimLost(f"job {claim.public_id} is no longer this worker's")
    charge(ctx, done.owner_id, device_seconds - done.charged_s)
    tell_job(ctx, done.public_id, state)
    tell_queue(ctx, done.queue, ended=True)

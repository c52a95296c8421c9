"""What a waiting person is told: their place, when it is done, and one plain line why it waits.

The forecast plays the queue forward with the same rule that claims use, on measured speeds, as if nobody else came.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heapify, heapreplace

from sqlmodel import col, select

from visionsuit.core.clock import utcnow
from visionsuit.jobs.fairness import UNKNOWN_COST_S, Candidate, choose, faded
from visionsuit.jobs.pace import Paces, load_paces
from visionsuit.jobs.presence import list_workers
from visionsuit.jobs.queue import is_paused
from visionsuit.jobs.tables import WAITING, Job, JobState, OwnerShare
from visionsuit.runtime import Ctx

#: Waiting jobs that are played forward; those behind get a place, and no estimate.
_HORIZON = 300


@dataclass(frozen=True, slots=True)
class Forecast:
    """`place` counts from 1 among the waiting; `eta_s`: seconds until the results are there, None if nobody knows."""

    place: int | None = None
    eta_s: float | None = None
    wait_reason: str | None = None


def forecast_job(ctx: Ctx, job: Job) -> Forecast:
    """Of a waiting or running job; empty for a finished one."""
    if job.state in WAITING:
        return forecast_queue(ctx, job.queue).get(job.id or 0, Forecast(wait_reason="Waits for its turn."))
    if job.state == JobState.RUNNING:
        return Forecast(eta_s=_remaining_s(job, load_paces(ctx), utcnow()))
    return Forecast()


def forecast_queue(ctx: Ctx, queue: str) -> dict[int, Forecast]:
    """Job id -> forecast, of everything that waits in `queue`."""
    now, paces = utcnow(), load_paces(ctx)
    # Only columns are used, and nothing is changed: a row that a service is working on stays as it is.
    waiting = list(
        ctx.session.exec(
            select(Job)
            .where(col(Job.queue) == queue, col(Job.state).in_(WAITING))
            .order_by(col(Job.priority).desc(), col(Job.id))
        )
    )
    running = list(ctx.session.exec(select(Job).where(col(Job.queue) == queue, col(Job.state) == JobState.RUNNING)))
    workers = list_workers(ctx, queue)
    slots = sum(worker.slots for worker in workers)
    ready = [job for job in waiting if job.run_after is None or job.run_after <= now]
    order = _play(ctx, ready, running, slots, paces, now)
    reason_of = _Reasons(is_paused(ctx, queue), bool(workers), slots, running)
    result: dict[int, Forecast] = {}
    for place, (job, eta_s) in enumerate(order, start=1):
        known = eta_s if slots and not reason_of.paused else None
        result[job.id or 0] = Forecast(place, known, reason_of.line(place, job))
    for job in waiting:
        if job.id not in result:
            result[job.id or 0] = Forecast(
                len(result) + 1, None, "Tries again in a moment; the last try was disturbed."
            )
    return result


def _play(
    ctx: Ctx, ready: list[Job], running: list[Job], slots: int, paces: Paces, now: datetime
) -> list[tuple[Job, float | None]]:
    """Waiting jobs in the order in which they will run, with seconds until each is done."""
    lanes: dict[int | None, list[Job]] = defaultdict(list)
    for job in ready:
        lanes[job.owner_id].append(job)
    shares = _shares(ctx, [owner for owner in lanes if owner is not None])
    used = {owner: faded(row.used_s, row.used_at, now) for owner, row in shares.items()}
    served = {owner: row.served_at for owner, row in shares.items()}
    free_at = sorted((_remaining_s(job, paces, now) or 0.0) for job in running)[: max(slots, 1)]
    free_at += [0.0] * (max(slots, 1) - len(free_at))
    heapify(free_at)
    known_so_far = all(paces.of(job) is not None for job in running)
    order: list[tuple[Job, float | None]] = []
    while lanes:
        if len(order) >= _HORIZON:
            rest = sorted((job for lane in lanes.values() for job in lane), key=lambda job: job.id or 0)
            return order + [(job, None) for job in rest]
        start_s = free_at[0]
        heads = {lane[0].id: (owner, lane[0]) for owner, lane in lanes.items()}
        chosen = choose(
            [_candidate(job, used.get(owner, 0.0), served.get(owner)) for owner, job in heads.values()],
            now + timedelta(seconds=start_s),
        )
        owner, job = heads[chosen.job_id]
        cost = paces.of(job)
        known_so_far = known_so_far and cost is not None
        seconds = cost if cost is not None else UNKNOWN_COST_S
        heapreplace(free_at, start_s + seconds)
        order.append((job, start_s + seconds if known_so_far else None))
        used[owner] = used.get(owner, 0.0) + seconds
        served[owner] = now + timedelta(seconds=start_s)
        lanes[owner].pop(0)
        if not lanes[owner]:
            del lanes[owner]
    return order


def _candidate(job: Job, share_s: float, served_at: datetime | None) -> Candidate:
    waits_since = max(job.created_at, served_at) if served_at else job.created_at
    return Candidate(job.id or 0, job.priority, share_s, waits_since, job.affinity)


def _shares(ctx: Ctx, owners: Iterable[int]) -> dict[int | None, OwnerShare]:
    rows = ctx.session.exec(select(OwnerShare).where(col(OwnerShare.owner_id).in_(list(owners))))
    return {row.owner_id: row for row in rows}


def _remaining_s(job: Job, paces: Paces, now: datetime) -> float | None:
    whole = paces.of(job)
    if whole is None or job.started_at is None:
        return None
    done = job.step / job.steps if job.steps else 0.0
    elapsed_s = (now - job.started_at).total_seconds()
    # Loading is not in the pace: what steps are left is a better word than the clock.
    return max(0.0, min(whole * (1 - done), whole)) if done else max(0.0, whole - elapsed_s)


@dataclass(frozen=True, slots=True)
class _Reasons:
    paused: bool
    has_workers: bool
    slots: int
    running: list[Job]

    def line(self, place: int, job: Job) -> str:
        if self.paused:
            return "An administrator paused the queue; this starts when it goes on."
        if not self.has_workers:
            return "No renderer is running at the moment; this starts as soon as one is back."
        if not self.slots:
            return "The renderer is starting."
        if place == 1 and len(self.running) < self.slots:
            return "Starts now."
        if any(other.owner_id == job.owner_id for other in self.running) and place == 1:
            return "Starts when your running render is done."
        if place == 1:
            return "Next: starts when the running render is done."
        before = place - 1
        return f"{before} {'render goes' if before == 1 else 'renders go'} first; people take turns."

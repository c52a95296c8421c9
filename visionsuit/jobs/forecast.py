"""What a waiting person is told: their place, when it is done, and one plain line why it waits.

The forecast plays the queue forward with the same rule that claims use, on measured speeds, as if nobody else came and
one worker took it all. What that has loaded is what it began last; while nothing runs, nobody is taken to fit.
It is made for the whole queue at once and kept for a moment, since everybody who waits asks again and again.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heapify, heapreplace
from typing import Any

from visionsuit.core.clock import utcnow
from visionsuit.engine.base import Phase
from visionsuit.jobs import statements
from visionsuit.jobs.events import forecast_topic, recall, remember
from visionsuit.jobs.fairness import UNKNOWN_COST_S, Candidate, choose, faded
from visionsuit.jobs.pace import Paces, load_paces
from visionsuit.jobs.presence import read_capacity
from visionsuit.jobs.queue import is_paused
from visionsuit.jobs.rows import JobRow
from visionsuit.jobs.tables import IDLE_PRIORITY, WAITING, Job, JobState
from visionsuit.runtime import Ctx

#: Waiting jobs that are played forward; those behind get a place, and no estimate.
_HORIZON = 300
_KEPT_S = 1.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """`place` counts from 1 among the waiting; `eta_s`: seconds until the results are there, None if nobody knows."""

    place: int | None = None
    eta_s: float | None = None
    wait_reason: str | None = None


def forecast_job(ctx: Ctx, job: JobRow | Job) -> Forecast:
    """Of a waiting or running job, up to a second old; empty for a finished one."""
    if job.state in WAITING:
        job_id = job.id or 0
        kept: dict[int, Forecast] = recall(ctx.bus, forecast_topic(job.queue), _KEPT_S) or {}
        if job_id in kept:
            return kept[job_id]
        return forecast_queue(ctx, job.queue).get(job_id, Forecast(wait_reason="Waits for its turn."))
    if job.state == JobState.RUNNING and job.phase == Phase.WAITING:
        return Forecast(wait_reason="Waits while others render.")
    if job.state == JobState.RUNNING:
        return Forecast(eta_s=_remaining_s(job, load_paces(ctx), utcnow()))
    return Forecast()


def forecast_queue(ctx: Ctx, queue: str) -> dict[int, Forecast]:
    """Job id -> forecast, of everything that waits in `queue`."""
    now, paces = utcnow(), load_paces(ctx)
    jobs = statements.ask(ctx, statements.ACTIVE_WITH_SHARES, queue=queue).all()
    # What is idle stands aside for those who wait.
    running = [job for job in jobs if job.state == JobState.RUNNING and job.priority > IDLE_PRIORITY]
    waiting = [job for job in jobs if job.state != JobState.RUNNING]
    workers, slots = read_capacity(ctx, queue)
    reasons = _Reasons(
        paused=is_paused(ctx, queue),
        has_workers=bool(workers),
        slots=slots,
        running_owners=[job.owner_id for job in running],
    )
    idle = [job for job in waiting if job.priority <= IDLE_PRIORITY]
    ready = [job for job in waiting if job.priority > IDLE_PRIORITY and (job.run_after is None or job.run_after <= now)]
    remaining_s = [_remaining_s(job, paces, now) for job in running]
    begun = [job for job in jobs if job.state == JobState.RUNNING and job.started_at is not None]
    loaded = max(begun, key=lambda job: job.started_at).affinity if begun else ""
    order = _play(ready, remaining_s, reasons.slots, paces, now, loaded)
    forecasts: dict[int, Forecast] = {}
    for place, (job, eta_s) in enumerate(order, start=1):
        known = eta_s if reasons.slots and not reasons.paused else None
        forecasts[job.id] = Forecast(place, known, reasons.line(place, job.owner_id))
    for job in waiting:
        if job.id not in forecasts and job.priority > IDLE_PRIORITY:
            late = "Tries again in a moment; the last try was disturbed."
            forecasts[job.id] = Forecast(len(forecasts) + 1, None, late)
    for job in idle:
        place = len(forecasts) + 1
        stopped = reasons.paused or not reasons.slots
        line = reasons.line(1, job.owner_id) if stopped else "Starts when nobody else waits and nothing else runs."
        forecasts[job.id] = Forecast(place, None, line)
    remember(ctx.bus, forecast_topic(queue), forecasts)
    return forecasts


def _play(
    ready: Sequence[Any],
    remaining_s: Sequence[float | None],
    slots: int,
    paces: Paces,
    now: datetime,
    loaded: str,
) -> list[tuple[Any, float | None]]:
    """Waiting jobs in the order in which they will run, with seconds until each is done."""
    lanes: dict[int | None, deque[Any]] = defaultdict(deque)
    for job in ready:
        lanes[job.owner_id].append(job)
    free_at = sorted(seconds or 0.0 for seconds in remaining_s)[: max(slots, 1)]
    free_at += [0.0] * (max(slots, 1) - len(free_at))
    heapify(free_at)
    is_known = None not in remaining_s
    heads = {owner: _first(lane[0], now) for owner, lane in lanes.items()}
    owner_of = {job.id: job.owner_id for job in ready}
    order: list[tuple[Any, float | None]] = []
    while heads and len(order) < _HORIZON:
        start_s = free_at[0]
        start = now + timedelta(seconds=start_s)
        chosen = choose(list(heads.values()), start, loaded=loaded)
        loaded = chosen.affinity
        owner = owner_of[chosen.job_id]
        lane = lanes[owner]
        job = lane.popleft()
        cost_s = paces.of(job)
        is_known = is_known and cost_s is not None
        seconds = UNKNOWN_COST_S if cost_s is None else cost_s
        heapreplace(free_at, start_s + seconds)
        order.append((job, start_s + seconds if is_known else None))
        if lane:
            heads[owner] = _candidate(lane[0], chosen.share_s + seconds, start)
        else:
            del heads[owner]
    rest = sorted((job for owner in heads for job in lanes[owner]), key=lambda job: int(job.id))
    return order + [(job, None) for job in rest]


def _first(job: Any, now: datetime) -> Candidate:
    share_s = 0.0 if job.used_s is None else faded(job.used_s, job.used_at, now)
    return _candidate(job, share_s, job.served_at)


def _candidate(job: Any, share_s: float, served_at: datetime | None) -> Candidate:
    waits_since = max(job.created_at, served_at) if served_at else job.created_at
    return Candidate(job.id, job.priority, share_s, waits_since, job.affinity)


def _remaining_s(job: Any, paces: Paces, now: datetime) -> float | None:
    whole_s = paces.of(job)
    if whole_s is None or job.started_at is None:
        return None
    if job.step and job.steps:
        # Loading is not in the pace: what steps are left is a better word than the clock.
        return float(whole_s * max(0.0, 1 - job.step / job.steps))
    return max(0.0, whole_s - float((now - job.started_at).total_seconds()))


@dataclass(frozen=True, slots=True)
class _Reasons:
    paused: bool
    has_workers: bool
    slots: int
    running_owners: list[int | None]

    def line(self, place: int, owner_id: int | None) -> str:
        if self.paused:
            return "An administrator paused the queue; this starts when it goes on."
        if not self.has_workers:
            return "No renderer is running at the moment; this starts as soon as one is back."
        if not self.slots:
            return "The renderer is starting."
        if place > 1:
            return f"{place - 1} {'render goes' if place == 2 else 'renders go'} first; people take turns."
        if len(self.running_owners) < self.slots:
            return "Starts now."
        if owner_id in self.running_owners:
            return "Starts when your running render is done."
        return "Next: starts when the running render is done."

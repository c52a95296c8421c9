"""Defer, cap, cancel, claim, fence, requeue; on real rows."""

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlmodel import select

from tests.conftest import People
from tests.jobs.conftest import job_of
from tests.postgres import both_databases
from visionsuit.core.actor import SYSTEM, Actor
from visionsuit.core.clock import utcnow
from visionsuit.jobs import claims, presence, queue
from visionsuit.jobs.claims import Claim, ClaimLost
from visionsuit.jobs.forecast import forecast_queue
from visionsuit.jobs.pace import Measured, learn, load_paces
from visionsuit.jobs.tables import IDLE_PRIORITY, RENDER_QUEUE, Job, JobState, OwnerShare, WorkerPresence
from visionsuit.runtime import Runtime

pytestmark = both_databases


def put(runtime: Runtime, owner: Actor, **more: object) -> int:
    with runtime.open_ctx(owner) as ctx:
        job = queue.defer(ctx, "paint", {"n": 1}, owner_id=owner.user_id, **more)  # type: ignore[arg-type]
        assert job.id is not None
        return job.id


def take(runtime: Runtime, worker: str = "w1", loaded: str = "") -> Claim | None:
    with runtime.open_ctx(SYSTEM) as ctx:
        return claims.claim(ctx, worker, RENDER_QUEUE, loaded=loaded)


def must_take(runtime: Runtime, worker: str = "w1") -> Claim:
    claim = take(runtime, worker)
    assert claim is not None
    return claim


def finish(runtime: Runtime, claim: Claim, seconds: float = 1.0) -> None:
    with runtime.open_ctx(SYSTEM) as ctx:
        claims.complete(ctx, claim, device_seconds=seconds)


def test_a_job_is_taken_once_and_completed(runtime: Runtime, people: People) -> None:
    job_id = put(runtime, people.user)
    claim = must_take(runtime)
    assert claim.job_id == job_id
    assert claim.payload == {"n": 1}
    assert take(runtime, "w2") is None
    finish(runtime, claim, 2.5)
    job = job_of(runtime, job_id)
    assert (job.state, job.device_seconds, job.attempts) == (JobState.COMPLETED, 2.5, 1)
    assert job.finished_at is not None
    assert take(runtime) is None


def test_what_rolls_back_was_never_queued(runtime: Runtime, people: People) -> None:
    def defer_and_fail() -> None:
        with runtime.open_ctx(people.user) as ctx:
            queue.defer(ctx, "paint", {}, owner_id=people.user.user_id)
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        defer_and_fail()
    assert take(runtime) is None


def test_two_people_take_turns(runtime: Runtime, people: People) -> None:
    first, second = people.make("ann"), people.make("ben")
    jobs = [put(runtime, first) for _ in range(3)] + [put(runtime, second) for _ in range(3)]
    order = []
    while claim := take(runtime):
        order.append(claim.owner_id)
        finish(runtime, claim, 1.0)
    # Who of them comes first in a turn depends on milliseconds: a moment ago counts a little less than now.
    assert [set(order[at : at + 2]) for at in (0, 2, 4)] == [{first.user_id, second.user_id}] * 3
    assert order[0] == first.user_id
    assert len(order) == len(jobs) == 6


def test_turns_weigh_device_seconds_not_jobs(runtime: Runtime, people: People) -> None:
    slow, quick = people.make("slow"), people.make("quick")
    for _ in range(2):
        put(runtime, slow)
    for _ in range(6):
        put(runtime, quick)
    order = []
    while claim := take(runtime):
        order.append("slow" if claim.owner_id == slow.user_id else "quick")
        finish(runtime, claim, 4.5 if order[-1] == "slow" else 1.0)
    assert order == ["slow", *["quick"] * 5, "slow", "quick"]


def put_idle(runtime: Runtime) -> int:
    with runtime.open_ctx(SYSTEM) as ctx:
        job = queue.defer(ctx, "paint", {}, owner_id=None, priority=IDLE_PRIORITY)
        # Long enough to starve, if it could.
        ctx.session.get_one(Job, job.id).created_at -= timedelta(hours=1)
        return job.id


def test_idle_work_begins_when_nothing_else_waits_or_runs(runtime: Runtime, people: People) -> None:
    idle, more = put_idle(runtime), put_idle(runtime)
    first, second = put(runtime, people.user), put(runtime, people.user)
    with runtime.open_ctx(SYSTEM) as ctx:
        forecasts = forecast_queue(ctx, RENDER_QUEUE)
    assert [forecasts[job].place for job in (first, second, idle, more)] == [1, 2, 3, 4]
    claim = must_take(runtime)
    assert claim.job_id == first
    other = must_take(runtime, "w2")
    assert other.job_id == second
    assert take(runtime) is None
    with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        assert not claims.has_waiting(ctx, RENDER_QUEUE)
    finish(runtime, claim)
    assert take(runtime) is None
    with runtime.open_ctx(SYSTEM) as ctx:
        claims.release(ctx, other, after_s=3600)
    assert take(runtime) is None, "what waits for a second try waits too"
    with runtime.open_ctx(SYSTEM) as ctx:
        queue.cancel(ctx, second)
    claim = must_take(runtime)
    assert claim.job_id == idle
    assert take(runtime) is None, "one at a time"
    third = put(runtime, people.user)
    assert must_take(runtime).job_id == third, "nobody waits for idle work"
    with runtime.open_ctx(SYSTEM) as ctx:
        claims.release(ctx, claim)
        assert [row.owner_id for row in ctx.session.exec(select(OwnerShare))] == [people.user.user_id]
    assert job_of(runtime, idle).state == JobState.QUEUED


def test_work_that_runs_counts_before_it_is_measured(runtime: Runtime, people: People) -> None:
    first, second = people.make("ann"), people.make("ben")
    put(runtime, first), put(runtime, first), put(runtime, second)
    assert must_take(runtime, "w1").owner_id == first.user_id
    assert must_take(runtime, "w2").owner_id == second.user_id


@pytest.mark.parametrize("threads", [12])
def test_the_cap_holds_against_requests_at_once(runtime: Runtime, people: People, threads: int) -> None:
    owner = people.user
    barrier = threading.Barrier(threads)
    outcomes: list[str] = []

    def submit() -> None:
        barrier.wait()
        try:
            with runtime.open_ctx(owner) as ctx:
                queue.limit_active(ctx, owner.user_id or 0, 5)
                queue.defer(ctx, "paint", {}, owner_id=owner.user_id)
            outcomes.append("in")
        except queue.TooManyActive:
            outcomes.append("refused")

    running = [threading.Thread(target=submit) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert sorted(outcomes) == ["in"] * 5 + ["refused"] * (threads - 5)


def test_claims_at_once_take_each_job_once(runtime: Runtime, people: People) -> None:
    jobs = {put(runtime, people.make(f"p{number}")) for number in range(8)}
    barrier = threading.Barrier(16)
    taken: list[int] = []

    def work() -> None:
        barrier.wait()
        if claim := take(runtime, threading.current_thread().name):
            taken.append(claim.job_id)

    running = [threading.Thread(target=work) for _ in range(16)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert sorted(taken) == sorted(jobs)


def test_cancel_ends_waiting_work_at_once(runtime: Runtime, people: People) -> None:
    job_id = put(runtime, people.user)
    with runtime.open_ctx(people.user) as ctx:
        assert queue.cancel(ctx, job_id).state == JobState.CANCELLED
    assert take(runtime) is None


def test_cancel_asks_running_work_and_leaves_finished_work(runtime: Runtime, people: People) -> None:
    job_id = put(runtime, people.user)
    claim = must_take(runtime)
    with runtime.open_ctx(people.user) as ctx:
        assert queue.cancel(ctx, job_id).state == JobState.RUNNING
    with runtime.open_ctx(SYSTEM) as ctx:
        assert claims.report(ctx, claim, "denoising", 1, 4)
        assert claims.is_stopped(ctx, claim)
        claims.release(ctx, claim)
    assert job_of(runtime, job_id).state == JobState.CANCELLED
    with runtime.open_ctx(people.user) as ctx:
        assert queue.cancel(ctx, job_id).state == JobState.CANCELLED


def test_what_is_gone_is_not_found(runtime: Runtime, people: People) -> None:
    job_id = put(runtime, people.user)
    with runtime.open_ctx(people.user) as ctx:
        queue.remove(ctx, queue.cancel(ctx, job_id))
    with pytest.raises(queue.JobNotFound), runtime.open_ctx(people.user) as ctx:
        queue.cancel(ctx, job_id)
    for name in ("\0", "a\0b", "x" * 1000, "nothing"):
        with pytest.raises(queue.JobNotFound), runtime.open_ctx(people.user) as ctx:
            queue.lock_named(ctx, name)


def test_who_is_tried_again_waits_from_then_on(runtime: Runtime, people: People) -> None:
    used_much, used_nothing = people.make("ann"), people.make("ben")
    put(runtime, used_much)
    finish(runtime, must_take(runtime), 500.0)
    old = put(runtime, used_much)
    with runtime.open_ctx(SYSTEM) as ctx:
        queue.cancel(ctx, old)
        ctx.session.get_one(Job, old).created_at -= timedelta(hours=1)
        ctx.session.get_one(OwnerShare, used_much.user_id).served_at = utcnow() - timedelta(hours=1)
    new = put(runtime, used_nothing)
    with runtime.open_ctx(SYSTEM) as ctx:
        queue.retry(ctx, queue.lock_job(ctx, old))
    assert must_take(runtime).job_id == new


def test_a_worker_that_lost_its_claim_changes_nothing(runtime: Runtime, people: People) -> None:
    job_id = put(runtime, people.user)
    stale = must_take(runtime, "sleeper")
    with runtime.open_ctx(SYSTEM) as ctx:
        assert presence.take_back_stalled(ctx, after_s=-1) == 1
    current = must_take(runtime, "other")
    assert current.token != stale.token
    attempts: list[Callable] = [
        lambda ctx: claims.complete(ctx, stale, device_seconds=1),
        lambda ctx: claims.fail(ctx, stale, code="x", message="x", trace="x", device_seconds=1),
        lambda ctx: claims.report(ctx, stale, "denoising", 1, 2),
        lambda ctx: claims.release(ctx, stale),
    ]
    for attempt in attempts:
        with pytest.raises(ClaimLost), runtime.open_ctx(SYSTEM) as ctx:
            attempt(ctx)
    with runtime.open_ctx(SYSTEM) as ctx:
        assert claims.heartbeat(ctx, [stale.token, current.token]) == {current.token: False}
        assert claims.is_stopped(ctx, stale)
        assert not claims.is_stopped(ctx, current)
    finish(runtime, current)
    assert job_of(runtime, job_id).state == JobState.COMPLETED


def test_silent_work_is_requeued_twice_and_then_given_up(runtime: Runtime, people: People) -> None:
    job_id = put(runtime, people.user)
    for expected in (JobState.QUEUED, JobState.QUEUED, JobState.FAILED):
        must_take(runtime)
        with runtime.open_ctx(SYSTEM) as ctx:
            assert presence.take_back_stalled(ctx, after_s=30) == 0
            assert presence.take_back_stalled(ctx, after_s=-1) == 1
        assert job_of(runtime, job_id).state == expected
    job = job_of(runtime, job_id)
    assert job.error_code == "worker_lost"
    assert "3 times" in (job.error_message or "")
    assert take(runtime) is None


def test_idle_work_of_a_dead_worker_is_given_up_at_once(runtime: Runtime, people: People) -> None:
    """It would have to run alone then, and everybody would wait for it."""
    job_id = put_idle(runtime)
    assert must_take(runtime).is_idle
    with runtime.open_ctx(SYSTEM) as ctx:
        assert presence.take_back_stalled(ctx, after_s=-1) == 1
    job = job_of(runtime, job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "worker_lost")
    assert job.error_message == "The renderer stopped while it worked on this, so it was given up."
    with runtime.open_ctx(SYSTEM) as ctx:
        queue.retry(ctx, queue.lock_job(ctx, job_id))
    assert not must_take(runtime).is_suspect


def test_cancelled_work_of_a_dead_worker_ends(runtime: Runtime, people: People) -> None:
    job_id = put(runtime, people.user)
    must_take(runtime)
    with runtime.open_ctx(people.user) as ctx:
        queue.cancel(ctx, job_id)
        presence.take_back_stalled(ctx, after_s=-1)
    assert job_of(runtime, job_id).state == JobState.CANCELLED


def test_a_dead_worker_is_known_by_its_lock(runtime: Runtime, people: People) -> None:
    job_id = put(runtime, people.user)
    life = presence.LifeLock(runtime.settings.data_dir)
    with runtime.open_ctx(SYSTEM) as ctx:
        presence.enter(ctx, life.worker_id, RENDER_QUEUE)
    must_take(runtime, life.worker_id)
    with runtime.open_ctx(SYSTEM) as ctx:
        assert presence.take_back_from_dead(ctx) == 0
    life._file.close()  # what the kernel does to a killed process
    with runtime.open_ctx(SYSTEM) as ctx:
        assert presence.take_back_from_dead(ctx) == 1
    assert job_of(runtime, job_id).state == JobState.QUEUED
    assert not life.path.exists()


def test_a_worker_on_another_machine_is_not_called_dead(runtime: Runtime, people: People) -> None:
    put(runtime, people.user)
    with runtime.open_ctx(SYSTEM) as ctx:
        presence.enter(ctx, "elsewhere-0000", RENDER_QUEUE)
    must_take(runtime, "elsewhere-0000")
    with runtime.open_ctx(SYSTEM) as ctx:
        assert presence.take_back_from_dead(ctx) == 0


def test_a_paused_queue_admits_and_gives_nothing_out(runtime: Runtime, people: People) -> None:
    with runtime.open_ctx(SYSTEM) as ctx:
        queue.set_paused(ctx, True)
    job_id = put(runtime, people.user)
    assert take(runtime) is None
    with runtime.open_ctx(SYSTEM) as ctx:
        assert queue.is_paused(ctx)
        assert not claims.has_waiting(ctx, RENDER_QUEUE)
        assert "paused" in (forecast_queue(ctx, RENDER_QUEUE)[job_id].wait_reason or "")
        queue.set_paused(ctx, False)
    assert must_take(runtime).job_id == job_id


def test_work_put_off_waits_for_its_time(runtime: Runtime, people: People) -> None:
    job_id = put(runtime, people.user)
    claim = must_take(runtime)
    with runtime.open_ctx(SYSTEM) as ctx:
        claims.release(ctx, claim, after_s=60, counts=True)
    assert job_of(runtime, job_id).state == JobState.PENDING
    assert take(runtime) is None
    with runtime.open_ctx(SYSTEM) as ctx:
        job = ctx.session.get(Job, job_id)
        assert job is not None
        job.run_after = utcnow() - timedelta(seconds=1)
        ctx.session.add(job)
    claim = must_take(runtime)
    assert (claim.attempt, claim.is_suspect) == (2, False), "its worker lives"
    with runtime.open_ctx(SYSTEM) as ctx:
        presence.take_back_stalled(ctx, after_s=-1)
    claim = must_take(runtime)
    assert (claim.attempt, claim.is_suspect) == (3, True)


def test_given_back_work_costs_its_owner_nothing(runtime: Runtime, people: People) -> None:
    put(runtime, people.user)
    claim = must_take(runtime)
    with runtime.open_ctx(SYSTEM) as ctx:
        claims.release(ctx, claim)
        share = ctx.session.get(OwnerShare, people.user.user_id, populate_existing=True)
        assert share is not None
        assert share.used_s < 0.01
    assert must_take(runtime).attempt == 1


def test_estimates_are_learnt_and_scaled(runtime: Runtime) -> None:
    with runtime.open_ctx(SYSTEM) as ctx:
        assert load_paces(ctx).estimate_s("m", 100, 10) is None
        learn(ctx, "m", 100, Measured(units=10, units_s=5.0, overhead_s=1.0))
        assert load_paces(ctx).estimate_s("m", 100, 20) == pytest.approx(11.0)
        assert load_paces(ctx).estimate_s("m", 400, 10) == pytest.approx(21.0)
        for _ in range(40):
            learn(ctx, "m", 100, Measured(units=10, units_s=1.0, overhead_s=0.0))
        assert load_paces(ctx).estimate_s("m", 100, 10) == pytest.approx(1.0, rel=0.01)


def test_a_slow_first_render_is_soon_forgotten_and_a_slow_later_one_counts_little(runtime: Runtime) -> None:
    with runtime.open_ctx(SYSTEM) as ctx:
        for seconds in (6.0, 2.0, 2.0, 2.0):
            learn(ctx, "m", 100, Measured(units=10, units_s=seconds, overhead_s=0.0))
        settled = load_paces(ctx).estimate_s("m", 100, 10)
        assert settled == pytest.approx(2.0, rel=0.2)
        learn(ctx, "m", 100, Measured(units=10, units_s=6.0, overhead_s=0.0))
        assert load_paces(ctx).estimate_s("m", 100, 10) == pytest.approx(settled + 0.3 * (6.0 - settled))


def test_a_worker_that_was_given_up_is_back_with_its_next_beat(runtime: Runtime) -> None:
    """Its machine slept for days, and others looked before it did."""
    with runtime.open_ctx(SYSTEM) as ctx:
        presence.enter(ctx, "w1", RENDER_QUEUE)
        ctx.session.get_one(WorkerPresence, "w1").heartbeat_at -= timedelta(days=2)
    with runtime.open_ctx(SYSTEM) as ctx:
        presence.take_back_stalled(ctx)
        assert presence.read_capacity(ctx, RENDER_QUEUE).workers == 0
    with runtime.open_ctx(SYSTEM) as ctx:
        presence.beat(ctx, "w1", RENDER_QUEUE, 3, {})
    with runtime.open_ctx(SYSTEM) as ctx:
        assert presence.read_capacity(ctx, RENDER_QUEUE) == (1, 3)


def test_the_forecast_knows_what_is_loaded(runtime: Runtime, people: People) -> None:
    put(runtime, people.make("ann"), affinity="here")
    running = must_take(runtime)
    jobs = [put(runtime, people.make(name), affinity=of) for name, of in (("ben", "other"), ("cat", "here"))]
    jobs += [put(runtime, people.make("dan"), affinity="other"), put(runtime, people.make("eve"), affinity="here")]
    with runtime.open_ctx(SYSTEM) as ctx:
        foretold = forecast_queue(ctx, RENDER_QUEUE)
    finish(runtime, running)
    order, loaded = [], running.affinity
    while claim := take(runtime, loaded=loaded):
        order.append(claim.job_id)
        loaded = claim.affinity
        finish(runtime, claim)
    assert order == [jobs[1], jobs[3], jobs[0], jobs[2]]
    assert [foretold[job_id].place for job_id in order] == [1, 2, 3, 4]


def test_the_forecast_is_the_order_that_claims_take(runtime: Runtime, people: People) -> None:
    with runtime.open_ctx(SYSTEM) as ctx:
        learn(ctx, "m", 1, Measured(units=1, units_s=1.0, overhead_s=0.0))
        presence.enter(ctx, "w1", RENDER_QUEUE)
        presence.beat(ctx, "w1", RENDER_QUEUE, 1, {})
    owners = [people.make(name) for name in ("ann", "ben", "cat")]
    put(runtime, owners[0], pace_key="m", pace_size=1, units=30)
    running = must_take(runtime)
    for owner, units in zip([*owners, *owners, owners[1]], (5, 9, 2, 4, 1, 8, 3), strict=True):
        put(runtime, owner, pace_key="m", pace_size=1, units=units)
    with runtime.open_ctx(SYSTEM) as ctx:
        foretold = forecast_queue(ctx, RENDER_QUEUE)
    finish(runtime, running, 30.0)
    order = []
    while claim := take(runtime):
        order.append(claim.job_id)
        finish(runtime, claim, float(job_of(runtime, claim.job_id).units))
    assert order == sorted(foretold, key=lambda job_id: foretold[job_id].place or 0)
    assert [foretold[job_id].place for job_id in order] == list(range(1, 8))
    etas = [foretold[job_id].eta_s for job_id in order]
    assert all(eta is not None for eta in etas)
    assert etas == sorted(etas)  # type: ignore[type-var]
    assert etas[-1] == pytest.approx(62, abs=2)
    assert all(foretold[job_id].wait_reason for job_id in order)

"""A worker's threads on a real database; the work is plain functions."""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime

import sqlalchemy as sa

from tests.conftest import People
from tests.jobs.conftest import job_of, until
from tests.postgres import both_databases
from visionsuit.core.actor import SYSTEM
from visionsuit.core.errors import InvalidInput, Unavailable
from visionsuit.db import reading
from visionsuit.engine.base import Phase
from visionsuit.engine.mock import MockEngine
from visionsuit.jobs import claims, queue
from visionsuit.jobs.forecast import forecast_job
from visionsuit.jobs.presence import list_workers
from visionsuit.jobs.tables import IDLE_PRIORITY, RENDER_QUEUE, Job, JobState
from visionsuit.jobs.work import Finish, Work, WorkStopped
from visionsuit.jobs.worker import Worker
from visionsuit.runtime import Runtime

StartWorker = Callable[..., Worker]


pytestmark = both_databases


def put(runtime: Runtime, people: People, kind: str = "paint") -> int:
    with runtime.open_ctx(people.user) as ctx:
        job = queue.defer(ctx, kind, {}, owner_id=people.user.user_id)
        assert job.id is not None
        return job.id


def completing(work: Work) -> Finish:
    def finish() -> None:
        with work.runtime.open_ctx(SYSTEM) as ctx:
            claims.complete(ctx, work.claim, device_seconds=work.device_seconds)

    return finish


def counting_until_stopped(work: Work) -> Finish:
    for step in range(100_000):
        if work.is_stopped():
            raise WorkStopped
        work.progress("denoising", step, 100_000)
        time.sleep(0.005)
    return completing(work)


def is_in(runtime: Runtime, job_id: int, state: JobState) -> Callable[[], bool]:
    return lambda: job_of(runtime, job_id).state == state


def test_deferred_work_runs_at_once(runtime: Runtime, people: People, start_worker: StartWorker) -> None:
    start_worker(paint=completing)
    warm = put(runtime, people)
    until(is_in(runtime, warm, JobState.COMPLETED))
    took = []
    for _ in range(5):
        began = time.monotonic()
        job_id = put(runtime, people)
        until(is_in(runtime, job_id, JobState.COMPLETED))
        took.append(time.monotonic() - began)
    # Found by polls, each would come right after the poll that found the one before, and wait a second for the next.
    assert min(took[1:]) < 0.5, took


def test_work_from_another_process_is_found(runtime: Runtime, people: People, start_worker: StartWorker) -> None:
    start_worker(paint=completing)
    with runtime.open_ctx(people.user) as ctx:
        job = Job(kind="paint", owner_id=people.user.user_id)  # no message on this process's bus
        ctx.session.add(job)
    until(is_in(runtime, job.id or 0, JobState.COMPLETED))


def test_running_work_stops_when_cancelled(runtime: Runtime, people: People, start_worker: StartWorker) -> None:
    start_worker(paint=counting_until_stopped)
    job_id = put(runtime, people)
    until(lambda: job_of(runtime, job_id).step > 0)
    began = time.monotonic()
    with runtime.open_ctx(people.user) as ctx:
        queue.cancel(ctx, job_id)
    until(is_in(runtime, job_id, JobState.CANCELLED))
    assert time.monotonic() - began < 10, "its steps take minutes"


def test_a_cancel_from_another_process_is_seen(runtime: Runtime, people: People, start_worker: StartWorker) -> None:
    start_worker(paint=counting_until_stopped)
    job_id = put(runtime, people)
    until(lambda: job_of(runtime, job_id).step > 0)
    with runtime.open_ctx(SYSTEM) as ctx:
        row = ctx.session.get(Job, job_id)
        assert row is not None
        row.cancel_requested = True
        ctx.session.add(row)
    until(is_in(runtime, job_id, JobState.CANCELLED))


def test_workers_outlive_a_time_without_a_free_connection(runtime: Runtime, people: People) -> None:
    database = sa.create_engine(runtime.database.url, pool_size=2, max_overflow=0, pool_timeout=0.05)
    worker = Worker(replace(runtime, database=database), {"paint": completing}, warm_up_after_s=0)
    worker.start()

    def last_beat() -> datetime:
        with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
            [row] = list_workers(ctx, RENDER_QUEUE)
            return row.heartbeat_at

    try:
        until(is_in(runtime, put(runtime, people), JobState.COMPLETED))
        with ExitStack() as held:
            for _ in range(2):
                until(lambda: hold(database, held))
            late = put(runtime, people)
            # All threads have looked for work by then.
            time.sleep(1.5)
        until(is_in(runtime, late, JobState.COMPLETED))
        before = last_beat()
        until(lambda: last_beat() > before)
    finally:
        worker.stop()
        database.dispose()


def hold(database: sa.Engine, held: ExitStack) -> bool:
    try:
        held.enter_context(database.connect())
    except sa.exc.TimeoutError:
        return False
    return True


def test_what_a_person_can_mend_is_told_and_bugs_are_not(
    runtime: Runtime, people: People, start_worker: StartWorker
) -> None:
    def refused(work: Work) -> Finish:
        raise InvalidInput("The prompt is a riddle.")

    def broken(work: Work) -> Finish:
        raise ZeroDivisionError("secret detail")

    start_worker(refused=refused, broken=broken)
    first, second = put(runtime, people, "refused"), put(runtime, people, "broken")
    until(is_in(runtime, first, JobState.FAILED))
    until(is_in(runtime, second, JobState.FAILED))
    told = job_of(runtime, first)
    assert (told.state, told.error_code, told.error_message) == ("failed", "invalid_input", "The prompt is a riddle.")
    bug = job_of(runtime, second)
    assert bug.error_code == "internal"
    assert "secret" not in (bug.error_message or "")
    assert "secret detail" in (bug.error_trace or "")


def test_a_failure_while_saving_fails_the_job_and_the_worker_goes_on(
    runtime: Runtime, people: People, start_worker: StartWorker
) -> None:
    def saves_badly(work: Work) -> Finish:
        def finish() -> None:
            raise ValueError("no")

        return finish

    start_worker(bad=saves_badly, paint=completing)
    bad = [put(runtime, people, "bad") for _ in range(6)]  # more than may be unsaved at once
    good = put(runtime, people)
    until(is_in(runtime, good, JobState.COMPLETED))
    until(lambda: {job_of(runtime, job_id).state for job_id in bad} == {JobState.FAILED})


def test_a_storage_that_is_out_for_a_moment_costs_a_retry(
    runtime: Runtime, people: People, start_worker: StartWorker
) -> None:
    def out(work: Work) -> Finish:
        raise Unavailable("The storage is away.")

    start_worker(paint=out)
    job_id = put(runtime, people)
    until(is_in(runtime, job_id, JobState.PENDING))
    job = job_of(runtime, job_id)
    assert job.run_after is not None
    assert job.attempts == 1


def test_a_stopping_worker_gives_its_work_back(runtime: Runtime, people: People) -> None:
    worker = Worker(runtime, {"paint": counting_until_stopped}, warm_up_after_s=0)
    worker.start()
    job_id = put(runtime, people)
    until(lambda: job_of(runtime, job_id).step > 0)
    worker.stop()
    job = job_of(runtime, job_id)
    assert (job.state, job.attempts, job.claim_token) == (JobState.QUEUED, 0, None)


def test_saving_leaves_the_device_to_the_next(runtime: Runtime, people: People, start_worker: StartWorker) -> None:
    second_on_device = threading.Event()
    seen: list[int] = []

    def render(work: Work) -> Finish:
        seen.append(work.claim.job_id)
        if len(seen) == 2:
            second_on_device.set()

        def finish() -> None:
            assert second_on_device.wait(10)  # the first is saved only once the second renders
            completing(work)()

        return finish

    start_worker(paint=render)
    first, second = put(runtime, people), put(runtime, people)
    until(is_in(runtime, first, JobState.COMPLETED))
    until(is_in(runtime, second, JobState.COMPLETED))


def test_device_time_is_charged(runtime: Runtime, people: People, start_worker: StartWorker) -> None:
    def busy(work: Work) -> Finish:
        time.sleep(0.2)
        return completing(work)

    start_worker(paint=busy)
    job_id = put(runtime, people)
    until(is_in(runtime, job_id, JobState.COMPLETED))
    assert 0.19 <= job_of(runtime, job_id).device_seconds < 10


def test_who_makes_more_steps_pays_more_of_the_time(runtime: Runtime, people: People) -> None:
    """A request of many pictures fills most of each call that it shares."""
    both = threading.Barrier(2)

    def making(steps: int) -> Callable[[Work], Finish]:
        def render(work: Work) -> Finish:
            both.wait(20)
            for step in range(steps):
                work.progress(Phase.DENOISING, step + 1, steps)
            time.sleep(0.3)
            both.wait(20)
            return completing(work)

        return render

    worker = Worker(replace(runtime, engine=Elastic(room=2)), {"one": making(2), "many": making(16)}, warm_up_after_s=0)
    worker.start()
    try:
        one, many = put(runtime, people, "one"), put(runtime, people, "many")
        for job_id in (one, many):
            until(is_in(runtime, job_id, JobState.COMPLETED))
    finally:
        worker.stop()
    seconds = job_of(runtime, many).device_seconds / job_of(runtime, one).device_seconds
    assert 4 < seconds < 9, "not shared by the steps"


def test_claims_follow_what_the_engine_can_take(runtime: Runtime, people: People, start_worker: StartWorker) -> None:
    """As many at once as the engine says at that moment; the rest stays in the queue, where others may pass it."""
    engine = Elastic(room=3)
    at_once: list[int] = []
    go_on = threading.Event()

    def hold(work: Work) -> Finish:
        at_once.append(work.claim.job_id)
        assert go_on.wait(20)
        return completing(work)

    start_worker_on = replace(runtime, engine=engine)
    worker = Worker(start_worker_on, {"paint": hold}, warm_up_after_s=0)
    worker.start()
    try:
        until(lambda: engine.status().ready)
        jobs = [put(runtime, people) for _ in range(5)]
        until(lambda: len(at_once) == 3)
        assert job_of(runtime, jobs[4]).state == JobState.QUEUED
        engine.concurrency = 1
        go_on.set()
        for job_id in jobs:
            until(is_in(runtime, job_id, JobState.COMPLETED))
    finally:
        worker.stop()


def test_who_comes_from_a_dead_worker_has_the_device_alone(runtime: Runtime, people: People) -> None:
    """It may have been the reason; those beside it would be counted as often as it, and given up with it."""
    running: set[int] = set()
    beside: dict[int, set[int]] = {}
    go_on = threading.Event()

    def hold(work: Work) -> Finish:
        running.add(work.claim.job_id)
        beside[work.claim.job_id] = running - {work.claim.job_id}
        assert go_on.wait(20)
        running.discard(work.claim.job_id)
        return completing(work)

    worker = Worker(replace(runtime, engine=Elastic(room=4)), {"paint": hold}, warm_up_after_s=0)
    worker.start()
    try:
        first = [put(runtime, people), put(runtime, people)]
        until(lambda: len(running) == 2)
        with runtime.open_ctx(people.user) as ctx:
            suspect = queue.defer(ctx, "paint", {}, owner_id=people.user.user_id).id or 0
            ctx.session.execute(sa.update(Job).where(sa.column("id") == suspect).values(attempts=1))
        until(is_in(runtime, suspect, JobState.RUNNING))
        last = put(runtime, people)
        time.sleep(0.2)
        assert running == set(first)
        assert job_of(runtime, last).state == JobState.QUEUED
        go_on.set()
        for job_id in (*first, suspect, last):
            until(is_in(runtime, job_id, JobState.COMPLETED))
    finally:
        go_on.set()
        worker.stop()
    assert beside[suspect] == set()
    assert suspect not in beside[last]


def test_nobody_waits_for_idle_work_that_was_tried_before(
    runtime: Runtime, people: People, start_worker: StartWorker
) -> None:
    stood = threading.Event()

    def stand(work: Work) -> Finish:
        assert stood.wait(20)
        return completing(work)

    with runtime.open_ctx(SYSTEM) as ctx:
        idle = queue.defer(ctx, "sheet", {}, owner_id=None, priority=IDLE_PRIORITY).id
        ctx.session.execute(sa.update(Job).where(sa.column("id") == idle).values(attempts=1))
    try:
        start_worker(paint=completing, sheet=stand)
        until(is_in(runtime, idle, JobState.RUNNING))
        until(is_in(runtime, put(runtime, people), JobState.COMPLETED), 10)
        assert job_of(runtime, idle).state == JobState.RUNNING
    finally:
        stood.set()


def test_a_database_that_is_out_for_a_moment_costs_no_render(
    runtime: Runtime, people: People, start_worker: StartWorker
) -> None:
    failed: set[str] = set()

    def fail_once(connection: object, cursor: object, statement: str, *rest: object) -> None:
        for what in ("UPDATE job SET phase", "SELECT job.claim_token"):
            if statement.startswith(what) and what not in failed:
                failed.add(what)
                raise sa.exc.OperationalError(statement, {}, Exception("the connection was closed"))

    def steady(work: Work) -> Finish:
        until(lambda: work.progress("denoising", 1, 2) or work.is_stopped() or len(failed) == 2)
        assert not work.is_stopped()
        return completing(work)

    databases = {runtime.database, reading(runtime.database)}
    for database in databases:
        sa.event.listen(database, "before_cursor_execute", fail_once)
    start_worker(paint=steady)
    job_id = put(runtime, people)
    until(lambda: job_of(runtime, job_id).state in (JobState.COMPLETED, JobState.PENDING, JobState.FAILED))
    assert len(failed) == 2
    assert (job_of(runtime, job_id).state, job_of(runtime, job_id).attempts) == (JobState.COMPLETED, 1)


class Elastic(MockEngine):
    def __init__(self, room: int) -> None:
        super().__init__()
        self.concurrency = room  # type: ignore[misc]


def test_idle_work_takes_no_place_and_is_not_charged_while_it_waits(
    runtime: Runtime, people: People, start_worker: StartWorker
) -> None:
    engine = Elastic(room=2)
    at_once: list[int] = []
    go_on, goes_on = threading.Event(), threading.Event()

    def stand(work: Work) -> Finish:
        work.progress(Phase.DENOISING, 1, 9)
        work.progress(Phase.WAITING, 1, 9)
        time.sleep(0.3)
        assert goes_on.wait(20)
        work.progress(Phase.DENOISING, 1, 9)
        return completing(work)

    def hold(work: Work) -> Finish:
        at_once.append(work.claim.job_id)
        assert go_on.wait(20)
        return completing(work)

    worker = Worker(replace(runtime, engine=engine), {"paint": hold, "sheet": stand}, warm_up_after_s=0)
    worker.start()
    try:
        until(lambda: engine.status().ready)
        with runtime.open_ctx(SYSTEM) as ctx:
            idle = queue.defer(ctx, "sheet", {}, owner_id=None, priority=IDLE_PRIORITY).id or 0
        until(lambda: job_of(runtime, idle).phase == Phase.WAITING)
        with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
            assert forecast_job(ctx, job_of(runtime, idle)).wait_reason == "Waits while others render."
        jobs = [put(runtime, people) for _ in range(3)]
        until(lambda: len(at_once) == 2)
        assert job_of(runtime, jobs[2]).state == JobState.QUEUED
        goes_on.set()
        until(is_in(runtime, idle, JobState.COMPLETED))
        assert job_of(runtime, idle).device_seconds < 0.2
        assert len(at_once) == 2, "its end made no place for others"
        go_on.set()
        for job_id in jobs:
            until(is_in(runtime, job_id, JobState.COMPLETED))
    finally:
        go_on.set()
        goes_on.set()
        worker.stop()

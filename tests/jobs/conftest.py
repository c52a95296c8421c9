"""A worker whose jobs are plain functions, and a wait with a deadline."""

import time
from collections.abc import Callable, Iterator

import pytest

from visionsuit.core.actor import SYSTEM
from visionsuit.jobs.tables import Job
from visionsuit.jobs.work import Handler
from visionsuit.jobs.worker import Worker
from visionsuit.runtime import Runtime


def until(condition: Callable[[], object], timeout_s: float = 20, every_s: float = 0.01) -> None:
    """Wait until `condition()` is true; fail when it does not become so."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(every_s)


def job_of(runtime: Runtime, job_id: int | None) -> Job:
    with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        job = ctx.session.get(Job, job_id)
        assert job is not None
        return job


@pytest.fixture
def start_worker(runtime: Runtime) -> Iterator[Callable[..., Worker]]:
    """`start_worker(kind=handler)` runs until the test ends."""
    workers: list[Worker] = []

    def start(**handlers: Handler) -> Worker:
        worker = Worker(runtime, handlers, warm_up_after_s=0)
        worker.start()
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.stop()

"""What runs without being asked: the render worker, and one table of what happens when."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog
from apscheduler.schedulers.background import BackgroundScheduler

from visionsuit.accounts.sessions import delete_expired_sessions
from visionsuit.accounts.throttle import delete_old_attempts
from visionsuit.core.actor import SYSTEM
from visionsuit.core.clock import utcnow
from visionsuit.generation import base_model_fetch, run
from visionsuit.generation.inputs import sweep_inputs
from visionsuit.generation.sweep import sweep_jobs, sweep_outputs
from visionsuit.jobs import presence
from visionsuit.jobs.no_device import NoDevice
from visionsuit.jobs.work import Handler
from visionsuit.jobs.worker import Worker
from visionsuit.runtime import Runtime
from visionsuit.uploads.jobs import sweep_drafts

log = structlog.get_logger()

#: Job kind -> what the worker runs; every feature with jobs adds its own.
HANDLERS: dict[str, Handler] = {**run.HANDLERS}


@dataclass(frozen=True, slots=True)
class Entry:
    """`action` runs every `every_s` seconds, in one thread, never twice at once. It may run in several processes:
    what it does must be harmless a second time."""

    name: str
    every_s: float
    action: Callable[[Runtime], None]


def take_back_jobs(runtime: Runtime) -> None:
    with runtime.open_ctx(SYSTEM) as ctx:
        presence.take_back_from_dead(ctx)
        presence.take_back_stalled(ctx)


def forget_old_logins(runtime: Runtime) -> None:
    """Rows that have lost their meaning; nothing that is checked depends on their going."""
    with runtime.open_ctx(SYSTEM) as ctx:
        delete_expired_sessions(ctx)
        delete_old_attempts(ctx, utcnow())


def sweep_uploads(runtime: Runtime) -> None:
    sweep_drafts(runtime)


def remove_lost_outputs(runtime: Runtime) -> None:
    sweep_outputs(runtime)
    sweep_jobs(runtime)


def remove_old_inputs(runtime: Runtime) -> None:
    sweep_inputs(runtime)


SCHEDULE: tuple[Entry, ...] = (
    Entry("take_back_jobs", 15, take_back_jobs),
    Entry("sweep_uploads", 60, sweep_uploads),
    Entry("forget_old_logins", 3600, forget_old_logins),
    Entry("remove_old_inputs", 900, remove_old_inputs),
    Entry("remove_lost_outputs", 6 * 3600, remove_lost_outputs),
)


def create_fetcher(runtime: Runtime) -> Worker:
    """The worker that downloads base models, beside the device."""
    return Worker(
        replace(runtime, engine=NoDevice()),
        base_model_fetch.HANDLERS,
        queue=base_model_fetch.FETCH_QUEUE,
        warm_up_after_s=0,
    )


class Background:
    """Workers and scheduler of this process, from `start` to `stop`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.worker = Worker(runtime, HANDLERS)
        self.fetcher = create_fetcher(runtime)
        # On a busy machine a turn comes late rather than not at all: some have hours between them.
        self._scheduler = BackgroundScheduler(
            timezone="UTC", job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        )

    def start(self) -> None:
        for entry in SCHEDULE:
            self._scheduler.add_job(_run, "interval", seconds=entry.every_s, args=(self._runtime, entry), id=entry.name)
        self._scheduler.start()
        self.worker.start()
        self.fetcher.start()

    def stop(self) -> None:
        self._scheduler.shutdown(wait=False)
        self.fetcher.stop()
        self.worker.stop()
        self._runtime.engine.close()


def _run(runtime: Runtime, entry: Entry) -> None:
    # An edge: what fails now is tried again at the next turn.
    try:
        entry.action(runtime)
    except Exception:
        log.exception("scheduled_action_failed", action=entry.name)

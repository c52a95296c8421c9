"""Threads that take jobs from the queue and run them on the device.

One *keeper* starts the engine, says that the worker and its jobs are alive, and looks for work that other processes
deferred. *Device threads* claim and run, as many at once as `Engine.concurrency` says at that moment, so that what the
engine could not begin stays in the queue, where turns are fair; idle work, which stands while others render, has a
thread beside them. A small pool does the second half of every job
(files, thumbnails, rows), so that the device goes on with the next one.
"""

import threading
import time
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict

import sqlalchemy as sa
import structlog

from visionsuit.bus import Message
from visionsuit.core.actor import SYSTEM
from visionsuit.core.errors import AppError, Unavailable
from visionsuit.engine.base import EngineError, RenderCancelled
from visionsuit.jobs import claims, presence
from visionsuit.jobs.claims import MAX_ATTEMPTS, Claim, ClaimLost
from visionsuit.jobs.events import cancel_topic, forget_progress, queue_topic
from visionsuit.jobs.tables import RENDER_QUEUE
from visionsuit.jobs.work import DeviceClock, Finish, Handler, Work, WorkStopped
from visionsuit.runtime import Runtime

log = structlog.get_logger()

_HEARTBEAT_S = 3.0
_POLL_S = 1.0
#: Wait before the engine is started with nobody waiting: the first pages come before torch.
_WARM_UP_AFTER_S = 5.0
_START_AGAIN_AFTER_S = 30.0
#: Seconds until another try, after storage or database were out for a moment.
_TRY_AGAIN_AFTER_S = 5.0
_SAVERS = 2
#: What may be otherwise in a moment; the last is a database without a free connection.
_PASSING = (Unavailable, sa.exc.OperationalError, sa.exc.TimeoutError)


class Worker:
    """One process's share in a queue.

    Args:
        handlers: job kind -> what runs it.
        warm_up_after_s: start the engine after this long even if nobody waits.
    """

    def __init__(
        self,
        runtime: Runtime,
        handlers: Mapping[str, Handler],
        *,
        queue: str = RENDER_QUEUE,
        warm_up_after_s: float = _WARM_UP_AFTER_S,
    ) -> None:
        self._runtime = runtime
        self._handlers = handlers
        self._queue = queue
        self._warm_up_after_s = warm_up_after_s
        self._stopping = threading.Event()
        self._news = threading.Condition()
        self._hints = 0
        # Words that the queue changed; how many there were when nothing could be taken from it the last time, and when
        # nothing in it waited at all: then not even the end of a job can let something begin.
        self._heard = 0
        self._found_empty = -1
        self._nothing_waits = -1
        self._running: dict[str, Work] = {}
        self._running_lock = threading.Lock()
        self._clock = DeviceClock()
        self._slots = 0
        self._claiming = threading.Condition()
        self._alone: Claim | None = None
        self._on_device = 0
        self._loaded = ""
        self._keeper = threading.Thread(target=self._keep, name="queue-keeper", daemon=True)
        self._renderers: list[threading.Thread] = []
        self._savers = ThreadPoolExecutor(_SAVERS, "saver")
        self._unsaved: threading.Semaphore | None = None
        self._life: presence.LifeLock | None = None
        self._listening = ExitStack()

    def start(self) -> None:
        """Take back what dead workers held, then look for work. Returns at once."""
        self._life = presence.LifeLock(self._runtime.settings.data_dir)
        with self._runtime.open_ctx(SYSTEM) as ctx:
            count = presence.take_back_from_dead(ctx)
            presence.enter(ctx, self._life.worker_id, self._queue)
        if count:
            log.info("jobs_taken_back", count=count)
        bus = self._runtime.bus
        self._listening.enter_context(bus.subscribe(queue_topic(self._queue), self._on_queue))
        self._listening.enter_context(bus.subscribe(cancel_topic(self._queue), self._pass_on_cancel))
        self._keeper.start()

    def stop(self, timeout_s: float = 20.0) -> None:
        """Take nothing new; give running jobs back to the queue; let results that are rendered be saved."""
        self._stopping.set()
        self._hint(everybody=True)
        deadline = time.monotonic() + timeout_s
        for thread in [self._keeper, *self._renderers]:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        self._savers.shutdown(wait=True)
        for work in self._held():
            # A step that takes longer than the time allowed: its thread finds the claim gone.
            self._give_back(work)
        self._listening.close()
        if self._life is not None:
            with self._runtime.open_ctx(SYSTEM) as ctx:
                presence.leave(ctx, self._life.worker_id)
            self._life.release()

    # Keeper

    def _keep(self) -> None:
        if not self._start_engine():
            return
        slots = max(1, self._runtime.engine.concurrency)
        # One more, for the idle job that stands meanwhile.
        self._unsaved = threading.Semaphore(slots + 1 + _SAVERS)
        self._slots = slots
        for number in range(slots + 1):
            thread = threading.Thread(target=self._render_loop, name=f"render-{number}", daemon=True)
            self._renderers.append(thread)
            thread.start()
        beaten = 0.0
        while not self._stopping.is_set() or self._held():
            if time.monotonic() - beaten >= _HEARTBEAT_S:
                beaten = time.monotonic()
                self._beat()
            if not self._stopping.is_set() and self._work_waits():
                self._hint(news=True)
            if self._stopping.wait(_POLL_S):
                if not any(thread.is_alive() for thread in self._renderers) and not self._held():
                    return
                time.sleep(0.05)

    def _start_engine(self) -> bool:
        """Start the engine once there is work or the first rush is over. False: the worker was stopped before."""
        asked = time.monotonic()
        while not self._stopping.is_set():
            self._beat()
            if time.monotonic() - asked >= self._warm_up_after_s or self._work_waits():
                try:
                    self._runtime.engine.start()
                except Exception:  # the render that needs the engine will say why; this thread lives on
                    log.exception("engine_start_failed")
                    self._stopping.wait(_START_AGAIN_AFTER_S)
                else:
                    self._beat()
                    return True
            else:
                self._wait_for_news(min(_POLL_S, self._warm_up_after_s))
        return False

    def _beat(self) -> None:
        assert self._life is not None
        held = {work.claim.token: work for work in self._held()}
        try:
            status = asdict(self._runtime.engine.status())
            with self._runtime.open_ctx(SYSTEM) as ctx:
                presence.beat(ctx, self._life.worker_id, self._queue, self._slots, status)
                alive = claims.heartbeat(ctx, held)
        except Exception:  # a database or a device that is out for a moment must not end this thread
            log.exception("heartbeat_failed")
            return
        for token, work in held.items():
            if alive.get(token, True):
                work.tell_stop()

    def _work_waits(self) -> bool:
        try:
            with self._runtime.open_ctx(SYSTEM, read_only=True) as ctx:
                return claims.has_waiting(ctx, self._queue)
        except sa.exc.SQLAlchemyError:
            log.exception("queue_unreachable")
            return False

    # Device threads

    def _render_loop(self) -> None:
        while not self._stopping.is_set():
            seen = self._hints
            try:
                claim = self._claim()
            except sa.exc.SQLAlchemyError:
                log.exception("claim_failed")
                self._stopping.wait(_POLL_S)
                continue
            if claim is None:
                self._wait_for_news(30.0, seen)
            else:
                # A hint wakes one thread; there may be work for the next.
                self._hint()
                self._run(claim)

    def _claim(self) -> Claim | None:
        assert self._life is not None
        with self._claiming:
            full = self._on_device >= max(1, self._runtime.engine.concurrency)
            if full or self._alone is not None or self._found_empty == self._heard:
                return None
            heard = self._heard
            with self._runtime.open_ctx(SYSTEM) as ctx:
                claim = claims.claim(ctx, self._life.worker_id, self._queue, loaded=self._loaded)
            if claim is None or claim.is_last:
                self._found_empty = heard
            if claim is not None:
                self._nothing_waits = heard if claim.is_last else -1
                self._loaded = claim.affinity
                self._on_device += not claim.is_idle
                if claim.is_suspect and not claim.is_idle:
                    self._alone = claim
            return claim

    def _run(self, claim: Claim) -> None:
        assert self._unsaved is not None
        work = Work(self._runtime, claim, self._stopping, self._clock)
        with self._running_lock:
            self._running[claim.token] = work
        # Pictures that wait for a slow storage fill the memory; the device waits instead.
        self._unsaved.acquire()
        try:
            self._await_solitude(work)
            with self._clock.busy(work):
                finish = self._handlers[claim.kind](work)
        except Exception as error:  # whatever went wrong in it, the render gets an end and the thread goes on
            self._leave_device(claim)
            self._settle(work, error)
            self._done(work)
        else:
            self._leave_device(claim)
            self._savers.submit(self._finish, work, finish)

    def _await_solitude(self, work: Work) -> None:
        """A job whose worker died has the device for itself: if it was the reason, it takes nobody with it again."""
        claim = work.claim
        if claim is not self._alone:
            return
        with self._claiming:
            while self._on_device > 1 and not work.is_stopped():
                self._claiming.wait(_POLL_S)

    def _leave_device(self, claim: Claim) -> None:
        with self._claiming:
            self._on_device -= not claim.is_idle
            if claim is self._alone:
                self._alone = None
            self._claiming.notify_all()
        # The engine may take more than one in its place.
        self._hint()

    def _finish(self, work: Work, finish: Finish) -> None:
        try:
            finish()
        except Exception as error:  # as above
            self._settle(work, error)
        finally:
            self._done(work)

    def _done(self, work: Work) -> None:
        assert self._unsaved is not None
        self._unsaved.release()
        with self._running_lock:
            self._running.pop(work.claim.token, None)
        forget_progress(self._runtime.bus, work.claim.public_id)

    # Endings

    def _settle(self, work: Work, error: Exception) -> None:
        """Write down how a job ended that did not end well. An edge: nothing goes past it."""
        try:
            self._write_ending(work, error)
        except ClaimLost:
            log.warning("claim_lost", job=work.claim.public_id)
        except Exception:
            # The database is out: without heartbeats the job is taken back later.
            log.exception("ending_not_written", job=work.claim.public_id)

    def _write_ending(self, work: Work, error: Exception) -> None:
        claim = work.claim
        if isinstance(error, ClaimLost):
            raise error
        if isinstance(error, WorkStopped | RenderCancelled):
            self._give_back(work)
            return
        trace = "".join(traceback.format_exception(error))
        with self._runtime.open_ctx(SYSTEM) as ctx:
            if isinstance(error, _PASSING) and claim.attempt < MAX_ATTEMPTS:
                log.warning("job_disturbed", job=claim.public_id, error=str(error))
                claims.release(ctx, claim, after_s=_TRY_AGAIN_AFTER_S * claim.attempt, counts=True)
                return
            readable = isinstance(error, AppError | EngineError)
            code = error.code if isinstance(error, AppError | EngineError) else "internal"
            message = str(error) if readable else f"Something went wrong (ref {claim.public_id})."
            log.error("job_failed", job=claim.public_id, code=code, exc_info=None if readable else error)
            claims.fail(ctx, claim, code=code, message=message, trace=trace, device_seconds=work.device_seconds)

    def _give_back(self, work: Work) -> None:
        """Cancelled if its owner asked for that, else waiting again: the worker stops."""
        try:
            with self._runtime.open_ctx(SYSTEM) as ctx:
                claims.release(ctx, work.claim, device_seconds=work.device_seconds)
        except ClaimLost:
            log.info("claim_lost", job=work.claim.public_id)

    # Signals

    def _on_queue(self, message: Message) -> None:
        if not ("ended" in message and self._nothing_waits == self._heard):
            self._hint(news=True)

    def _hint(self, *, news: bool = False, everybody: bool = False) -> None:
        """Let one idle thread look for work: with all of them, most would ask the database for nothing. `news`: the
        queue changed; without it, only who may take from it."""
        with self._news:
            self._hints += 1
            self._heard += news
            self._news.notify(len(self._renderers) + 1 if everybody else 1)

    def _wait_for_news(self, timeout_s: float, seen: int | None = None) -> None:
        with self._news:
            if (seen is None or seen == self._hints) and not self._stopping.is_set():
                self._news.wait(timeout_s)

    def _pass_on_cancel(self, message: Message) -> None:
        for work in self._held():
            if work.claim.public_id == message.get("job"):
                work.tell_stop()

    def _held(self) -> list[Work]:
        with self._running_lock:
            return list(self._running.values())

"""A claimed job in a worker's hands: progress out, cancellation in, device time measured."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
import structlog

from visionsuit.core.actor import SYSTEM
from visionsuit.engine.base import Phase
from visionsuit.jobs import claims
from visionsuit.jobs.claims import Claim, ClaimLost
from visionsuit.jobs.events import publish_progress
from visionsuit.runtime import Runtime

log = structlog.get_logger()

#: Progress reaches the database at most this often; every step reaches the bus.
_WRITE_EVERY_S = 0.5
#: A cancel from another process is seen by reading the row, at most this often.
_READ_EVERY_S = 0.25

#: Second half of a job, run beside the device: store results, write rows, complete the claim.
Finish = Callable[[], None]
#: First half: what needs the device. Returns the second half.
Handler = Callable[["Work"], Finish]


class WorkStopped(Exception):
    """The job was cancelled, or the worker is to stop."""


@dataclass(slots=True)
class _Share:
    """What one job has had of the device. `size`: pixels, whose steps take the longer the more they are."""

    size: int
    seconds: float = 0.0
    step: int = 0
    settled: int = 0
    waits: bool = False


class DeviceClock:
    """Shares the device's busy time out among the jobs that are on it: by the steps that each made meanwhile, times
    pixels. Who made none (its model is loaded, its pictures are decoded) pays as much as the least of the others; who
    waits for others pays nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shares: dict[int, _Share] = {}
        self._since = time.monotonic()

    @contextmanager
    def busy(self, work: "Work") -> Iterator[None]:
        """`work` is on the device inside the block; its `device_seconds` are known after it."""
        key = id(work)
        with self._lock:
            self._settle()
            self._shares[key] = _Share(max(1, work.claim.pace_size))
        try:
            yield
        finally:
            with self._lock:
                self._settle()
                work.device_seconds = self._shares.pop(key).seconds

    def note(self, work: "Work", step: int, *, waits: bool) -> bool:
        """`work`, which is on the device, has made so many steps, of all its pictures; whether it waits for others
        there. Answers whether that is new."""
        with self._lock:
            share = self._shares.get(id(work))
            if share is None:
                return False
            share.step = step
            if waits == share.waits:
                return False
            self._settle()
            share.waits = waits
            return True

    def _settle(self) -> None:
        now = time.monotonic()
        shares = [share for share in self._shares.values() if not share.waits]
        made = [max(0, share.step - share.settled) * share.size for share in shares]
        least = min((work for work in made if work), default=1)
        parts = [work or least for work in made]
        for share, part in zip(shares, parts, strict=True):
            share.seconds += (now - self._since) * part / sum(parts)
            share.settled = share.step
        self._since = now


class Work:
    """One claimed job. Made by the worker; handlers read `claim` and call `progress`, `is_stopped`, `complete`.

    Attributes:
        device_seconds: the job's part of the device's time; known once the first half is over.
    """

    def __init__(
        self, runtime: Runtime, claim: Claim, stopping: threading.Event, clock: DeviceClock | None = None
    ) -> None:
        self.runtime = runtime
        self.claim = claim
        self._clock = clock or DeviceClock()
        self.device_seconds = 0.0
        self._stopping = stopping
        self._told_to_stop = threading.Event()
        # The claim has just said that it runs.
        self._written = self._read = time.monotonic()

    def tell_stop(self) -> None:
        """The job was cancelled, or taken away."""
        self._told_to_stop.set()

    def is_stopped(self) -> bool:
        """Whether to stop now; asked at every step."""
        if self._stopping.is_set() or self._told_to_stop.is_set():
            return True
        now = time.monotonic()
        if now - self._read >= _READ_EVERY_S:
            self._read = now
            try:
                with self.runtime.open_ctx(SYSTEM, read_only=True) as ctx:
                    if claims.is_stopped(ctx, self.claim):
                        self._told_to_stop.set()
            except sa.exc.SQLAlchemyError:
                # A database that is out for a moment costs no render; whose the job is, heartbeats decide.
                log.warning("stop_not_read", job=self.claim.public_id, exc_info=True)
        return self._told_to_stop.is_set()

    def progress(self, phase: str, step: int, steps: int, *, durable: bool = False, **extra: Any) -> None:
        """Tell listeners; write it down when enough time went by, or the job waits or goes on, or it is to be
        `durable`."""
        message = {"phase": phase, "step": step, "steps": steps, **extra}
        publish_progress(self.runtime.bus, self.claim.public_id, message)
        now = time.monotonic()
        durable = self._clock.note(self, step, waits=phase == Phase.WAITING) or durable
        if not durable and now - self._written < _WRITE_EVERY_S:
            return
        self._written = now
        try:
            with self.runtime.open_ctx(SYSTEM) as ctx:
                if claims.report(ctx, self.claim, phase, step, steps):
                    self._told_to_stop.set()
        except ClaimLost:
            self._told_to_stop.set()
        except sa.exc.SQLAlchemyError:
            # As above.
            log.warning("progress_not_written", job=self.claim.public_id, exc_info=True)

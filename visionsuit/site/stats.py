"""Public numbers of the site, counted by the features that own them."""

import threading
import time
from collections.abc import Callable

import sqlalchemy as sa
from sqlmodel import Session

from visionsuit.core.actor import GUEST
from visionsuit.runtime import Ctx
from visionsuit.visibility import Asset, visible_to

#: What may be counted, in the order it is shown; what no feature counts is 0.
NAMES = ("models", "images", "galleries", "generations", "members")
#: Counting walks whole tables; every page asks.
KEPT_SECONDS = 5.0

Counter = Callable[[Session], int]
_counters: dict[str, Counter] = {}


def register_counter(name: str, counter: Counter) -> None:
    """Let a feature count its own: `counter(session)` says how many everybody (also a guest) may know of."""
    if name not in NAMES:
        raise ValueError(f"unknown number: {name}")
    _counters[name] = counter


def public_counter(table: type[Asset]) -> Counter:
    """Counter of the assets that a guest finds in lists."""

    def count(session: Session) -> int:
        query = sa.select(sa.func.count()).select_from(table).where(visible_to(GUEST, table, listed=True))
        return session.execute(query).scalar_one()

    return count


class StatsCache:
    """The numbers as of a few seconds ago. One a process, kept by the application."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._numbers: dict[str, int] = {}
        self._good_until = float("-inf")

    def read(self, ctx: Ctx) -> dict[str, int]:
        with self._lock:
            if self._clock() < self._good_until:
                return self._numbers
        numbers = {name: _counters[name](ctx.session) if name in _counters else 0 for name in NAMES}
        with self._lock:
            self._numbers, self._good_until = numbers, self._clock() + KEPT_SECONDS
        return numbers

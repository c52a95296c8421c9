"""How many pictures of a size share a call: as many as memory held and as still paid, both by what was measured."""

import time
from collections import deque
from collections.abc import Callable

#: Calls of a size before its time counts, and how many are remembered: the quickest of them is the one that nothing
#: disturbed, if they are not too few.
_FEWEST, _REMEMBERED = 32, 64
#: A picture in a larger call may take this much longer than in a smaller one before the larger one does not pay.
_TOLERATED = 1.2
#: Then all times are taken anew: what runs beside the engine changes.
_CALLS_BEFORE_ANEW = 500
#: A size that memory did not hold is tried again after so long.
_TRY_AGAIN_AFTER_S = 600.0

#: Latent height and width, rows per picture, whether LoRAs are computed beside the weights.
SizeKey = tuple[int, int, int, bool]


class BatchSizes:
    """Of one base model. `clock`: seconds, never going back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: dict[SizeKey, dict[int, deque[float]]] = {}
        self._too_many: dict[SizeKey, tuple[int, float]] = {}
        self._calls = 0

    def note_call(self, size: SizeKey, pictures: int, seconds: float) -> None:
        """A call of so many pictures took so long."""
        self._calls += 1
        if self._calls % _CALLS_BEFORE_ANEW == 0:
            self._seconds.clear()
        times = self._seconds.setdefault(size, {}).setdefault(pictures, deque(maxlen=_REMEMBERED))
        times.append(seconds / pictures)

    def note_too_many(self, size: SizeKey, pictures: int) -> None:
        """Memory did not hold so many."""
        self._too_many[size] = (pictures, self._clock() + _TRY_AGAIN_AFTER_S)

    def most(self, size: SizeKey, estimate: int) -> int:
        """How many to put into a call, at least one; `estimate` where nothing speaks against it."""
        too_many, until = self._too_many.get(size, (0, 0.0))
        if too_many and self._clock() < until:
            estimate = min(estimate, max(1, too_many // 2))
        known = {n: min(times) for n, times in self._seconds.get(size, {}).items() if len(times) >= _FEWEST}
        best = float("inf")
        for pictures in sorted(known):
            if pictures > estimate:
                break
            if known[pictures] > best * _TOLERATED:
                return max(n for n in known if n < pictures)
            best = min(best, known[pictures])
        return max(1, estimate)

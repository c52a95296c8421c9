"""Whether to merge a mix into a copy of the weights, or to compute it beside them: by what both took so far."""

import math
from collections import deque
from statistics import median

#: Calls that a merge has to serve before anything was measured: it costs about as much as a few calls save.
_FEWEST_CALLS = 3
_REMEMBERED = 9

#: What makes two calls comparable: latent height and width, rows per picture, pictures.
CallKey = tuple[int, int, int, int]


class MergePolicy:
    """Of one base model. A merge pays from a number of calls on that only ever moves by powers of two, so that the
    same request alone is calculated the same way each time."""

    def __init__(self) -> None:
        self._calls: dict[tuple[CallKey, bool], deque[float]] = {}
        self._merges: deque[float] = deque(maxlen=_REMEMBERED)

    def note_call(self, key: CallKey, *, slots: bool, seconds: float) -> None:
        """A call of the UNet took so long; `slots`: with LoRAs beside the weights, else as if there were none."""
        self._calls.setdefault((key, slots), deque(maxlen=_REMEMBERED)).append(seconds)

    def note_merge(self, seconds: float) -> None:
        self._merges.append(seconds)

    def fewest_calls(self, key: CallKey) -> int:
        """From how many calls on a merge is worth it."""
        beside, merged = self._calls.get((key, True)), self._calls.get((key, False))
        if not beside or not merged or not self._merges:
            return _FEWEST_CALLS
        gain = median(beside) - median(merged)
        if gain <= 0:
            # Noise, or a large picture on which the extra arithmetic does not show.
            return 64
        needed = median(self._merges) / gain
        return max(_FEWEST_CALLS, 1 << math.ceil(math.log2(max(1.0, needed))))

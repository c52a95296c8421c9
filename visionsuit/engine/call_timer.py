"""How long calls take on the device, without waiting for it."""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import torch

#: Calls that a GPU may be behind before the oldest is forgotten.
_MOST_PENDING = 64


class CallTimer:
    """On a CPU a call is over when it returns; on a GPU it has only been handed over then, so marks are put into its
    stream and read when it has passed them."""

    def __init__(self, device: torch.device) -> None:
        self._is_gpu = device.type == "cuda"
        self._began: Any = None
        self._pending: deque[tuple[Any, Any, Callable[[float], None]]] = deque(maxlen=_MOST_PENDING)

    def start(self) -> None:
        self._began = self._mark()

    def stop(self, note: Callable[[float], None]) -> None:
        """Since `start`; `note` gets the seconds, now or at a later call of `stop`."""
        if not self._is_gpu:
            note(time.perf_counter() - self._began)
            return
        self._pending.append((self._began, self._mark(), note))
        while self._pending and self._pending[0][1].query():
            began, ended, tell = self._pending.popleft()
            tell(began.elapsed_time(ended) / 1000)

    def _mark(self) -> Any:
        if not self._is_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

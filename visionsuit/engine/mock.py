"""Coloured pictures at once, for tests and for trying the interface without weights. No torch."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionsuit.engine.base import EngineStatus, Phase, Picture, Progress, RenderCancelled, RenderRequest

#: `is_cancelled` is asked this often by who waits.
_ASK_EVERY_S = 0.05


class MockEngine:
    """Gradients in colours that follow from prompt and seed; walks through all phases and steps.

    Args:
        step_delay_s: seconds that each step takes.
        fail_with: raised by every render, to try out what follows.
    """

    concurrency = 1

    def __init__(self, step_delay_s: float = 0.0, fail_with: Exception | None = None) -> None:
        self.step_delay_s = step_delay_s
        self.fail_with = fail_with
        self.renders = 0
        self._ready = False
        self._closed = False
        self._turn = threading.Condition()
        #: The thread that renders.
        self._holder: int | None = None
        self._people = 0

    def start(self) -> None:
        self._ready = True

    def render(
        self, request: RenderRequest, *, on_progress: Callable[[Progress], None], is_cancelled: Callable[[], bool]
    ) -> list[Picture]:
        """One at a time; one in the background lets all others go first, between two steps too."""
        total = request.steps_run * len(request.seeds)
        with self._place(request, is_cancelled):
            on_progress(Progress(Phase.LOADING, 0, total))
            if self.fail_with is not None:
                raise self.fail_with
            on_progress(Progress(Phase.ENCODING, 0, total))
            pictures: list[Picture] = []
            for number, seed in enumerate(request.seeds):
                pixels = _paint(request, number)
                for step in range(request.steps_run):
                    if is_cancelled():
                        raise RenderCancelled("The render was cancelled.")
                    done = number * request.steps_run + step + 1
                    if request.background and self._people:
                        on_progress(Progress(Phase.WAITING, done - 1, total))
                        self._stand(is_cancelled)
                    if self.step_delay_s:
                        time.sleep(self.step_delay_s)
                    on_progress(
                        Progress(Phase.DENOISING, done, total, _preview(pixels, (step + 1) / request.steps_run))
                    )
                on_progress(Progress(Phase.DECODING, (number + 1) * request.steps_run, total))
                pictures.append(Picture(pixels, seed))
            self.renders += 1
            return pictures

    @contextmanager
    def _place(self, request: RenderRequest, is_cancelled: Callable[[], bool]) -> Iterator[None]:
        """The engine for oneself. Raises: RenderCancelled."""
        with self._turn:
            self._people += not request.background
            try:
                self._take(is_cancelled, background=request.background)
            except BaseException:
                self._people -= not request.background
                raise
        try:
            yield
        finally:
            with self._turn:
                self._people -= not request.background
                self._leave()

    def _stand(self, is_cancelled: Callable[[], bool]) -> None:
        with self._turn:
            self._leave()
            self._take(is_cancelled, background=True)

    def _take(self, is_cancelled: Callable[[], bool], *, background: bool) -> None:
        while self._holder is not None or (background and self._people):
            if is_cancelled():
                raise RenderCancelled("The render was cancelled.")
            self._turn.wait(_ASK_EVERY_S)
        self._holder = threading.get_ident()

    def _leave(self) -> None:
        if self._holder == threading.get_ident():
            self._holder = None
        self._turn.notify_all()

    def status(self) -> EngineStatus:
        return EngineStatus(
            name="mock", device="none", ready=self._ready, detail="Coloured pictures, no model.",
            starting=not (self._ready or self._closed), extra={"renders": self.renders},
        )  # fmt: skip

    def close(self) -> None:
        self._ready = False
        self._closed = True


def _paint(request: RenderRequest, number: int) -> NDArray[np.uint8]:
    pixels = _gradient(request, request.seeds[number])
    if request.variation is not None and request.variation.strength:
        other = _gradient(request, request.variation.seeds[number])
        pixels = _blend(pixels, other, request.variation.strength)
    if request.init is not None:
        share: Any = request.init.strength
        mask = request.init.soft_mask()
        pixels = _blend(request.init.picture(number), pixels, share if mask is None else share * mask[:, :, None])
    return pixels


def _blend(one: NDArray[np.uint8], other: NDArray[np.uint8], share: Any) -> NDArray[np.uint8]:
    blended: NDArray[np.uint8] = np.round(one * (1 - share) + other * share).astype(np.uint8)
    return blended


def _gradient(request: RenderRequest, seed: int) -> NDArray[np.uint8]:
    mix = [(lora.sha256, lora.weight, lora.text_encoder_weight) for lora in request.loras]
    text = f"{request.base_model.key}\0{request.prompt}\0{request.negative_prompt}\0{seed}\0{mix}"
    colours = np.frombuffer(hashlib.sha256(text.encode()).digest()[:9], np.uint8).reshape(3, 3).astype(np.float32)
    across = np.linspace(0, 1, request.width, dtype=np.float32)[None, :, None]
    down = np.linspace(0, 1, request.height, dtype=np.float32)[:, None, None]
    blend = colours[0] * (1 - across) + colours[1] * across
    return np.clip(blend * (1 - down) + colours[2] * down, 0, 255).astype(np.uint8)


def _preview(pixels: NDArray[np.uint8], done: float) -> NDArray[np.uint8]:
    stride = max(1, max(pixels.shape[:2]) // 64)
    small = pixels[::stride, ::stride].astype(np.float32)
    return (small * done + 128 * (1 - done)).astype(np.uint8)

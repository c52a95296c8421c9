"""One request in parts: pictures in order, progress over all, the first failure stops the rest."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from visionsuit.engine.base import (
    BaseModelRef,
    EngineError,
    EngineStatus,
    Family,
    Phase,
    Picture,
    Progress,
    RenderCancelled,
    RenderRequest,
)
from visionsuit.engine.mock import MockEngine
from visionsuit.generation.parts import SecondPass, render_all

REQUEST = RenderRequest(
    BaseModelRef("k", Path("."), Family.SD1), "a", "", 64, 64, steps=3, guidance=1, seeds=(1, 2), sampler="euler"
)
PARTS = (REQUEST, replace(REQUEST, prompt="b", seeds=(3,)), replace(REQUEST, prompt="c", seeds=(4,)))


@dataclass
class Device:
    """Steps as fast as it is asked to; all parts meet at the first step where `concurrency` says that they can."""

    concurrency: int
    fails: str = ""
    together: threading.Barrier = field(init=False)

    def __post_init__(self) -> None:
        self.together = threading.Barrier(self.concurrency)

    def start(self) -> None: ...

    def close(self) -> None: ...

    def status(self) -> EngineStatus:
        return EngineStatus("device", "none", True)

    def render(
        self, request: RenderRequest, *, on_progress: Callable[[Progress], None], is_cancelled: Callable[[], bool]
    ) -> list[Picture]:
        self.together.wait(10)
        if request.prompt == self.fails:
            raise EngineError("It failed.")
        total = request.steps * len(request.seeds)
        for step in range(total):
            while self.fails and not is_cancelled():
                pass
            if is_cancelled():
                raise RenderCancelled("The render was cancelled.")
            on_progress(Progress(Phase.DENOISING, step + 1, total))
        return [Picture(np.zeros((1, 1, 3), np.uint8), seed) for seed in request.seeds]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_parts_are_one_render(concurrency: int) -> None:
    seen: list[Progress] = []
    pictures = render_all(Device(concurrency), PARTS, on_progress=seen.append, is_cancelled=lambda: False)
    assert [picture.seed for picture in pictures] == [1, 2, 3, 4]
    assert [progress.step for progress in seen] == list(range(1, 13))
    assert {progress.steps for progress in seen} == {12}


def test_the_first_failure_stops_the_others() -> None:
    with pytest.raises(EngineError, match="It failed"):
        render_all(Device(3, fails="b"), PARTS, on_progress=lambda _: None, is_cancelled=lambda: False)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_cancel_reaches_all(concurrency: int) -> None:
    seen: list[Progress] = []
    with pytest.raises(RenderCancelled):
        render_all(Device(concurrency), PARTS, on_progress=seen.append, is_cancelled=lambda: len(seen) >= 2)
    assert len(seen) <= 2 + concurrency


@pytest.mark.parametrize("stop_at", [2, 8, 11], ids=["first pass", "second pass", "second picture's second pass"])
def test_a_cancel_stops_in_either_pass(stop_at: int) -> None:
    seen: list[Progress] = []
    engine = MockEngine()
    with pytest.raises(RenderCancelled):
        render_all(
            engine,
            [REQUEST],
            second=[SecondPass(128, 128, steps=3, strength=1.0)],
            on_progress=seen.append,
            is_cancelled=lambda: bool(seen) and seen[-1].step >= stop_at,
        )
    assert (seen[-1].step, seen[-1].steps) == (stop_at, 12)

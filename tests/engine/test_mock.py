import numpy as np
import pytest

from tests.engine.tiny import DEMO
from visionsuit.engine.base import Engine, OutOfDeviceMemory, Phase, Progress, RenderCancelled, RenderRequest
from visionsuit.engine.catalog import read_base_model
from visionsuit.engine.mock import MockEngine


def request(prompt: str = "red heart", seeds: tuple[int, ...] = (1, 2), steps: int = 3) -> RenderRequest:
    return RenderRequest(read_base_model(DEMO).ref, prompt, "", 96, 64, steps, 4.0, seeds, "euler")


def test_pictures_follow_from_prompt_and_seed() -> None:
    engine: Engine = MockEngine()
    engine.start()
    seen: list[Progress] = []
    one, two = engine.render(request(), on_progress=seen.append, is_cancelled=lambda: False)
    [again] = engine.render(request(seeds=(2,)), on_progress=seen.append, is_cancelled=lambda: False)
    [other] = engine.render(request("dog", seeds=(2,)), on_progress=seen.append, is_cancelled=lambda: False)
    assert one.pixels.shape == (64, 96, 3)
    assert np.array_equal(two.pixels, again.pixels)
    assert not np.array_equal(one.pixels, two.pixels)
    assert not np.array_equal(again.pixels, other.pixels)
    assert seen[0].phase is Phase.LOADING
    assert max(progress.step for progress in seen) == 6
    assert any(progress.preview is not None for progress in seen)


def test_cancel_and_failure() -> None:
    engine = MockEngine()
    seen: list[Progress] = []
    with pytest.raises(RenderCancelled):
        engine.render(request(steps=50), on_progress=seen.append, is_cancelled=lambda: len(seen) > 4)
    assert len(seen) == 5
    with pytest.raises(OutOfDeviceMemory):
        MockEngine(fail_with=OutOfDeviceMemory("full")).render(
            request(), on_progress=seen.append, is_cancelled=lambda: False
        )

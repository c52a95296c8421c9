"""With a bucket a picture is the same to the last bit, whoever is beside it, wherever it sits."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.engine.conftest import Renderer
from tests.engine.test_batching import Call, alone, loras, mix, request_for  # noqa: F401
from tests.engine.tiny import make_lora
from visionsuit.engine.base import EngineError, LoraRef, RenderRequest


def beside(renderer: Renderer, request: RenderRequest, others: list[RenderRequest]) -> Iterator[np.ndarray]:
    """The request's pictures when the others run before it and with it."""
    calls = [Call(renderer.engine, other).start().reach(1) for other in others]
    mine = Call(renderer.engine, request).start()
    pictures = mine.join()
    for call in calls:
        call.join()
    yield from pictures


@pytest.mark.parametrize("model", ["sd", "sdxl"])
@pytest.mark.parametrize("mixed", [False, True])
def test_equal_to_the_bit_beside_anybody(
    renderer: Renderer,
    loras: dict[str, list[LoraRef]],  # noqa: F811
    model: str,
    mixed: bool,
) -> None:
    weights = (0.6, -0.4, 0.0) if mixed else (0.0, 0.0, 0.0)
    request = request_for(renderer, model, steps=6, seeds=(5, 6), bucket=4, loras=mix(loras[model], *weights))
    expected = alone(renderer, request)
    crowds = [
        [request_for(renderer, model, steps=40, seeds=(1,), bucket=4, guidance=7.0, prompt="cat face")],
        [
            request_for(renderer, model, steps=30, seeds=(n,), bucket=4, loras=mix(loras[model], 0.3 * n, 0.0, 0.5))
            for n in range(1, 4)
        ],
    ]
    for others in crowds:
        for ours, alike in zip(beside(renderer, request, others), expected, strict=True):
            assert np.array_equal(ours, alike)


def test_the_shape_is_kept_after_larger_mixes_were_there(
    renderer: Renderer,
    loras: dict[str, list[LoraRef]],  # noqa: F811
    tmp_path: Path,
) -> None:
    """Slots grow with the mixes they have seen; a fixed shape does not."""
    request = request_for(renderer, steps=5, bucket=2, loras=mix(loras["sd"], 0.7))
    before = alone(renderer, request)
    large = tmp_path / "large.safetensors"
    sha256 = make_lora(large, renderer.models["sd"].folder, 48, conv=True, seed=11)
    wide = request_for(renderer, steps=30, seeds=(9,), bucket=2, loras=(LoraRef(sha256, large, 0.8),))
    [during] = beside(renderer, request, [wide])
    [after] = alone(renderer, request)
    assert np.array_equal(before[0], during)
    assert np.array_equal(before[0], after)


def test_a_bucket_is_the_free_picture_but_for_rounding(
    renderer: Renderer,
    loras: dict[str, list[LoraRef]],  # noqa: F811
) -> None:
    request = request_for(renderer, steps=6, loras=mix(loras["sd"], 0.6, 0.3))
    [free] = alone(renderer, request)
    for bucket in (1, 2, 8):
        [fixed] = alone(renderer, replace(request, bucket=bucket))
        assert np.abs(free - fixed).max() <= 2


def test_more_pictures_than_places_take_turns(renderer: Renderer) -> None:
    request = request_for(renderer, steps=3, seeds=(1, 2, 3, 4, 5), bucket=2)
    together = alone(renderer, request)
    for seed, picture in zip(request.seeds, together, strict=True):
        assert np.array_equal(picture, alone(renderer, replace(request, seeds=(seed,)))[0])


def test_other_sizes_of_bucket_are_refused(renderer: Renderer) -> None:
    call = Call(renderer.engine, request_for(renderer, bucket=3)).start()
    call.join()
    assert isinstance(call.error, EngineError)
    assert "1, 2, 4, 8" in call.error.message

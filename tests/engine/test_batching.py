"""Requests that share calls of the UNet are what they would be alone."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.engine.conftest import Renderer
from tests.engine.plain import render_plain
from tests.engine.tiny import make_lora
from visionsuit.engine.base import EngineError, InitPicture, LoraRef, Progress, RenderCancelled, RenderRequest
from visionsuit.engine.catalog import BaseModelInfo
from visionsuit.engine.diffusers_engine import DiffusersEngine

Pixels = NDArray[np.int16]
#: Levels of 255 that a picture may differ from the same request alone, in fp32 on a CPU.
BAR = 2


def furthest(one: Pixels, other: Pixels) -> int:
    return int(np.abs(one - other).max())


@dataclass
class Call:
    """A render in a thread of its own; `gate` holds it up inside its first step until it is opened."""

    engine: DiffusersEngine
    request: RenderRequest
    pictures: list[Pixels] = field(default_factory=list)
    seen: list[Progress] = field(default_factory=list)
    error: BaseException | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)

    def start(self) -> "Call":
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def _run(self) -> None:
        try:
            made = self.engine.render(self.request, on_progress=self.seen.append, is_cancelled=self.cancelled.is_set)
            self.pictures = [picture.pixels.astype(np.int16) for picture in made]
        except EngineError as error:
            self.error = error

    def join(self) -> list[Pixels]:
        self._thread.join(300)
        assert not self._thread.is_alive()
        return self.pictures

    def reach(self, step: int) -> "Call":
        until(lambda: bool(self.seen) and self.seen[-1].step >= step)
        return self


def until(condition: Callable[[], bool], timeout_s: float = 200) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.001)


@pytest.fixture(scope="module")
def loras(models: dict[str, BaseModelInfo], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[LoraRef]]:
    """Three LoRAs a model, of other ranks, layers and spellings; the second has a text encoder part."""
    folder, made = tmp_path_factory.mktemp("loras"), {}
    for model in ("sd", "sdxl"):
        base = models[model].folder
        made[model] = [
            _ref(folder / f"{model}{number}.safetensors", base, number, **options)
            for number, options in enumerate(
                (
                    {"rank": 4, "kind": "kohya", "conv": True},
                    {"rank": 8, "kind": "diffusers", "text_encoder": True},
                    {"rank": 2, "kind": "kohya", "alpha": 1.0},
                )
            )
        ]
    return made


def _ref(path: Path, base: Path, seed: int, **options: object) -> LoraRef:
    return LoraRef(make_lora(path, base, seed=seed, **options), path, 1.0)  # type: ignore[arg-type]


def request_for(renderer: Renderer, model: str = "sd", **changes: object) -> RenderRequest:
    plain = RenderRequest(renderer.models[model].ref, "red heart", "", 64, 64, 6, 4.0, (7,), "dpmpp_2m", "trailing")
    return replace(plain, **changes)  # type: ignore[arg-type]


def alone(renderer: Renderer, request: RenderRequest) -> list[Pixels]:
    return Call(renderer.engine, request).start().join()


def init_of(width: int, strength: float | None, is_masked: bool) -> InitPicture | None:
    if strength is None:
        return None
    pixels = np.linspace(0, 255, 64 * width * 3).reshape(64, width, 3).astype(np.uint8)
    mask = np.zeros((64, width), np.float32)
    mask[:40] = 1
    return InitPicture(pixels, strength, mask if is_masked else None)


def mix(loras: list[LoraRef], *weights: float) -> tuple[LoraRef, ...]:
    return tuple(replace(lora, weight=weight) for lora, weight in zip(loras, weights, strict=False) if weight)


@pytest.mark.parametrize("model", ["sd", "sdxl"])
def test_mixes_in_one_batch_equal_diffusers_one_by_one(
    renderer: Renderer, loras: dict[str, list[LoraRef]], model: str
) -> None:
    mixes = [(), (0.7,), (0.0, 0.8), (0.5, 0.5), (-0.4, 0.2, 0.6)]
    requests = [
        request_for(
            renderer, model, seeds=(seed,), steps=12, guidance=3.0 + seed / 2, loras=mix(loras[model], *weights)
        )
        for seed, weights in enumerate(mixes)
    ]
    calls_before = renderer.engine.status().extra["unet_calls"]
    calls = [Call(renderer.engine, request).start() for request in requests]
    pictures = [call.join()[0] for call in calls]
    calls_made = renderer.engine.status().extra["unet_calls"] - calls_before
    assert calls_made < 12 * 3, "they did not share their calls"
    for request, picture in zip(requests, pictures, strict=True):
        expected = render_plain(
            renderer.models[model].folder,
            seed=request.seeds[0],
            steps=12,
            guidance=request.guidance,
            loras=[(lora.path, lora.weight) for lora in request.loras],
        )
        assert furthest(picture, expected) <= BAR


_PROMPTS = st.sampled_from(["red heart", "cat face", "blue heart, smiling " * 9])
_REQUESTS = st.lists(
    st.fixed_dictionaries(
        {
            "prompt": _PROMPTS,
            "negative_prompt": st.sampled_from(["", "blue"]),
            "steps": st.integers(1, 9),
            "guidance": st.sampled_from([1.0, 2.5, 7.0]),
            "seeds": st.sampled_from([(3,), (4, 5), (6, 7, 8)]),
            "sampler": st.sampled_from(["dpmpp_2m", "dpmpp_2m_sde", "euler_a", "heun", "euler", "unipc", "lcm"]),
            "width": st.sampled_from([64, 64, 64, 72]),
            "weights": st.tuples(*[st.sampled_from([0.0, 0.0, 0.6, -0.5])] * 3),
            "strength": st.sampled_from([None, None, 0.3, 0.7]),
            "is_masked": st.booleans(),
            "after": st.integers(0, 4),
            "cancelled_at": st.sampled_from([None, None, None, 1, 3]),
        }
    ),
    min_size=3,
    max_size=7,
)


@pytest.mark.timeout(900)
@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(wanted=_REQUESTS, model=st.sampled_from(["sd", "sdxl"]))
def test_joining_and_leaving_at_random_changes_no_picture(
    renderer: Renderer, loras: dict[str, list[LoraRef]], wanted: list[dict], model: str
) -> None:
    requests, calls = [], []
    for one in wanted:
        one = dict(one)
        after, cancelled_at = one.pop("after"), one.pop("cancelled_at")
        init = init_of(one["width"], one.pop("strength"), one.pop("is_masked"))
        weights = mix(loras[model], *one.pop("weights"))
        requests.append(request_for(renderer, model, loras=weights, init=init, **one))
        if calls:
            previous = calls[-1]
            until(lambda call=previous, step=after: not call._thread.is_alive() or _steps(call) >= step)
        calls.append(Call(renderer.engine, requests[-1]).start())
        if cancelled_at is not None:
            until(lambda call=calls[-1], step=cancelled_at: not call._thread.is_alive() or _steps(call) >= step)
            calls[-1].cancelled.set()
    for call in calls:
        call.join()
    for request, call in zip(requests, calls, strict=True):
        if call.cancelled.is_set() and isinstance(call.error, RenderCancelled):
            continue
        assert call.error is None
        for ours, expected in zip(call.pictures, alone(renderer, request), strict=True):
            assert furthest(ours, expected) <= BAR, (furthest(ours, expected), (ours != expected).mean(), request)


def _steps(call: Call) -> int:
    return call.seen[-1].step if call.seen else 0


def test_swapped_mixes_are_another_picture_altogether(renderer: Renderer, loras: dict[str, list[LoraRef]]) -> None:
    """What the other tests call equal is far from what two people would see who got each other's LoRAs."""
    first = request_for(renderer, steps=20, seeds=(1,), loras=mix(loras["sd"], 0.8))
    second = request_for(renderer, steps=20, seeds=(1,), loras=mix(loras["sd"], 0.0, 0.0, 0.8))
    calls = [Call(renderer.engine, request).start() for request in (first, second)]
    one, two = (call.join()[0] for call in calls)
    deviation = max(np.abs(one - alone(renderer, first)[0]).mean(), np.abs(two - alone(renderer, second)[0]).mean())
    swapped = min(np.abs(two - alone(renderer, first)[0]).mean(), np.abs(one - alone(renderer, second)[0]).mean())
    assert swapped > 5
    assert swapped > 1000 * deviation


def test_a_cancelled_picture_frees_its_place_within_a_step(renderer: Renderer) -> None:
    long = [Call(renderer.engine, request_for(renderer, steps=2000, seeds=(seed,))).start() for seed in range(3)]
    for call in long:
        call.reach(3)
    step = long[0].seen[-1].step
    long[0].cancelled.set()
    long[0]._thread.join(20)
    assert isinstance(long[0].error, RenderCancelled)
    assert long[0].seen[-1].step - step < 100
    until(lambda: renderer.engine.status().extra["batch"] == 2)
    for call in long[1:]:
        assert call.error is None
        call.cancelled.set()
    for call in long:
        call.join()
    until(lambda: renderer.engine.status().extra["requests"] == 0)


def test_one_that_fails_harms_no_neighbour(renderer: Renderer, tmp_path: Path) -> None:
    good = request_for(renderer, steps=30)
    call = Call(renderer.engine, good).start().reach(2)
    broken = [
        Call(renderer.engine, request_for(renderer, sampler="abacus")).start(),
        Call(renderer.engine, request_for(renderer, loras=(LoraRef("0" * 64, tmp_path / "gone", 1.0),))).start(),
        Call(renderer.engine, request_for(renderer, width=66)).start(),
        Call(renderer.engine, request_for(renderer, seeds=())).start(),
    ]
    for other in broken:
        other.join()
        assert isinstance(other.error, EngineError)
    assert furthest(call.join()[0], alone(renderer, good)[0]) <= BAR


def test_one_that_arrives_late_begins_within_two_steps(renderer: Renderer) -> None:
    hog = Call(renderer.engine, request_for(renderer, steps=300, seeds=tuple(range(12)))).start().reach(30)
    counted = renderer.engine.status().extra
    late = Call(renderer.engine, request_for(renderer, steps=2, seeds=(99,))).start()
    [picture] = late.join()
    calls = renderer.engine.status().extra["unet_calls"] - counted["unet_calls"]
    assert calls < 60, "it waited for the pictures before it"
    assert hog._thread.is_alive()
    hog.cancelled.set()
    hog.join()
    assert furthest(picture, alone(renderer, late.request)[0]) <= BAR


def test_many_that_arrive_together_begin_together(renderer: Renderer) -> None:
    """One newcomer a step would make 15 calls of 8, and share few of them."""
    alone(renderer, request_for(renderer, model="demo", steps=2))
    before = renderer.engine.status().extra["unet_calls"]
    requests = [request_for(renderer, model="demo", steps=8, seeds=(n,)) for n in range(8)]
    for call in [Call(renderer.engine, request).start() for request in requests]:
        assert call.join()
    assert renderer.engine.status().extra["unet_calls"] - before < 13


def test_places_lost_to_others_lose_no_work(renderer: Renderer, loras: dict[str, list[LoraRef]]) -> None:
    """More pictures than places, from several people: they take turns and come out right."""
    requests = [
        request_for(renderer, steps=6, seeds=tuple(range(10 * n, 10 * n + 6)), loras=mix(loras["sd"], 0.2 * n))
        for n in range(3)
    ]
    calls = [Call(renderer.engine, request).start() for request in requests]
    for call, request in zip(calls, requests, strict=True):
        together = call.join()
        for seed in (0, 5):
            [expected] = alone(renderer, replace(request, seeds=(request.seeds[seed],)))
            assert furthest(together[seed], expected) <= BAR


def test_many_switches_leave_the_model_bit_for_bit(renderer: Renderer, loras: dict[str, list[LoraRef]]) -> None:
    plain = request_for(renderer)
    before = alone(renderer, plain)
    for number in range(0, 60, 6):
        calls = [
            Call(
                renderer.engine,
                request_for(
                    renderer,
                    steps=1 + (number + k) % 4,
                    seeds=(k,),
                    loras=mix(loras["sd"], 0.01 * (number + k), 0.5 * (k % 2)),
                ),
            ).start()
            for k in range(6)
        ]
        for call in calls:
            assert call.join()
    assert np.array_equal(before, alone(renderer, plain))


def test_slots_stay_within_their_budget(
    renderer: Renderer, loras: dict[str, list[LoraRef]], models: dict[str, BaseModelInfo]
) -> None:
    """With room for few mixes the others wait, and come out the same."""
    requests = [
        request_for(renderer, steps=8, seeds=(seed,), loras=mix(loras["sd"], 0.1 * seed + 0.1, 0.3))
        for seed in range(5)
    ]
    expected = [alone(renderer, request)[0] for request in requests]
    [model] = [one for one in renderer.engine.models if one.key == models["sd"].ref.key]
    budget = model.loras.budget_bytes
    until(lambda: not renderer.engine._driver.batches)
    model.loras.free_memory()
    model.loras.budget_bytes = 200_000
    try:
        calls = [Call(renderer.engine, request).start() for request in requests]
        most = 0
        while any(call._thread.is_alive() for call in calls):
            most = max(most, renderer.engine.status().extra["batch"])
            time.sleep(0.001)
        for call, picture in zip(calls, expected, strict=True):
            assert furthest(call.join()[0], picture) <= BAR
        assert most < 5
    finally:
        model.loras.budget_bytes = budget

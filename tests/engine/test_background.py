"""Renders in the background stand while people render, and come out as if nobody had come."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.conftest import Renderer
from tests.engine.test_batching import BAR, Call, alone, furthest, loras, mix, request_for, until  # noqa: F401
from tests.engine.test_lora_formats import FORMATS, make
from tests.engine.test_offload import ROOMY, Open, open_engine  # noqa: F401
from tests.engine.tiny_flux import make_tiny_flux
from visionsuit.core.config import Offload
from visionsuit.engine.base import LoraRef, Phase, RenderCancelled, RenderRequest
from visionsuit.engine.catalog import BaseModelInfo, read_base_model
from visionsuit.engine.diffusers_engine import DiffusersEngine

#: So many that it never ends by itself.
LONG = 3000

Loras = dict[str, list[LoraRef]]


def sheet(
    renderer: Renderer,
    loras: Loras,  # noqa: F811
    model: str = "sd",
    count: int = 4,
    **changes: Any,
) -> list[RenderRequest]:
    """Pictures that differ in their mixes: a request each, in the background."""
    weights = [(0.1 * number, 0.4 if number % 2 else 0.0) for number in range(count)]
    return [
        request_for(renderer, model, background=True, loras=mix(loras[model], *each), **{"steps": 12, **changes})
        for each in weights
    ]


def figures(renderer: Renderer) -> dict[str, Any]:
    return renderer.engine.status().extra


def begun(renderer: Renderer, requests: list[RenderRequest]) -> list[Call]:
    calls = [Call(renderer.engine, request).start() for request in requests]
    until(lambda: figures(renderer)["requests"] == len(calls))
    until(lambda: any(call.seen and call.seen[-1].step >= 2 for call in calls))
    return calls


def is_standing(call: Call) -> bool:
    return call.seen[-1].phase is Phase.WAITING


def comes_and_goes(renderer: Renderer, standing: list[Call], **changes: Any) -> None:
    """A person renders for a while, during which nothing of `standing` moves."""
    person = Call(renderer.engine, request_for(renderer, **{"steps": LONG, **changes})).start().reach(3)
    until(lambda: all(is_standing(call) for call in standing))
    steps = [call.seen[-1] for call in standing]
    person.reach(person.seen[-1].step + 15)
    assert [call.seen[-1] for call in standing] == steps
    assert figures(renderer)["standing"] == len(standing)
    person.cancelled.set()
    person.join()


@pytest.mark.parametrize(
    ("bucket", "person"),
    [
        (0, {}),
        (0, {"size": (72, 64)}),
        (0, {"model": "sdxl"}),
        (4, {"bucket": 2}),
    ],
)
def test_a_sheet_stands_and_goes_on_where_it_was(
    renderer: Renderer,
    loras: Loras,  # noqa: F811
    bucket: int,
    person: dict[str, Any],
) -> None:
    person = dict(person)
    width, height = person.pop("size", (64, 64))
    requests = sheet(renderer, loras, bucket=bucket, steps=20, sampler="euler_a")
    expected = [alone(renderer, request)[0] for request in requests]
    calls = begun(renderer, requests)
    for _ in range(2):
        before = [call.seen[-1].step for call in calls]
        comes_and_goes(renderer, calls, width=width, height=height, loras=mix(loras["sd"], 0.5)[: not person], **person)
        until(lambda before=before: any(call.seen[-1].step > step for call, step in zip(calls, before, strict=True)))
    for call, picture in zip(calls, expected, strict=True):
        [ours] = call.join()
        assert np.array_equal(ours, picture) if bucket else furthest(ours, picture) <= BAR


def test_nothing_is_calculated_twice(renderer: Renderer) -> None:
    request = request_for(renderer, steps=60, seeds=tuple(range(8)), background=True)
    before = figures(renderer)["unet_calls"]
    call = Call(renderer.engine, request).start().reach(16)
    people = [Call(renderer.engine, request_for(renderer, steps=5)) for _ in range(3)]
    for person in people:
        person.start().join()
    call.join()
    assert figures(renderer)["unet_calls"] - before == 60 + 3 * 5
    seen = [progress.step for progress in call.seen]
    assert seen == sorted(seen)


def test_it_is_cancelled_while_it_stands(renderer: Renderer) -> None:
    call = Call(renderer.engine, request_for(renderer, steps=LONG, background=True)).start().reach(2)
    person = Call(renderer.engine, request_for(renderer, steps=LONG)).start().reach(2)
    until(lambda: is_standing(call))
    call.cancelled.set()
    call.join()
    assert isinstance(call.error, RenderCancelled)
    assert not person.error
    until(lambda: figures(renderer)["standing"] == 0)
    person.cancelled.set()
    person.join()


def test_one_that_comes_while_people_render_waits_from_the_start(renderer: Renderer) -> None:
    person = Call(renderer.engine, request_for(renderer, steps=LONG)).start().reach(2)
    request = request_for(renderer, background=True)
    call = Call(renderer.engine, request).start()
    until(lambda: bool(call.seen) and is_standing(call))
    person.reach(person.seen[-1].step + 20)
    assert [progress.phase for progress in call.seen] == [Phase.LOADING, Phase.WAITING]
    person.cancelled.set()
    person.join()
    assert furthest(call.join()[0], alone(renderer, request)[0]) <= BAR


def test_people_have_all_places(renderer: Renderer, loras: Loras) -> None:  # noqa: F811
    calls = begun(renderer, sheet(renderer, loras, count=9, steps=LONG))
    until(lambda: bool(figures(renderer)["batch"] == 8))
    assert renderer.engine.concurrency == 8
    people = [Call(renderer.engine, request_for(renderer, steps=LONG, seeds=(n,))).start() for n in range(8)]
    for person in people:
        person.reach(5)
    assert (figures(renderer)["batch"], figures(renderer)["waiting_rows"]) == (8, 0)
    for call in [*people, *calls]:
        call.cancelled.set()
        call.join()


def test_one_that_fills_the_device_lets_people_in(renderer: Renderer) -> None:
    """At this size one picture is a call."""
    large = request_for(renderer, width=512, height=512, steps=LONG)
    call = Call(renderer.engine, replace(large, background=True)).start().reach(1)
    assert renderer.engine.concurrency == 8
    person = Call(renderer.engine, large).start().reach(1)
    assert renderer.engine.concurrency == 1
    for one in (person, call):
        one.cancelled.set()
        one.join()


@pytest.mark.parametrize("options", [{}, {"host_budget_bytes": 1}, {"offload": Offload.NEVER}])
def test_its_model_makes_room_for_a_persons(
    open_engine: Open,  # noqa: F811
    renderer: Renderer,
    loras: Loras,  # noqa: F811
    options: dict[str, Any],
) -> None:
    """On a device that holds one."""
    requests = sheet(renderer, loras, steps=24)
    expected = [alone(renderer, request)[0] for request in requests]
    [wanted] = alone(renderer, request_for(renderer, "sdxl"))
    ours, device = open_engine(budget=1, **options)
    calls = begun(ours, requests)
    [picture] = alone(ours, request_for(ours, "sdxl"))
    assert furthest(picture, wanted) <= BAR
    comes_and_goes(ours, [call for call in calls if call._thread.is_alive()], model="sdxl")
    for call, undisturbed in zip(calls, expected, strict=True):
        assert furthest(call.join()[0], undisturbed) <= BAR
    assert device.memory()[0] == sum(model.residence.device_bytes for model in ours.engine.models)


def test_merged_weights_that_it_holds_are_given_to_people(renderer: Renderer, tmp_path: Path) -> None:
    mixes = [make(renderer, tmp_path / f"{name}.safetensors", FORMATS[name])[0] for name in ("lokr", "loha")]
    requests = [
        request_for(renderer, loras=(replace(mixes[0], weight=weight),), steps=40, background=True)
        for weight in (0.4, 0.8)
    ]
    expected = [alone(renderer, request)[0] for request in requests]
    person = request_for(renderer, loras=(mixes[1],), steps=6)
    [wanted] = alone(renderer, person)
    calls = [Call(renderer.engine, request).start() for request in requests]
    calls[0].reach(3)
    assert furthest(alone(renderer, person)[0], wanted) <= BAR
    assert calls[0]._thread.is_alive()
    for call, undisturbed in zip(calls, expected, strict=True):
        assert furthest(call.join()[0], undisturbed) <= BAR


def test_wanting_memory_is_taken_from_it_before_people_share_less(
    open_engine: Open,  # noqa: F811
    renderer: Renderer,
    loras: Loras,  # noqa: F811
) -> None:
    requests = sheet(renderer, loras, "sdxl", steps=10)[:3]
    expected = [alone(renderer, request)[0] for request in requests]
    ours, _ = open_engine(ROOMY)
    ours("sd", steps=1)
    [sd] = [model for model in ours.engine.models if model.label == "sd"]
    calls = begun(ours, requests)
    wanting = [2]

    def run_out(module: torch.nn.Module, inputs: Any) -> None:
        if wanting[0] and len(inputs[0]) == 4:
            wanting[0] -= 1
            raise torch.OutOfMemoryError("The pretended memory is full.")

    hook = sd.unet.register_forward_pre_hook(run_out)
    people = [Call(ours.engine, request_for(ours, steps=LONG, seeds=(seed,))).start() for seed in range(2)]
    until(lambda: wanting[0] == 0)
    people[0].reach(people[0].seen[-1].step + 5)
    # The first time the background's model went, the second time a place.
    assert ours.engine.status().loaded_models == ("sd",)
    assert figures(ours)["batch"] == 1
    hook.remove()
    for person in people:
        person.cancelled.set()
        person.join()
    for call, undisturbed in zip(calls, expected, strict=True):
        assert furthest(call.join()[0], undisturbed) <= BAR


@pytest.mark.parametrize("seed", range(3))
def test_whoever_comes_whenever_all_come_out(renderer: Renderer, loras: Loras, seed: int) -> None:  # noqa: F811
    """People at any moment, so also while one in the background waits to be decoded."""
    draw = random.Random(seed)
    requests = [
        request_for(
            renderer,
            draw.choice(["sd", "sd", "sdxl"]),
            steps=draw.randint(1, 6),
            seeds=tuple(range(draw.randint(1, 9))),
            bucket=draw.choice([0, 0, 8]),
            background=number % 2 == 0,
        )
        for number in range(12)
    ]
    calls = []
    for request in requests:
        calls.append(Call(renderer.engine, request).start())
        steps = draw.randint(0, request.steps_run)
        until(lambda call=calls[-1], steps=steps: not call._thread.is_alive() or call.seen[-1:][0].step >= steps)
    for request, call in zip(requests, calls, strict=True):
        together = call.join()
        assert call.error is None
        for picture, expected in zip(together, alone(renderer, request), strict=True):
            assert np.array_equal(picture, expected) if request.bucket else furthest(picture, expected) <= BAR
    until(lambda: figures(renderer)["requests"] == 0)


def test_a_picture_that_is_rendered_whole_is_left_within_a_step(
    engine: DiffusersEngine, models: dict[str, BaseModelInfo], tmp_path: Path
) -> None:
    renderer = Renderer(engine, {**models, "flux": read_base_model(make_tiny_flux(tmp_path / "flux"))})
    request = request_for(renderer, "flux", steps=60, seeds=(1, 2), sampler="euler", schedule="default")
    expected = alone(renderer, request)
    call = Call(engine, replace(request, background=True)).start().reach(10)
    assert alone(renderer, request_for(renderer))
    assert call.seen[-1].step < 60, "its picture was finished first"
    for ours, undisturbed in zip(call.join(), expected, strict=True):
        assert furthest(ours, undisturbed) <= BAR

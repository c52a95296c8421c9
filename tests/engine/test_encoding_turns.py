"""A prompt of very many chunks: it is encoded between the others' steps, and its picture is the same."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import pytest

from tests.engine.conftest import Renderer
from tests.engine.test_batching import BAR, Call, alone, furthest, request_for, until
from visionsuit.engine.base import Phase
from visionsuit.engine.conditioning import RUNS_A_TURN
from visionsuit.engine.prompt_syntax import MAX_CHUNKS

#: So many that it never ends by itself.
ENDLESS = 3000
MANY = " BREAK ".join(
    " ".join("red" if number >> bit & 1 else "blue" for bit in range(6)) for number in range(MAX_CHUNKS)
)


def loaded(renderer: Renderer, name: str) -> Any:
    [model] = [model for model in renderer.engine.models if model.key == renderer.models[name].key]
    return model


@contextmanager
def noted(model: Any) -> Iterator[list[str]]:
    """What of the model is called, in order."""
    calls: list[str] = []
    named = [("unet", model.unet), *(("text", encoder.module) for encoder in model.text_encoders)]
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs, name=name: calls.append(name)) for name, module in named
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_others_have_their_steps_in_between(renderer: Renderer, name: str) -> None:
    request = request_for(renderer, name, prompt=MANY, negative_prompt="green", steps=3)
    [expected] = alone(renderer, request)
    model = loaded(renderer, name)
    model.prompts.clear()
    other = Call(renderer.engine, request_for(renderer, name, steps=ENDLESS)).start().reach(2)
    with noted(model) as calls:
        [ours] = alone(renderer, request)
    assert other.seen[-1].step < ENDLESS
    other.cancelled.set()
    other.join()
    assert calls.count("text") >= MAX_CHUNKS * len(model.text_encoders)
    assert max(len(list(run)) for called, run in groupby(calls) if called == "text") <= RUNS_A_TURN
    assert furthest(ours, expected) <= BAR


def test_two_of_them_share_the_turns_and_a_short_one_goes_before(renderer: Renderer) -> None:
    prompts = [MANY, MANY.replace("red", "cat")]
    wanted = [request_for(renderer, prompt=prompt, steps=2) for prompt in prompts]
    expected = [alone(renderer, request)[0] for request in wanted]
    model = loaded(renderer, "sd")
    model.prompts.clear()
    other = Call(renderer.engine, request_for(renderer, steps=ENDLESS)).start().reach(2)
    calls = [Call(renderer.engine, request).start() for request in wanted]
    until(lambda: all(call.seen and call.seen[-1].phase is Phase.ENCODING for call in calls))
    alone(renderer, request_for(renderer, prompt="heart", steps=1))
    assert not any(call.pictures for call in calls)
    for call, picture in zip(calls, expected, strict=True):
        assert furthest(call.join()[0], picture) <= BAR
    other.cancelled.set()
    other.join()


def test_the_background_stands_from_the_first_turn_on(renderer: Renderer) -> None:
    request = request_for(renderer, prompt=MANY, negative_prompt="dog", steps=3)
    alone(renderer, request_for(renderer, steps=1))
    # Steps that take long, so that between two of them there is time for more than one request.
    hook = loaded(renderer, "sd").unet.register_forward_pre_hook(lambda module, inputs: time.sleep(0.05))
    behind = Call(renderer.engine, request_for(renderer, steps=ENDLESS, background=True)).start().reach(2)
    alone(renderer, request)
    hook.remove()
    behind.cancelled.set()
    behind.join()
    phases = [phase for phase, _ in groupby(progress.phase for progress in behind.seen)]
    assert phases.count(Phase.WAITING) == 1


def test_a_cancel_is_heeded_between_turns(renderer: Renderer) -> None:
    alone(renderer, request_for(renderer, steps=1))
    model = loaded(renderer, "sd")
    call = Call(renderer.engine, request_for(renderer, prompt=MANY, negative_prompt="cat heart"))
    call.cancelled.set()
    with noted(model) as calls:
        call.start().join()
        until(lambda: renderer.engine.status().extra["requests"] == 0)
    assert calls.count("text") < MAX_CHUNKS

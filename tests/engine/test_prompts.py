"""Embeddings: diffusers' own where no syntax is used, A1111's arithmetic where it is, chunks of the model's context."""

import contextlib
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.conftest import Renderer
from tests.engine.plain import load_plain
from tests.engine.test_batching import request_for
from visionsuit.engine.base import RenderRequest
from visionsuit.engine.base_models import LoadedModel, load_model
from visionsuit.engine.catalog import BaseModelInfo
from visionsuit.engine.conditioning import encode as encode_request
from visionsuit.engine.devices import choose_device
from visionsuit.engine.prompt_syntax import MAX_CHUNKS
from visionsuit.engine.prompts import Conditioning, Encoding, PromptTooLong, Unfinished, emphasize, encode_prompts
from visionsuit.generation.parts import render_all

NAMES = ("sd", "sdxl", "demo")
LONG = "red heart, green dog, " * 6


@pytest.fixture(scope="module")
def loaded(models: dict[str, BaseModelInfo]) -> dict[str, LoadedModel]:
    return {name: load_model(models[name].ref, choose_device("cpu")) for name in NAMES}


def encode(model: LoadedModel, prompt: str, negative: str = "x", guided: bool = True) -> tuple[Conditioning, Any]:
    with torch.inference_mode():
        return encode_prompts(model, prompt, negative, Encoding(), guided=guided)


def context(model: LoadedModel) -> int:
    return model.text_encoders[0].max_tokens


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("prompt", "negative"), [("red heart", "blurry, green"), ("a  Red\nHEART!", ""), ("", "x")])
def test_plain_prompts_are_encoded_as_by_diffusers(
    loaded: dict[str, LoadedModel], models: dict[str, BaseModelInfo], name: str, prompt: str, negative: str
) -> None:
    pipeline = load_plain(models[name].folder)
    with torch.inference_mode():
        expected = pipeline.encode_prompt(
            prompt=prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True,
            # Without one, SDXL takes zeros.
            negative_prompt=negative or None,
        )  # fmt: skip
    positive, other = encode(loaded[name], prompt, negative)
    assert torch.equal(positive.embeds, expected[0])
    assert torch.equal(other.embeds, expected[1])
    if name == "sdxl":
        assert torch.equal(positive.pooled, expected[2])
        assert torch.equal(other.pooled, expected[3])
    else:
        assert positive.pooled is None


@pytest.mark.parametrize("name", NAMES)
def test_long_prompts_are_chunks_of_the_models_context(loaded: dict[str, LoadedModel], name: str) -> None:
    model = loaded[name]
    room = context(model) - 2
    words = " ".join(["dog"] * room)
    positive, negative = encode(model, f"{words} red heart", "green")
    assert positive.chunks == negative.chunks == 2
    assert positive.embeds.shape[1] == negative.embeds.shape[1] == 2 * context(model)
    first, second = encode(model, words)[0], encode(model, "red heart")[0]
    assert torch.equal(positive.embeds, torch.cat([first.embeds, second.embeds], dim=1))
    if name == "sdxl":
        assert torch.equal(positive.pooled, first.pooled)
    # The shorter side goes on with a chunk of no words.
    assert torch.equal(negative.embeds[:, : context(model)], encode(model, "x", "green")[1].embeds)
    assert torch.equal(negative.embeds[:, context(model) :], encode(model, "")[0].embeds)


@pytest.mark.parametrize("name", NAMES)
def test_in_turns_they_are_the_same_to_the_last_bit(loaded: dict[str, LoadedModel], name: str) -> None:
    model, encoding, turns = loaded[name], Encoding(), 0
    whole = encode(model, LONG, "green BREAK (red:1.2)")
    sides = None
    while sides is None:
        encoding.runs_left, turns = 1, turns + 1
        with contextlib.suppress(Unfinished), torch.inference_mode():
            sides = encode_prompts(model, LONG, "green BREAK (red:1.2)", encoding, guided=True)
    assert turns > 3
    for ours, expected in zip(sides, whole, strict=True):
        assert ours is not None
        assert torch.equal(ours.embeds, expected.embeds)
        assert name != "sdxl" or torch.equal(ours.pooled, expected.pooled)


@pytest.mark.parametrize("name", NAMES)
def test_the_longer_negative_prompt_sets_the_length(loaded: dict[str, LoadedModel], name: str) -> None:
    positive, negative = encode(loaded[name], "red heart", LONG)
    assert positive.chunks == negative.chunks > 1
    assert positive.embeds.shape == negative.embeds.shape
    alone, nothing = encode(loaded[name], "red heart", LONG, guided=False)
    assert nothing is None
    assert alone.chunks == 1


def test_zeros_stand_for_an_empty_negative_prompt(loaded: dict[str, LoadedModel]) -> None:
    positive, negative = encode(loaded["sdxl"], LONG, "")
    assert negative.embeds.shape == positive.embeds.shape
    assert not negative.embeds.any()
    assert not negative.pooled.any()


@pytest.mark.parametrize("name", NAMES)
def test_break_begins_a_chunk(loaded: dict[str, LoadedModel], name: str) -> None:
    model = loaded[name]
    both = encode(model, "red heart BREAK green dog")[0]
    parts = [encode(model, text)[0].embeds for text in ("red heart", "green dog")]
    assert torch.equal(both.embeds, torch.cat(parts, dim=1))


@pytest.mark.parametrize("name", NAMES)
def test_weights_scale_tokens_and_keep_the_mean(loaded: dict[str, LoadedModel], name: str) -> None:
    model = loaded[name]
    plain, weighted = encode(model, "red heart cat")[0], encode(model, "red (heart:1.4) cat")[0]
    start = 0
    for encoder in model.text_encoders:
        width = encoder.module.config.hidden_size
        states = plain.embeds[..., start : start + width]
        token = encoder.tokenizer("heart", add_special_tokens=False).input_ids
        assert len(token) == 1
        factor = torch.ones(1, states.shape[1])
        factor[0, 2] = 1.4
        expected = states * factor[..., None]
        if states.mean().abs() > 1e-3 * states.abs().mean():
            expected = expected * (states.mean() / expected.mean())
        torch.testing.assert_close(weighted.embeds[..., start : start + width], expected)
        start += width
    if name == "sdxl":
        assert torch.equal(plain.pooled, weighted.pooled)


@pytest.mark.parametrize("name", NAMES)
def test_neutral_syntax_changes_nothing(loaded: dict[str, LoadedModel], name: str) -> None:
    plain = encode(loaded[name], "red heart cat")[0].embeds
    assert torch.equal(encode(loaded[name], "(red heart cat:1.0)")[0].embeds, plain)
    torch.testing.assert_close(encode(loaded[name], "red [(heart)] cat")[0].embeds, plain)
    assert not torch.equal(encode(loaded[name], "red ((heart)) cat")[0].embeds, plain)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "prompt", ["(red heart:9)", "(red heart:-9)", "(red heart:0)", "(((((((((heart)))))))))", "()"]
)
def test_extreme_weights_stay_finite(loaded: dict[str, LoadedModel], name: str, prompt: str) -> None:
    positive, negative = encode(loaded[name], prompt, prompt)
    assert positive.embeds.isfinite().all()
    assert positive.embeds.abs().max() < 1e4
    assert torch.equal(positive.embeds, negative.embeds)


def test_too_many_chunks_are_refused_not_cut(loaded: dict[str, LoadedModel]) -> None:
    with pytest.raises(PromptTooLong, match=f"{MAX_CHUNKS} is the most"):
        encode(loaded["demo"], "a BREAK " * MAX_CHUNKS + "b")
    assert encode(loaded["demo"], "a BREAK " * MAX_CHUNKS)[0].chunks == MAX_CHUNKS


def test_what_is_kept_of_long_prompts_is_bounded(renderer: Renderer, loaded: dict[str, LoadedModel]) -> None:
    """Sixty-four of the longest would take five gigabytes for SDXL."""
    model = loaded["sdxl"]
    for prompt in ("red heart", "red heart BREAK green dog"):
        with torch.inference_mode():
            encode_request(model, request_for(renderer, "sdxl", prompt=prompt, negative_prompt="x"), {})
    # Two sides, of one chunk and of two, and four pooled vectors; 32 and 48 numbers for each token.
    assert model.prompts.bytes == 2 * (1 + 2) * context(model) * (32 + 48) * 4 + 4 * 48 * 4
    model.prompts.clear()
    for number in range(8):
        model.prompts.keep((number,), number, 80 * 2**20)
    assert [model.prompts.get((number,)) for number in range(8)] == [None] * 5 + [5, 6, 7]
    assert model.prompts.bytes == 240 * 2**20
    model.prompts.keep((8,), 8, 2**30)
    assert model.prompts.bytes == 0


def test_the_mean_is_restored_only_where_there_is_one() -> None:
    weights = torch.tensor([[1.0, 2.0]])
    states = torch.tensor([[[1.0, 3.0], [2.0, 2.0]]])
    torch.testing.assert_close(emphasize(states, weights).mean(), states.mean())
    centred = torch.tensor([[[1.0, -1.0], [2.0, -2.0 + 1e-7]]])
    torch.testing.assert_close(emphasize(centred, weights), centred * weights[..., None])
    half = emphasize(states.half(), weights)
    assert half.dtype is torch.float16


@pytest.mark.parametrize("name", NAMES)
def test_syntax_shows_in_the_picture(renderer: Renderer, name: str) -> None:
    texts = ("red heart", "(red:1.0) heart", "red (heart:1.8)", "red BREAK heart", "red [heart]")
    plain, neutral, strong, broken, weak = (renderer(name, text)[0] for text in texts)
    assert np.array_equal(plain, neutral)
    for other in (strong, broken, weak):
        assert not np.array_equal(plain, other)


def test_parts_of_a_request_are_what_they_are_alone(renderer: Renderer) -> None:
    base = renderer.models["sd"].ref
    parts = tuple(
        RenderRequest(base, prompt, negative, 64, 64, 3, 4.0, seeds, "euler")
        for prompt, negative, seeds in (("red", "", (1, 2)), (LONG, "dog", (3,)), ("a BREAK b", "(x:1.5)", (4,)))
    )
    together = render_all(renderer.engine, parts, on_progress=lambda _: None, is_cancelled=lambda: False)
    alone = [
        picture
        for part in parts
        for picture in renderer.engine.render(part, on_progress=lambda _: None, is_cancelled=lambda: False)
    ]
    assert [picture.seed for picture in together] == [1, 2, 3, 4]
    for one, other in zip(together, alone, strict=True):
        assert np.abs(one.pixels.astype(int) - other.pixels).max() <= 2

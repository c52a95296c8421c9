"""Pictures that begin with a picture: equal to diffusers' own pipelines, alone and among others."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
)
from numpy.typing import NDArray
from PIL import Image

from tests.engine.conftest import Renderer
from tests.engine.plain import load_plain
from tests.engine.test_batching import BAR, Call, alone, furthest, request_for
from visionsuit.engine.base import EngineError, InitPicture, Phase, Progress, RenderRequest, Variation
from visionsuit.engine.latents import mixed_noise
from visionsuit.engine.samplers import create_scheduler
from visionsuit.generation.parts import SecondPass, enlarge, render_all

SAMPLERS = ["euler", "dpmpp_2m", "euler_a", "ddim", "heun", "unipc", "dpmpp_2m_sde", "dpmpp_sde", "lcm"]
_PIPELINES = {
    ("sd", False): StableDiffusionImg2ImgPipeline,
    ("inpainting", True): StableDiffusionInpaintPipeline,
    ("sd", True): StableDiffusionInpaintPipeline,
    ("demo", False): StableDiffusionImg2ImgPipeline,
    ("sdxl", False): StableDiffusionXLImg2ImgPipeline,
    ("sdxl", True): StableDiffusionXLInpaintPipeline,
}


def scene(seed: int = 0, side: int = 64) -> NDArray[np.uint8]:
    """Something smooth with edges, as pictures are."""
    across, down = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side))
    bands = np.stack([across, down, ((across + down) * 3 + seed) % 1], axis=-1)
    return (bands * 255).astype(np.uint8)


def left_half(side: int = 64) -> NDArray[np.float32]:
    mask = np.zeros((side, side), np.float32)
    mask[:, : side // 2] = 1
    return mask


@lru_cache(maxsize=8)
def pipeline_for(folder: Path, model: str, masked: bool) -> Any:
    plain = load_plain(folder)
    options = {} if model == "sdxl" else {"requires_safety_checker": False}
    pipeline = _PIPELINES[model, masked](**plain.components, **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def expected(folder: Path, model: str, request: RenderRequest) -> NDArray[np.int16]:
    """What diffusers makes of the first picture of `request`, without pasting."""
    init = request.init
    assert init is not None
    pipeline = pipeline_for(folder, model, init.mask is not None)
    original = pipeline.scheduler
    pipeline.scheduler = create_scheduler(dict(original.config), request.sampler, request.schedule)
    options: dict[str, Any] = {}
    if init.mask is not None:
        options = {"mask_image": Image.fromarray((init.mask * 255).astype(np.uint8)), "height": 64, "width": 64}
    try:
        image = pipeline(
            request.prompt, image=Image.fromarray(init.pixels), strength=init.strength,
            negative_prompt=request.negative_prompt or None, num_inference_steps=request.steps,
            guidance_scale=request.guidance, generator=torch.Generator().manual_seed(request.seeds[0]),
            output_type="np", **options,
        ).images[0]  # fmt: skip
    finally:
        pipeline.scheduler = original
    return (image * 255).round().astype(np.int16)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("model", ["sd", "sdxl", "demo"])
def test_equal_to_diffusers_img2img(renderer: Renderer, model: str, sampler: str) -> None:
    # From nearly noise alone DDIM blows every rounding up in an untrained model.
    for strength in (1.0,) if model == "demo" else (0.35, 0.6 if sampler == "ddim" else 0.8):
        request = request_for(
            renderer, model, steps=6, sampler=sampler, seeds=(3,), init=InitPicture(scene(), strength)
        )
        [picture] = alone(renderer, request)
        assert furthest(picture, expected(renderer.models[model].folder, model, request)) <= BAR, strength


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "euler_a", "ddim", "heun", "unipc", "dpmpp_2m_sde"])
@pytest.mark.parametrize("model", ["sd", "sdxl"])
def test_equal_to_diffusers_inpainting(renderer: Renderer, model: str, sampler: str) -> None:
    # As above.
    for strength in (0.4, 0.6) if sampler == "ddim" else (0.6, 1.0):
        init = InitPicture(scene(), strength, left_half())
        request = request_for(renderer, model, steps=6, sampler=sampler, seeds=(3,), init=init)
        [picture] = alone(renderer, request)
        reference = expected(renderer.models[model].folder, model, request)
        assert furthest(picture[:, :32], reference[:, :32]) <= BAR, strength
        assert np.array_equal(picture[:, 32:], init.pixels[:, 32:]), "what is not masked was touched"
        assert np.abs(picture[:, :32] - init.pixels[:, :32].astype(np.int16)).mean() > 5


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "euler_a", "heun"])
def test_a_unet_made_for_inpainting(renderer: Renderer, sampler: str) -> None:
    for strength in (0.6, 1.0):
        init = InitPicture(scene(), strength, left_half())
        request = request_for(renderer, "inpainting", steps=6, sampler=sampler, seeds=(3,), init=init)
        [picture] = alone(renderer, request)
        reference = expected(renderer.models["inpainting"].folder, "inpainting", request)
        assert furthest(picture[:, :32], reference[:, :32]) <= BAR, strength
        assert np.array_equal(picture[:, 32:], init.pixels[:, 32:])
    # All of it is new without a mask, and without a picture.
    for init_picture in (None, InitPicture(scene(), 0.8)):
        [plain] = alone(renderer, request_for(renderer, "inpainting", sampler=sampler, init=init_picture))
        assert plain.std() > 1


@pytest.mark.parametrize(("model", "fourth"), [("sd", "unipc"), ("sdxl", "dpmpp_2m_sde"), ("demo", "ddim")])
def test_with_and_without_a_picture_in_one_batch(renderer: Renderer, model: str, fourth: str) -> None:
    init = InitPicture(scene(), 0.5)
    masked = InitPicture(scene(1), 0.9, left_half())
    requests = [
        request_for(renderer, model, steps=10, seeds=(1,)),
        request_for(renderer, model, steps=12, seeds=(2,), sampler="euler_a", init=init),
        request_for(renderer, model, steps=8, seeds=(3, 4), sampler="heun", guidance=6.0, init=masked),
        request_for(renderer, model, steps=14, seeds=(5,), sampler=fourth, init=replace(init, strength=0.7)),
    ]
    before = renderer.engine.status().extra["unet_calls"]
    calls = [Call(renderer.engine, request).start() for request in requests]
    pictures = [call.join() for call in calls]
    made = renderer.engine.status().extra["unet_calls"] - before
    # The seeds of one request share theirs in any case.
    assert made < sum([10, 6, 13, 9]), "they did not share their calls"
    for request, together in zip(requests, pictures, strict=True):
        for one, other in zip(together, alone(renderer, request), strict=True):
            assert furthest(one, other) <= BAR
    for number in (1, 3):
        reference = expected(renderer.models[model].folder, model, requests[number])
        assert furthest(pictures[number][0], reference) <= BAR


@pytest.mark.parametrize("model", ["sd", "sdxl", "inpainting"])
def test_every_seed_may_begin_with_a_picture_of_its_own(renderer: Renderer, model: str) -> None:
    pictures, mask = np.stack([scene(), scene(1), scene(2)]), left_half() if model != "sdxl" else None
    request = request_for(renderer, model, steps=6, seeds=(3, 8, 4), init=InitPicture(pictures, 0.5, mask))
    together = alone(renderer, request)
    for number, picture in enumerate(together):
        own = replace(request, seeds=request.seeds[number : number + 1], init=InitPicture(pictures[number], 0.5, mask))
        assert furthest(picture, alone(renderer, own)[0]) <= BAR
        if mask is not None:
            assert np.array_equal(picture[:, 32:], pictures[number][:, 32:])


def test_progress_counts_the_steps_that_run(renderer: Renderer) -> None:
    request = request_for(renderer, steps=10, seeds=(1, 2), init=InitPicture(scene(), 0.5))
    call = Call(renderer.engine, request).start()
    call.join()
    steps = [seen.step for seen in call.seen if seen.phase is Phase.DENOISING]
    assert steps == sorted(steps)
    assert call.seen[-1].step == call.seen[-1].steps == 10


def test_little_strength_keeps_the_picture(renderer: Renderer) -> None:
    pictures = [
        alone(renderer, request_for(renderer, "demo", steps=20, init=InitPicture(scene(), strength)))[0]
        for strength in (0.05, 0.5, 0.95)
    ]
    away = [np.abs(picture - scene().astype(np.int16)).mean() for picture in pictures]
    assert away[0] < away[1] < away[2]


def test_soft_edge_is_between_both(renderer: Renderer) -> None:
    mask = np.tile(np.linspace(1, 0, 64, dtype=np.float32), (64, 1))
    soft = InitPicture(scene(), 0.9, mask)
    [picture] = alone(renderer, request_for(renderer, seeds=(3,), init=soft))
    as_bytes = InitPicture(scene(), 0.9, (mask * 255).round().astype(np.uint8))
    [same] = alone(renderer, request_for(renderer, seeds=(3,), init=as_bytes))
    assert furthest(picture, same) <= BAR
    away = np.abs(picture - scene().astype(np.int16)).mean(axis=(0, 2))
    assert away[-1] <= 1
    assert away[:16].mean() > away[16:40].mean() > away[-8:].mean()


def test_a_thin_line_is_repainted_too(renderer: Renderer) -> None:
    mask = np.zeros((64, 64), np.float32)
    mask[:, 3:5] = 1
    [picture] = alone(renderer, request_for(renderer, seeds=(3,), init=InitPicture(scene(), 1.0, mask)))
    changed = np.abs(picture - scene().astype(np.int16)).mean(axis=(0, 2))
    assert changed[3:5].min() > 3
    assert changed[5:].max() == 0


@pytest.mark.parametrize(
    ("init", "says"),
    [
        (InitPicture(scene(side=32), 0.5), "shape"),
        (InitPicture(np.stack([scene(), scene(1)]), 0.5), "shape"),
        (InitPicture(scene(), 0.0), "strength"),
        (InitPicture(scene(), 1.2), "strength"),
        (InitPicture(scene(), 0.5, np.ones((3, 3), np.float32)), "mask"),
    ],
)
def test_what_cannot_be_is_refused(renderer: Renderer, init: InitPicture, says: str) -> None:
    with pytest.raises(EngineError, match=says):
        renderer.engine.render(request_for(renderer, init=init), on_progress=lambda _: None, is_cancelled=lambda: False)


def test_variations(renderer: Renderer) -> None:
    plain = request_for(renderer, seeds=(5,))
    [picture] = alone(renderer, plain)
    [other] = alone(renderer, replace(plain, seeds=(9,)))

    def varied(strength: float) -> NDArray[np.int16]:
        return alone(renderer, replace(plain, variation=Variation((9,), strength)))[0]

    assert np.array_equal(varied(0.0), picture)
    assert np.array_equal(varied(1.0), other)
    away = [np.abs(varied(strength) - picture).mean() for strength in (0.05, 0.3, 0.8)]
    assert 0 < away[0] < away[1] < away[2]


def test_mixed_noise_is_noise() -> None:
    noise = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    for strength in (0.0, 0.2, 0.5, 0.9, 1.0):
        mixed = mixed_noise(noise, 2, strength)
        assert abs(float(mixed.std()) - 1) < 0.03
    assert torch.equal(mixed_noise(noise, 2, 0.0), noise)


@pytest.mark.parametrize("model", ["sd", "sdxl"])
def test_a_second_pass_is_diffusers_img2img_of_the_larger_picture(renderer: Renderer, model: str) -> None:
    request = request_for(renderer, model, steps=6, seeds=(3,))
    seen: list[Progress] = []
    [picture] = render_all(
        renderer.engine,
        [request],
        second=[SecondPass(96, 80, steps=8, strength=0.5)],
        on_progress=seen.append,
        is_cancelled=lambda: False,
    )
    [first] = alone(renderer, request)
    larger = enlarge(first.astype(np.uint8), 96, 80)
    again = replace(request, steps=8, init=InitPicture(larger, 0.5))
    assert furthest(picture.pixels.astype(np.int16), expected(renderer.models[model].folder, model, again)) <= BAR
    steps = [progress.step for progress in seen]
    assert steps == sorted(steps)
    assert (seen[-1].step, seen[-1].steps) == (10, 10)
    phases = [progress.phase for progress in seen]
    begun = phases.index(Phase.DENOISING)
    assert not {Phase.LOADING, Phase.ENCODING} & set(phases[begun:])


def test_second_passes_share_their_calls(renderer: Renderer) -> None:
    request = request_for(renderer, steps=5, seeds=(3, 4, 5), sampler="euler")
    second = SecondPass(96, 80, steps=10, strength=0.6)
    seen: list[Progress] = []

    def render(request: RenderRequest) -> list[NDArray[np.int16]]:
        made = render_all(
            renderer.engine, [request], second=[second], on_progress=seen.append, is_cancelled=lambda: False
        )
        return [picture.pixels.astype(np.int16) for picture in made]

    before = renderer.engine.status().extra["unet_calls"]
    together = render(request)
    assert renderer.engine.status().extra["unet_calls"] - before == 5 + 6
    steps = [progress.step for progress in seen]
    assert steps == sorted(steps)
    assert (seen[-1].step, seen[-1].steps) == (33, 33)
    for number, picture in enumerate(together):
        assert furthest(picture, render(replace(request, seeds=request.seeds[number : number + 1]))[0]) <= BAR


def test_the_cells_of_a_sheet_share_their_calls(renderer: Renderer) -> None:
    cells = [
        request_for(renderer, steps=steps, guidance=guidance, sampler=sampler)
        for steps, guidance, sampler in ((12, 3.0, "euler"), (12, 7.0, "euler"), (12, 5.0, "heun"), (8, 5.0, "unipc"))
    ]
    before = renderer.engine.status().extra["unet_calls"]
    together = render_all(renderer.engine, cells, on_progress=lambda _: None, is_cancelled=lambda: False)
    made = renderer.engine.status().extra["unet_calls"] - before
    assert made < 12 + 12 + 23 + 8
    for request, picture in zip(cells, together, strict=True):
        assert furthest(picture.pixels.astype(np.int16), alone(renderer, request)[0]) <= BAR

"""Stable Diffusion 3 beginning with a picture: diffusers' own img2img."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Img2ImgPipeline
from numpy.typing import NDArray
from PIL import Image

from tests.engine.conftest import Renderer
from tests.engine.test_batching import BAR, alone, furthest, request_for
from tests.engine.test_init import left_half, scene
from tests.engine.test_sd3 import THEIRS
from tests.engine.tiny_sd3 import make_tiny_sd3
from visionsuit.engine.base import Family, InitPicture, samplers_for
from visionsuit.engine.catalog import read_base_model
from visionsuit.engine.diffusers_engine import DiffusersEngine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_sd3(tmp_path_factory.mktemp("sd3") / "sd3")


@pytest.fixture
def renderer(engine: DiffusersEngine, folder: Path) -> Renderer:
    return Renderer(engine, {"sd3": read_base_model(folder)})


def expected(folder: Path, init: InitPicture, sampler: str) -> NDArray[np.int16]:
    pipeline = StableDiffusion3Img2ImgPipeline.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, feature_extractor=None, image_encoder=None,
        text_encoder_3=None, tokenizer_3=None,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = THEIRS[sampler](pipeline.scheduler.config)
    if not hasattr(pipeline.scheduler, "scale_noise"):
        # The pipeline asks for what these schedulers have under another name.
        pipeline.scheduler.scale_noise = lambda sample, timestep, noise: pipeline.scheduler.add_noise(
            sample, noise, timestep
        )
    image = pipeline(
        "red heart", image=Image.fromarray(init.pixels), strength=init.strength, num_inference_steps=8,
        guidance_scale=4.0, generator=torch.Generator().manual_seed(3), output_type="np", height=64, width=64,
    ).images[0]  # fmt: skip
    return (image * 255).round().astype(np.int16)


@pytest.mark.parametrize("strength", [0.25, 0.75])
@pytest.mark.parametrize("sampler", samplers_for(Family.SD3))
def test_equal_to_diffusers(renderer: Renderer, folder: Path, strength: float, sampler: str) -> None:
    given: dict[str, Any] = {"steps": 8, "sampler": sampler, "schedule": "default", "seeds": (3,)}
    init = InitPicture(scene(), strength)
    [picture] = alone(renderer, request_for(renderer, "sd3", init=init, **given))
    assert furthest(picture, expected(folder, init, sampler)) <= BAR
    masked = InitPicture(scene(), strength, left_half())
    [picture] = alone(renderer, request_for(renderer, "sd3", init=masked, **given))
    assert np.abs(picture[:, :32] - masked.pixels[:, :32].astype(np.int16)).mean() > 1
    assert np.array_equal(picture[:, 32:], masked.pixels[:, 32:])

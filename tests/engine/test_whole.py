"""Pipelines that no batch knows: rendered whole through the same queue, with progress and cancel."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from tests.engine.conftest import Renderer
from tests.engine.tiny import make_lora, make_tiny_sd
from visionsuit.engine.base import (
    EngineError,
    Family,
    IncompatibleLora,
    LoraRef,
    LoraUnloadable,
    Progress,
    RenderCancelled,
)
from visionsuit.engine.compat import check_lora
from visionsuit.engine.header import read_header

EULER = {"sampler": "euler", "schedule": "default"}


def test_the_picture_is_the_pipelines_own(renderer: Renderer, flux: Path) -> None:
    info = renderer.models["flux"]
    assert (info.family, info.default.sampler, info.size_step) == (Family.FLUX, "euler", 16)
    told: list[Progress] = []
    one, two = renderer("flux", "a red cat", seeds=(7, 8), on_progress=told.append, **EULER)
    plain = DiffusionPipeline.from_pretrained(flux, local_files_only=True, image_encoder=None, feature_extractor=None)
    plain.set_progress_bar_config(disable=True)
    for seed, ours in ((7, one), (8, two)):
        theirs = plain(
            "a red cat", height=64, width=64, num_inference_steps=4, guidance_scale=4.0, output_type="np",
            generator=torch.Generator().manual_seed(seed),
        ).images[0]  # fmt: skip
        assert np.abs(ours - (theirs * 255).round()).max() <= 2
    steps = [progress.step for progress in told]
    assert (steps[-1], told[-1].steps) == (8, 8)
    assert steps == sorted(steps)
    assert len(set(steps)) > 4


def test_a_cancel_takes_effect_within_a_step(renderer: Renderer) -> None:
    seen: list[int] = []
    with pytest.raises(RenderCancelled):
        renderer(
            "flux",
            steps=500,
            on_progress=lambda progress: seen.append(progress.step),
            is_cancelled=lambda: bool(seen) and seen[-1] > 2,
            **EULER,
        )
    assert seen[-1] < 450
    assert renderer("flux", **EULER)[0].shape == (64, 64, 3)


def test_others_have_their_turn_between_its_pictures(renderer: Renderer) -> None:
    done: list[str] = []
    begun = threading.Event()

    def whole() -> None:
        renderer("flux", seeds=range(6), steps=30, on_progress=lambda p: begun.set() if p.step else None, **EULER)
        done.append("flux")

    def batched() -> None:
        begun.wait(30)
        renderer("sd", steps=2)
        done.append("sd")

    with ThreadPoolExecutor(2) as threads:
        for future in [threads.submit(whole), threads.submit(batched)]:
            future.result()
    assert done == ["sd", "flux"]


def test_what_it_cannot_is_said_before(renderer: Renderer, flux: Path, tmp_path: Path) -> None:
    sha256 = make_lora(tmp_path / "a.safetensors", make_tiny_sd(tmp_path / "sd"))
    with pytest.raises(IncompatibleLora, match="the base model is Flux: 32 of its 32 layers are not"):
        check_lora(read_header(tmp_path / "a.safetensors"), flux)
    with pytest.raises(LoraUnloadable, match=r"^a\.safetensors: The LoRA was made for"):
        renderer("flux", loras=[LoraRef(sha256, tmp_path / "a.safetensors", 1.0)], **EULER)
    with pytest.raises(EngineError, match="multiples of 16"):
        renderer("flux", size=(72, 64), **EULER)
    with pytest.raises(EngineError, match="sampled with Euler"):
        renderer("flux", sampler="ddim")

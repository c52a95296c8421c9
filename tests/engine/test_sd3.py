"""Stable Diffusion 3 behind the same interface: diffusers' picture, in a batch, under LoRAs."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    StableDiffusion3Pipeline,
    UniPCMultistepScheduler,
)
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from tests.engine.conftest import Renderer
from tests.engine.tiny import make_lora, make_tiny_sd
from tests.engine.tiny_sd3 import make_tiny_sd3
from visionsuit.engine.base import EngineError, Family, IncompatibleLora, LoraRef, samplers_for
from visionsuit.engine.catalog import read_base_model
from visionsuit.engine.compat import check_lora, read_base_shapes
from visionsuit.engine.diffusers_engine import DiffusersEngine
from visionsuit.engine.header import read_header
from visionsuit.engine.lora_names import Component
from visionsuit.engine.samplers import create_scheduler, start_scheduler

EULER = {"sampler": "euler", "schedule": "default"}


@pytest.fixture(scope="module", params=["without T5", "with T5"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_sd3(tmp_path_factory.mktemp("sd3") / "sd3", t5=request.param == "with T5")


@pytest.fixture(scope="module")
def plain(folder: Path) -> Any:
    return load_plain_sd3(folder)


def load_plain_sd3(folder: Path) -> Any:
    absent = {} if (folder / "text_encoder_3").is_dir() else {"text_encoder_3": None, "tokenizer_3": None}
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, feature_extractor=None, image_encoder=None, **absent
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def renderer(engine: DiffusersEngine, folder: Path) -> Renderer:
    return Renderer(engine, {"sd3": read_base_model(folder)})


def reference(pipeline: Any, prompt: str, **options: Any) -> NDArray[np.int16]:
    given = {"num_inference_steps": 4, "guidance_scale": 4.0, "height": 64, "width": 64, "seed": 7} | options
    generator = torch.Generator().manual_seed(given.pop("seed"))
    image = pipeline(prompt, generator=generator, output_type="np", **given).images[0]
    return (image * 255).round().astype(np.int16)


def furthest(one: NDArray[np.int16], other: NDArray[np.int16]) -> int:
    return int(np.abs(one - other).max())


def test_the_picture_is_diffusers_own(renderer: Renderer, plain: Any) -> None:
    for prompt, negative, guidance in (("red heart", "", 4.0), ("a big cat", "blue sofa", 3.0), ("a cat", "", 1.0)):
        [ours] = renderer("sd3", prompt, negative_prompt=negative, guidance=guidance, **EULER)
        theirs = reference(plain, prompt, negative_prompt=negative or None, guidance_scale=guidance)
        assert furthest(ours, theirs) <= 2
    assert furthest(renderer("sd3", "a cat", **EULER)[0], renderer("sd3", "red heart", **EULER)[0]) > 2


def test_requests_share_calls_and_get_what_they_get_alone(renderer: Renderer, engine: DiffusersEngine) -> None:
    wanted = [
        {"prompt": "red heart", "steps": 60, "guidance": 4.0, "seeds": (1, 2)},
        {"prompt": "a big cat", "steps": 5, "guidance": 2.5, "seeds": (3,)},
        {"prompt": "blue sofa", "steps": 7, "guidance": 6.0, "seeds": (4,), "negative_prompt": "cat"},
    ]
    alone = [renderer("sd3", **EULER, **one) for one in wanted]
    before = engine.status().extra["unet_calls"]
    begun = threading.Event()
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(
            lambda: renderer("sd3", **EULER, **wanted[0], on_progress=lambda one: one.step and begun.set())
        )
        assert begun.wait(60)
        others = threads.map(lambda one: renderer("sd3", **EULER, **one), wanted[1:])
        together = [first.result(), *others]
    calls = engine.status().extra["unet_calls"] - before
    assert calls < 60 + 5 + 7, "they did not share their calls"
    for ours, theirs in zip(together, alone, strict=True):
        assert max(map(furthest, ours, theirs)) <= 2


def lora(path: Path, folder: Path, *, rank: int = 4, seed: int = 1) -> LoraRef:
    """Of the transformer's attention and the text encoders' queries, as diffusers' trainer writes it."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for component in ("transformer", "text_encoder", "text_encoder_2"):
        [file] = (folder / component).glob("*.safetensors")
        for name, weight in load_file(file).items():
            layer = name.removesuffix(".weight")
            if layer == name or not layer.endswith(("to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "q_proj")):
                continue
            inner = layer if component == "transformer" else f"text_model.{layer.removeprefix('text_model.')}"
            tensors[f"{component}.{inner}.lora_A.weight"] = torch.randn(rank, weight.shape[1], generator=generator) / 4
            tensors[f"{component}.{inner}.lora_B.weight"] = torch.randn(weight.shape[0], rank, generator=generator) / 4
    save_file(tensors, path)
    return LoraRef(hashlib.sha256(path.read_bytes()).hexdigest(), path, 0.8)


def test_loras_alone_and_in_a_batch(renderer: Renderer, plain: Any, folder: Path, tmp_path: Path) -> None:
    one, two = lora(tmp_path / "one.safetensors", folder), lora(tmp_path / "two.safetensors", folder, rank=8, seed=2)
    fit = check_lora(read_header(one.path), folder)
    assert fit.modules[Component.TRANSFORMER] > 8
    assert not fit.absent
    theirs = []
    for mix in ([one], [one, two]):
        for ref in mix:
            plain.load_lora_weights(str(tmp_path), weight_name=ref.path.name, adapter_name=ref.path.stem)
        plain.set_adapters([ref.path.stem for ref in mix], [0.8] * len(mix))
        theirs.append(reference(plain, "a cat", num_inference_steps=6))
        plain.unload_lora_weights()
    without = reference(plain, "a cat", num_inference_steps=6)
    assert furthest(without, theirs[0]) > 2
    mixes = [(one,), (one, two), ()]
    with ThreadPoolExecutor(3) as threads:
        ours = list(threads.map(lambda mix: renderer("sd3", "a cat", steps=6, loras=mix, **EULER)[0], mixes))
    for picture, expected in zip(ours, [*theirs, without], strict=True):
        assert furthest(picture, expected) <= 2
    [again] = renderer("sd3", "a cat", steps=6, loras=[one], **EULER)
    assert furthest(again, theirs[0]) <= 2


def test_other_families_loras_are_refused(folder: Path, tmp_path: Path) -> None:
    make_lora(tmp_path / "sd.safetensors", make_tiny_sd(tmp_path / "sd"), transformer=True)
    with pytest.raises(IncompatibleLora, match="SD 3"):
        check_lora(read_header(tmp_path / "sd.safetensors"), folder)
    assert read_base_shapes(folder).family is Family.SD3


def test_what_it_says_of_itself(folder: Path, renderer: Renderer) -> None:
    info = read_base_model(folder)
    assert (info.family, info.default.sampler, info.default.schedule) == (Family.SD3, "euler", "default")
    assert (info.default.width, info.size_step, info.max_size) == (64, 16, 128)
    with pytest.raises(EngineError, match="multiples of 16"):
        renderer("sd3", size=(72, 64), **EULER)
    with pytest.raises(EngineError, match=r"sampled with DPM.* 2M, Euler, Heun, UniPC, not with DDIM"):
        renderer("sd3", sampler="ddim")


SHIFTING = {
    "use_dynamic_shifting": True, "base_image_seq_len": 4, "max_image_seq_len": 64, "base_shift": 0.2, "max_shift": 3.0
}  # fmt: skip


@pytest.fixture(scope="module")
def shifting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It shifts its timesteps by the picture's size."""
    folder = make_tiny_sd3(tmp_path_factory.mktemp("shifting") / "sd3")
    FlowMatchEulerDiscreteScheduler(**SHIFTING).save_pretrained(folder / "scheduler")
    return folder


@pytest.mark.parametrize("width", [32, 64, 128])
def test_timesteps_shifted_by_the_size_are_diffusers_own(engine: DiffusersEngine, shifting: Path, width: int) -> None:
    renderer, plain = Renderer(engine, {"sd3": read_base_model(shifting)}), load_plain_sd3(shifting)
    [ours] = renderer("sd3", "a cat", steps=3, size=(width, 64), **EULER)
    assert furthest(ours, reference(plain, "a cat", num_inference_steps=3, width=width)) <= 2
    plain.scheduler = FlowMatchEulerDiscreteScheduler()
    assert furthest(ours, reference(plain, "a cat", num_inference_steps=3, width=width)) > 2


def test_other_spacings_are_diffusers_own(renderer: Renderer, plain: Any) -> None:
    original = plain.scheduler
    for schedule in ("karras", "exponential", "beta"):
        [ours] = renderer("sd3", "a cat", sampler="euler", schedule=schedule)
        options = {f"use_{schedule}_sigmas": True}
        plain.scheduler = FlowMatchEulerDiscreteScheduler.from_config(original.config, **options)
        assert furthest(ours, reference(plain, "a cat")) <= 2, schedule
    plain.scheduler = original


SOLVERS: dict[str, Any] = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
THEIRS = {
    "dpmpp_2m": lambda config: DPMSolverMultistepScheduler(flow_shift=config.shift, **SOLVERS),
    "euler": FlowMatchEulerDiscreteScheduler.from_config,
    "heun": lambda config: FlowMatchHeunDiscreteScheduler(shift=config.shift),
    "unipc": lambda config: UniPCMultistepScheduler(flow_shift=config.shift, **SOLVERS),
}


@pytest.mark.parametrize("sampler", samplers_for(Family.SD3))
def test_every_sampler_is_diffusers_own_alone_and_in_a_batch(renderer: Renderer, plain: Any, sampler: str) -> None:
    original = plain.scheduler
    plain.scheduler = THEIRS[sampler](original.config)
    theirs = {steps: reference(plain, "a cat", num_inference_steps=steps) for steps in (1, 2, 3, 6)}
    plain.scheduler = original
    with ThreadPoolExecutor(4) as threads:
        ours = threads.map(
            lambda steps: renderer("sd3", "a cat", steps=steps, sampler=sampler, schedule="default")[0], theirs
        )
        for picture, expected in zip(ours, theirs.values(), strict=True):
            assert furthest(picture, expected) <= 2
    assert furthest(theirs[1], theirs[6]) > 2


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "unipc"])
def test_solvers_shift_by_the_size_as_diffusers_do(engine: DiffusersEngine, shifting: Path, sampler: str) -> None:
    renderer, plain = Renderer(engine, {"sd3": read_base_model(shifting)}), load_plain_sd3(shifting)
    solver = type(THEIRS[sampler](plain.scheduler.config))
    for width in (32, 128):
        plain.scheduler = solver(**SOLVERS)
        still = reference(plain, "a cat", num_inference_steps=3, width=width)
        plain.scheduler.register_to_config(**SHIFTING)
        moved = reference(plain, "a cat", num_inference_steps=3, width=width)
        [ours] = renderer("sd3", "a cat", steps=3, size=(width, 64), sampler=sampler, schedule="default")
        assert furthest(ours, moved) <= 2
        assert furthest(moved, still) > 2


@pytest.mark.parametrize("width", [32, 128])
def test_heun_goes_at_the_times_of_euler(shifting: Path, width: int) -> None:
    """Diffusers' own knows no shift by the size, and one spacing alone."""
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", **SHIFTING}
    for schedule in ("default", "karras"):
        euler, heun = (create_scheduler(config, name, schedule, Family.SD3) for name in ("euler", "heun"))
        times, twice = (start_scheduler(one, 5, torch.device("cpu"), width // 4) for one in (euler, heun))
        assert torch.equal(twice, torch.cat([times[:1], times[1:].repeat_interleave(2)]))
        assert torch.equal(heun.sigmas.unique(), euler.sigmas.unique())


def test_a_pipeline_that_says_nothing_of_the_size_is_refused_in_words() -> None:
    """As those do that are rendered whole and know no such shift."""
    scheduler = create_scheduler({"_class_name": "FlowMatchEulerDiscreteScheduler", **SHIFTING}, "euler", "default")
    with pytest.raises(EngineError, match="shifts its timesteps by the picture's size"):
        scheduler.set_timesteps(4)

"""What the engine's benchmarks render: a model, LoRA files for it, and eight people's requests with mixes of two."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from numpy.typing import NDArray

from benchmarks.harness import at_once
from tests.engine.tiny import DEMO, make_lora, make_sdxl_topology, make_tiny_sd
from visionsuit.engine.base import BaseModelRef, LoraRef, RenderRequest
from visionsuit.engine.base_models import LoadedModel, load_model
from visionsuit.engine.catalog import read_base_model
from visionsuit.engine.devices import Device, choose_device
from visionsuit.engine.diffusers_engine import DiffusersEngine
from visionsuit.engine.samplers import create_scheduler

PEOPLE = 8
#: Levels of 255 that a picture may differ from diffusers' own in fp32.
BAR = 2
#: dB, where numbers have half the bits.
PSNR_BAR = 40.0

Pixels = NDArray[np.int16]


@dataclass
class Subject:
    """
    Args:
        size: side of the pictures, pixels.
        ranks: of the LoRA files.
    """

    name: str
    folder: Path
    loras_folder: Path
    size: int = 64
    steps: int = 8
    ranks: tuple[int, ...] = (4, 8, 16, 32, 8, 16)
    device_name: str = "cpu"
    strength: float = 0.3
    files: list[Path] = field(init=False)

    def __post_init__(self) -> None:
        self.files = [self.loras_folder / f"{self.name}-{number}.safetensors" for number in range(len(self.ranks))]

    @cached_property
    def ref(self) -> BaseModelRef:
        return read_base_model(self.folder).ref

    @cached_property
    def loras(self) -> list[LoraRef]:
        made = []
        for number, (file, rank) in enumerate(zip(self.files, self.ranks, strict=True)):
            sha256 = make_lora(
                file, self.folder, rank, "diffusers", transformer=True, seed=number, strength=self.strength
            )
            made.append(LoraRef(sha256, file, 1.0))
        return made

    @cached_property
    def device(self) -> Device:
        return choose_device(self.device_name)

    def request(self, number: int, *, mixed: bool = True, steps: int = 0, seed: int | None = None) -> RenderRequest:
        """Of person `number`: two LoRAs with weights of their own."""
        count = len(self.loras)
        first, second = number % count, (number + 1 + number // count) % count
        mix = (replace(self.loras[first], weight=0.5 + 0.05 * number), replace(self.loras[second], weight=0.4))
        return RenderRequest(
            self.ref, f"red heart {number}", "", self.size, self.size, steps or self.steps, 4.0 + number / 4,
            (number if seed is None else seed,), "dpmpp_2m", "trailing", mix if mixed else (),
        )  # fmt: skip

    def load(self) -> LoadedModel:
        self.loras  # noqa: B018 - made before anything is timed
        model = load_model(self.ref, self.device)
        assert isinstance(model, LoadedModel)
        model.residence.enter()
        return model

    def pipeline(self) -> Any:
        """diffusers' own, in the engine's number format."""
        double = (self.folder / "text_encoder_2").is_dir()
        pipe: Any = (StableDiffusionXLPipeline if double else StableDiffusionPipeline).from_pretrained(
            self.folder, dtype=self.device.dtype_for(self.ref.family)
        )
        pipe.to(self.device.kind)
        pipe.set_progress_bar_config(disable=True)
        pipe.scheduler = create_scheduler(dict(pipe.scheduler.config), "dpmpp_2m", "trailing")
        return pipe

    def load_loras(self, pipe: Any, loras: Sequence[LoraRef]) -> None:
        """Into diffusers' pipeline, as adapters that are named by their SHA-256."""
        for lora in loras:
            pipe.load_lora_weights(str(lora.path.parent), weight_name=lora.path.name, adapter_name=lora.sha256)

    def set_mix(self, pipe: Any, request: RenderRequest) -> None:
        """The request's LoRAs, which were loaded before, and no others."""
        pipe.set_adapters([lora.sha256 for lora in request.loras], [lora.weight for lora in request.loras])

    def plain(self, pipe: Any, request: RenderRequest) -> Pixels:
        """The request through diffusers' pipeline; its LoRAs are the caller's to set."""
        image = pipe(
            request.prompt, num_inference_steps=request.steps, guidance_scale=request.guidance, height=self.size,
            width=self.size, generator=torch.Generator().manual_seed(request.seeds[0]), output_type="np",
        ).images[0]  # fmt: skip
        return (image * 255).round().astype(np.int16)

    @contextmanager
    def engine(self) -> Iterator[DiffusersEngine]:
        self.loras  # noqa: B018 - as above
        engine = DiffusersEngine(device=self.device_name, threads=1)
        engine.start()
        try:
            yield engine
        finally:
            engine.close()

    def same(self, ours: Sequence[Pixels], theirs: Sequence[Pixels]) -> bool:
        """Whether all pictures are equal within the bound for the device."""
        pairs = zip(ours, theirs, strict=True)
        if self.device.kind == "cpu":
            return max(int(np.abs(a - b).max()) for a, b in pairs) <= BAR
        return min(psnr(a, b) for a, b in pairs) >= PSNR_BAR


def psnr(one: Pixels, other: Pixels) -> float:
    """dB; infinite where equal."""
    error = float(np.square((one - other).astype(np.float64)).mean())
    return float("inf") if not error else 10 * float(np.log10(255**2 / error))


def render(engine: DiffusersEngine, request: RenderRequest) -> Pixels:
    [picture] = engine.render(request, on_progress=lambda _: None, is_cancelled=lambda: False)
    return picture.pixels.astype(np.int16)


def together(engine: DiffusersEngine, requests: Sequence[RenderRequest]) -> list[Pixels]:
    """Every request from a thread of its own."""
    made: dict[int, Pixels] = {}

    def work(number: int) -> None:
        made[number] = render(engine, requests[number])

    at_once(work, len(requests))
    return [made[number] for number in range(len(requests))]


@contextmanager
def small_subjects() -> Iterator[tuple[Subject, Subject, Subject]]:
    """A tiny model, SDXL's topology at a tenth of its width, the demo model; on the CPU."""
    with tempfile.TemporaryDirectory(prefix="visionsuit-bench-") as name:
        folder = Path(name)
        yield (
            Subject("tiny", make_tiny_sd(folder / "tiny"), folder / "loras"),
            Subject("SDXL topology", make_sdxl_topology(folder / "sdxl"), folder / "loras"),
            Subject("demo", DEMO, folder / "loras"),
        )

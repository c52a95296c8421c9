"""The conflict meter on three LoRAs of rank 32 with SDXL's own shapes: the first answer against reading the files, and
the answer to a moved slider against a frame of a screen.
"""

import tempfile
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from benchmarks.gpu import SDXL_UNET
from benchmarks.harness import Figure, compare, interleave
from visionsuit.engine.base import Family
from visionsuit.engine.change_sizes import measure
from visionsuit.engine.compat import BaseShapes
from visionsuit.engine.conflicts import Weights, meet
from visionsuit.engine.lora_files import module_shapes
from visionsuit.engine.lora_names import Component, ModuleIndex

RANK = 32
FRAME_S = 1 / 60


def run() -> list[Figure]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="visionsuit-bench-") as folder, torch.device("meta"):
        shapes, _ = module_shapes(UNet2DConditionModel(sample_size=128, **SDXL_UNET))
        files = [Path(folder) / f"{number}.safetensors" for number in range(3)]
        with torch.device("cpu"):
            for number, file in enumerate(files):
                _write(file, shapes, number)
            return _figures(files, BaseShapes(Family.SDXL, ModuleIndex({Component.UNET: shapes}), 2048))


def _write(file: Path, shapes: dict[str, tuple[int, ...]], seed: int) -> None:
    """All linear layers of the transformer blocks, as trainers adapt them: 722 of them, fp16."""
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for name, shape in shapes.items():
        if ".attentions." in name and len(shape) == 2:
            stem = f"lora_unet_{name.replace('.', '_')}"
            tensors[f"{stem}.lora_down.weight"] = torch.randn(RANK, shape[1], generator=generator).half()
            tensors[f"{stem}.lora_up.weight"] = torch.randn(shape[0], RANK, generator=generator).half()
            tensors[f"{stem}.alpha"] = torch.tensor(RANK / 2)
    assert len(tensors) == 3 * 722, len(tensors) / 3
    save_file(tensors, file)


def _figures(files: list[Path], base: BaseShapes) -> list[Figure]:
    def ours() -> None:
        measure(files, base)

    def read() -> None:
        for file in files:
            # What it reads is a copy; safetensors' own tensors are not read before they are looked at.
            file.read_bytes()

    first = compare(
        "meter", "conflicts of three SDXL LoRAs of rank 32, first answer / reading the files", ours, read,
        target=3.0, rounds=5,
    )  # fmt: skip
    measured = measure(files, base)
    weights = iter(range(10**9))

    def moved() -> None:
        mix = [Weights(1.0), Weights(0.5 + next(weights) % 100 / 100), Weights(-0.3)]
        meet(mix, measured.changes, measured.products)

    seconds = min(interleave(moved, rounds=15)[0])
    slider = Figure(
        "meter", "the same after a slider moved / a sixtieth of a second", seconds, FRAME_S, "s", seconds / FRAME_S,
        "<= 1", seconds <= FRAME_S,
    )  # fmt: skip
    return [first, slider]

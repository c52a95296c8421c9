"""The conflict meter on three LoRAs of rank 32 with SDXL's own shapes: the first answer against reading the files, and
the answer to a moved slider against a frame of a screen.
"""

import tempfile
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from benchmarks.gpu import SDXL_UNET
from benchmarks.harness import Figure, compare, interleave
from visionsuit.engine.base import Family
from visionsuit.engine.base_shapes import BaseShapes
from visionsuit.engine.change_sizes import measure
from visionsuit.engine.conflicts import Weights, meet
from visionsuit.engine.lora_files import module_shapes
from visionsuit.engine.lora_names import Component, ModuleIndex

RANK = 32
FRAME_S = 1 / 60


def run() -> list[Figure]:
    torch.set_num_threads(1)
    with torch.device("meta"):
        shapes, _ = module_shapes(UNet2DConditionModel(sample_size=128, **SDXL_UNET))
    # Outside of it: torch asks about the device at each call, which slows the side of more and smaller calls.
    with tempfile.TemporaryDirectory(prefix="visionsuit-bench-") as folder:
        files = [Path(folder) / f"{number}.safetensors" for number in range(3)]
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
            for tensor in load_file(file).values():
                # safetensors maps the file: nothing is read before it is looked at. Numbers as wide as may be, since
                # adding up halves would take longer than the reading.
                tensor.reshape(-1).view(torch.int64 if tensor.nbytes % 8 == 0 else torch.uint8).sum()

    first = compare(
        "meter", "conflicts of three SDXL LoRAs of rank 32, first answer / reading the files", ours, read,
        target=3.0, rounds=15, correct=lambda: _is_right(files, base),
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


def _is_right(files: list[Path], base: BaseShapes) -> bool:
    """Sizes and products of every hundredth layer, against those of the whole changes."""
    measured, tensors = measure(files, base), [load_file(file) for file in files]
    layers = sorted(measured.products[0, 1])[::100]
    for component, name in layers:
        stem = f"lora_{component}_{name.replace('.', '_')}"
        whole = [
            (one[f"{stem}.lora_up.weight"].double() @ one[f"{stem}.lora_down.weight"].double()).flatten()
            * (float(one[f"{stem}.alpha"]) / RANK)
            for one in tensors
        ]
        squares = [float(one.dot(one)) for one in whole]
        found = [change.squares[component, name] for change in measured.changes]
        if any(abs(ours / theirs - 1) > 1e-3 for ours, theirs in zip(found, squares, strict=True)):
            return False
        for (a, b), products in measured.products.items():
            off = abs(products[component, name] - float(whole[a].dot(whole[b])))
            if off > 1e-3 * (squares[a] * squares[b]) ** 0.5:
                return False
    return len(layers) > 5

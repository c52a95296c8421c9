"""How LoRAs will get on with each other, from their files alone: where they pull the same weights, and who drowns whom.

    files = {"style": read_matrices(path_a), "face": read_matrices(path_b)}     # once per file, kept by its SHA-256
    meet({"style": 0.8, "face": 0.6}, files)                                    # at every move of a slider

The product of two changes of rank r is that of matrices r by r, so nothing as large as a weight is ever formed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import torch
from safetensors.torch import load_file

from visionsuit.engine.header import read_header, tensors_of
from visionsuit.engine.lora_names import Component, Part, parse_names

#: One in a component's module: (down [r, in], up [out, r]), fp32, alpha / rank inside the up matrix.
Matrices = dict[tuple[Component, str], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class Meeting:
    """Two LoRAs of a mix.

    Attributes:
        overlap: cosine between what they do to the layers both change, in -1..1; 0 is no conflict, 1 the same thing
            twice, -1 one takes away what the other adds.
        balance: size of the first's change / the second's, weights included.
        shared: how much of the smaller change lies in layers both change, in 0..1.
        worst: layers with the largest overlap either way, and what it is there; at most five.
    """

    first: str
    second: str
    overlap: float
    balance: float
    shared: float
    worst: tuple[tuple[str, float], ...]


class Measured:
    """A file's matrices, and their sizes by layer."""

    def __init__(self, matrices: Matrices) -> None:
        self.matrices = matrices
        self.squares = {layer: _dot(pair, pair) for layer, pair in matrices.items()}
        self.square = sum(self.squares.values())


class Products:
    """Products between files, each calculated once: a slider changes weights, which only scale them."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Measured, Measured], dict[tuple[Component, str], float]] = {}

    def of(self, first: Measured, second: Measured) -> dict[tuple[Component, str], float]:
        key = (first, second)
        if key not in self._kept:
            both = first.matrices.keys() & second.matrices.keys()
            self._kept[key] = {
                layer: _dot(first.matrices[layer], second.matrices[layer])
                for layer in both
                if first.matrices[layer][0].shape[1] == second.matrices[layer][0].shape[1]
                and first.matrices[layer][1].shape[0] == second.matrices[layer][1].shape[0]
            }
        return self._kept[key]


def read_matrices(path: Path) -> Measured:
    """The pairs of matrices of a LoRA file, by component and the trainer's name of the layer.

    Two files meet where they name a layer alike: kohya's and diffusers' spelling do, that of SDXL's training code
    (`input_blocks`) meets its own kind alone.

    Raises:
        BadHeader, SafetensorError, OSError: the file cannot be read.
    """
    tensors = load_file(path)
    found: Matrices = {}
    for module in parse_names(tensors_of(read_header(path)))[0]:
        if Part.DOWN not in module.keys or Part.UP not in module.keys:
            continue
        down = tensors[module.keys[Part.DOWN]].float().flatten(1)
        up = tensors[module.keys[Part.UP]].float().flatten(1)
        if Part.ALPHA in module.keys:
            up = up * (float(tensors[module.keys[Part.ALPHA]]) / down.shape[0])
        if down.shape[0] == up.shape[1]:
            found[module.component, module.name.replace(".", "_")] = (down, up)
    return Measured(found)


def meet(
    weights: Mapping[str, float], files: Mapping[str, Measured], products: Products | None = None
) -> list[Meeting]:
    """Every two LoRAs of a mix, the worst conflict first. `weights` and `files` by the same names."""
    products = products or Products()
    met = [
        _meet(first, second, weights, files, products)
        for first, second in combinations((name for name, weight in weights.items() if weight), 2)
    ]
    return sorted(met, key=lambda one: -abs(one.overlap) * one.shared)


def _meet(
    first: str, second: str, weights: Mapping[str, float], files: Mapping[str, Measured], products: Products
) -> Meeting:
    one, two, sign = files[first], files[second], 1.0 if weights[first] * weights[second] > 0 else -1.0
    dots = products.of(one, two)
    mine, theirs = sum(one.squares[layer] for layer in dots), sum(two.squares[layer] for layer in dots)
    cosines = {
        layer: sign * _ratio(dot, (one.squares[layer] * two.squares[layer]) ** 0.5) for layer, dot in dots.items()
    }
    worst = sorted(cosines.items(), key=lambda entry: -abs(entry[1]))[:5]
    sizes = abs(weights[first]) * one.square**0.5, abs(weights[second]) * two.square**0.5
    smaller = (mine, one.square) if sizes[0] < sizes[1] else (theirs, two.square)
    return Meeting(
        first,
        second,
        overlap=sign * _ratio(sum(dots.values()), (mine * theirs) ** 0.5),
        balance=_ratio(*sizes),
        shared=_ratio(*smaller),
        worst=tuple((f"{component}.{name}", cosine) for (component, name), cosine in worst),
    )


def _dot(one: tuple[torch.Tensor, torch.Tensor], two: tuple[torch.Tensor, torch.Tensor]) -> float:
    """Sum of the elementwise product of up @ down of both."""
    return float(((one[1].t() @ two[1]) * (one[0] @ two[0].t())).sum())


def _ratio(dividend: float, divisor: float) -> float:
    return dividend / divisor if divisor > 0 else 0.0

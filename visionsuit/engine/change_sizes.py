"""Sizes and products of what LoRA files do, layer by layer, for conflicts.py.

The product of two changes of rank r is that of matrices r by r, so nothing as large as a weight is formed; but for
LoHa, LoKr and full differences, which are. A DoRA counts as the pair it holds: what its magnitude does depends on the
base model's weights, which are not read.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from visionsuit.engine.base import LoraUnloadable
from visionsuit.engine.change_shapes import PRODUCTS
from visionsuit.engine.compat import BaseShapes
from visionsuit.engine.conflicts import Change, Layer
from visionsuit.engine.header import BadHeader, read_header, tensors_of
from visionsuit.engine.lora_files import adapter_configs, read_pair, read_product
from visionsuit.engine.lora_names import LoraModule, Part, parse_names


@dataclass(frozen=True, slots=True)
class Measured:
    """`changes` one a file; `products` by the numbers of two files, the smaller one first."""

    changes: list[Change]
    products: dict[tuple[int, int], dict[Layer, float]]


@dataclass(frozen=True, slots=True)
class _Matrices:
    """A change of [out, in * kernel]: `up` [out, r] @ `down` [r, in * kernel], or `up` alone."""

    up: torch.Tensor
    down: torch.Tensor | None

    def dot(self, other: "_Matrices") -> float:
        if self.down is not None and other.down is not None:
            return float(((self.up.t() @ other.up) * (self.down @ other.down.t())).sum())
        if self.down is None and other.down is None:
            return float((self.up * other.up).sum())
        whole, pair = (self, other) if self.down is None else (other, self)
        assert pair.down is not None
        return float(((pair.up.t() @ whole.up) * pair.down).sum())


class _File:
    """A LoRA file, its tensors still on the disk as far as the system likes."""

    def __init__(self, path: Path, base: BaseShapes) -> None:
        try:
            header = read_header(path)
            self._tensors = load_file(path)
        except (BadHeader, SafetensorError, OSError) as error:
            raise LoraUnloadable(f"{path.name} cannot be read: {error}") from error
        self._base = base
        self._configs = adapter_configs(header, base)
        self.modules: dict[Layer, LoraModule] = {}
        for module in parse_names(tensors_of(header))[0]:
            name = base.index.find(module)
            if name is not None and (Part.DOWN in module.keys or any(part in module.keys for part in PRODUCTS)):
                self.modules[module.component, name] = module

    def matrices(self, layer: Layer) -> _Matrices | None:
        component, name = layer
        module = self.modules[layer]
        shape = self._base.index.shapes[component][name]
        product = next((part for part in PRODUCTS if part in module.keys), None)
        if product is None:
            down, up = read_pair(module, name, self._tensors, shape, self._configs[component], "The file")
            return _Matrices(up.flatten(1), down.flatten(1))
        change = read_product(module, product, name, self._tensors, "The file")
        return None if change is None else _Matrices(change.delta(torch.empty(shape), 1.0).flatten(1), None)


def measure(paths: Sequence[Path], base: BaseShapes, *, pairs: Collection[tuple[int, int]] | None = None) -> Measured:
    """Sizes of all files and products of `pairs` of them, by their numbers; of all pairs without it.

    Raises:
        LoraUnloadable: a file cannot be read, or is none that `check_lora` lets pass.
    """
    files = [_File(path, base) for path in paths]
    numbers = range(len(files))
    wanted = {(a, b) for a in numbers for b in numbers if a < b} if pairs is None else set(pairs)
    squares: list[dict[Layer, float]] = [{} for _ in files]
    products: dict[tuple[int, int], dict[Layer, float]] = {pair: {} for pair in wanted}
    # Layer by layer: each matrix is read and widened once, and only one layer's are held.
    for layer in dict.fromkeys(layer for file in files for layer in file.modules):
        held: dict[int, _Matrices] = {}
        for number, file in enumerate(files):
            try:
                matrices = file.matrices(layer) if layer in file.modules else None
            except (RuntimeError, IndexError) as error:
                # Whatever torch says of matrices that cannot be put together.
                raise LoraUnloadable(f"{paths[number].name} cannot be measured at {layer[1]}.") from error
            if matrices is not None:
                held[number] = matrices
        for number, matrices in held.items():
            squares[number][layer] = matrices.dot(matrices)
            if not isfinite(squares[number][layer]):
                raise LoraUnloadable(f"{paths[number].name} holds values that are no numbers (NaN or infinity).")
        for first, second in wanted:
            if first in held and second in held:
                products[first, second][layer] = held[first].dot(held[second])
    return Measured([Change(one) for one in squares], products)

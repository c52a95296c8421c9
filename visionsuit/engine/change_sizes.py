"""Sizes and products of what LoRA files do, layer by layer, for conflicts.py.

The product of two changes of rank r is that of matrices r by r, so nothing as large as a weight is formed; but for
LoHa, LoKr and full differences, which are. What depends on the base model's weights, which are not read, is not
counted: a DoRA's magnitudes, and an OFT whole.
"""

from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations
from math import isfinite, prod
from pathlib import Path

import torch

from visionsuit.engine.base import LoraUnloadable
from visionsuit.engine.base_shapes import BaseShapes
from visionsuit.engine.change_products import LayerProducts
from visionsuit.engine.change_shapes import PRODUCTS
from visionsuit.engine.conflicts import Change, Layer
from visionsuit.engine.flux_names import Rows
from visionsuit.engine.header import BadHeader
from visionsuit.engine.lora_files import RawPair, adapter_configs, read_matrices
from visionsuit.engine.lora_names import LoraModule, Part, Shape, parse_names
from visionsuit.engine.tensor_file import TensorPieces

#: Room for one layer's matrices: thirty files of rank 128 on the largest layer of SDXL.
MOST_BYTES = 256 * 2**20
_BIAS = ".bias"


@dataclass(frozen=True, slots=True)
class Measured:
    """`changes` one a file; `products` by the numbers of two files, the smaller one first."""

    changes: list[Change]
    products: dict[tuple[int, int], dict[Layer, float]]


class _File:
    """A LoRA file, its tensors still on the disk."""

    def __init__(self, path: Path, tensors: TensorPieces, base: BaseShapes) -> None:
        self.name = path.name
        self._tensors = tensors
        self._shapes = base.index.shapes
        self._configs = adapter_configs(tensors.header, base)
        self.modules: dict[Layer, LoraModule] = {}
        #: Of layers that are several in the base model: the name of the whole, and which rows of it are theirs.
        self._parts: dict[Layer, tuple[str, Rows]] = {}
        self.is_partial = False
        for module in parse_names(tensors)[0]:
            name = base.index.find(module)
            if name is None:
                continue
            if Part.DOWN in module.keys or any(part in module.keys for part in PRODUCTS):
                for component, share in base.places(module.component, name):
                    self.modules[component, share.name] = module
                    if name in base.shares:
                        self._parts[component, share.name] = name, share.rows
            if Part.BIAS in module.keys:
                self.modules[module.component, name + _BIAS] = module
            self.is_partial = self.is_partial or Part.OFT in module.keys or Part.DORA in module.keys

    def size(self, layer: Layer) -> int:
        """Bytes of the layer's matrices, as fp32."""
        keys = self.modules[layer].keys
        shape = self._shape(layer)
        if Part.UP not in keys or any(part in keys for part in PRODUCTS):
            return 4 * prod(shape)
        # A Tucker form's down comes out with the rank of its up.
        rank = max(self._tensors.tensors[keys[Part.UP]].shape[1:2], default=0)
        return 4 * rank * (shape[0] + prod(shape[1:]))

    def matrices(self, layer: Layer) -> RawPair | torch.Tensor | None:
        """The change of a layer as a pair of two dimensions each, or whole; None where there is none."""
        module, shape = self.modules[layer], self._shape(layer)
        name, rows = self._parts.get(layer, (layer[1], None))
        if len(shape) == 1:
            return self._tensors[module.keys[Part.BIAS]].to(torch.float32).reshape(shape)
        found = read_matrices(module, name, self._tensors, self._configs[layer[0]], self.name)
        if found is None:
            return None
        whole = self._shapes[layer[0]][name]
        if not isinstance(found, RawPair):
            change = found.delta(torch.empty(whole), 1.0).flatten(1)
            return change if rows is None else torch.cat([change[first:end] for first, end in rows])
        rank, outputs = found.down.shape[0], whole[0]
        down, up = found.down.reshape(rank, prod(shape[1:])), found.up.reshape(outputs, rank)
        if rows is not None:
            up = torch.cat([up[first:end] for first, end in rows])
        return RawPair(down, up, found.scale) if rank else None

    def _shape(self, layer: Layer) -> Shape:
        component, name = layer
        modules = self._shapes[component]
        return modules[name] if name in modules else modules[name.removesuffix(_BIAS)][:1]


def measure(
    paths: Sequence[Path],
    base: BaseShapes,
    *,
    pairs: Collection[tuple[int, int]] | None = None,
    most_bytes: int = MOST_BYTES,
) -> Measured:
    """Sizes of all files and products of `pairs` of them, by their numbers; of all pairs without it.

    Args:
        most_bytes: of one layer's matrices as fp32; where all files' are more, they are taken two by two.

    Raises:
        LoraUnloadable: a file cannot be read, or is none that `check_lora` lets pass.
    """
    numbers = range(len(paths))
    wanted = frozenset(combinations(numbers, 2) if pairs is None else pairs)
    squares: list[dict[Layer, float]] = [{} for _ in numbers]
    products: dict[tuple[int, int], dict[Layer, float]] = {pair: {} for pair in wanted}
    calculate = LayerProducts(wanted).of
    with ExitStack() as stack:
        files = [_open(path, base, stack) for path in paths]
        # Layer by layer: each matrix is read once, and only one layer's are held.
        for layer in dict.fromkeys(layer for file in files for layer in file.modules):
            having = [number for number in numbers if layer in files[number].modules]
            is_much = sum(files[number].size(layer) for number in having) > most_bytes
            for group in _two_by_two(having, wanted) if is_much else [having]:
                held = _read(files, group, layer)
                for (a, b), dot in calculate(held).items():
                    (squares[a] if a == b else products[a, b])[layer] = dot
                if not all(isfinite(squares[number][layer]) for number in held):
                    # One's are in the sums of all.
                    bad = next((n for n, one in held.items() if not isfinite(calculate({n: one})[n, n])), group[0])
                    raise LoraUnloadable(f"{files[bad].name} holds values that are no numbers (NaN or infinity).")
    changes = [Change(own, file.is_partial) for own, file in zip(squares, files, strict=True)]
    return Measured(changes, products)


def _open(path: Path, base: BaseShapes, stack: ExitStack) -> _File:
    try:
        return _File(path, stack.enter_context(TensorPieces(path)), base)
    except (BadHeader, OSError) as error:
        raise LoraUnloadable(f"{path.name} cannot be read: {error}") from error


def _two_by_two(having: Sequence[int], wanted: Collection[tuple[int, int]]) -> list[Sequence[int]]:
    return [*([number] for number in having), *(pair for pair in combinations(having, 2) if pair in wanted)]


def _read(files: Sequence[_File], numbers: Iterable[int], layer: Layer) -> dict[int, RawPair | torch.Tensor]:
    held: dict[int, RawPair | torch.Tensor] = {}
    for number in numbers:
        try:
            matrices = files[number].matrices(layer)
        except (RuntimeError, LookupError, BadHeader, OSError) as error:
            # Whatever torch says of matrices that cannot be put together, or of a file that is not what it was.
            raise LoraUnloadable(f"{files[number].name} cannot be measured at {layer[1]}.") from error
        if matrices is not None:
            held[number] = matrices
    return held

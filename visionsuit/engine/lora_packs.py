"""LoRA files as the batch needs them: one stack of matrices per weight shape, kept in host memory by SHA-256.

A large model has hundreds of adapted layers but few shapes, and applying a LoRA costs Python calls rather than bytes;
stacked, a whole LoRA is copied in as many calls as there are shapes.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from visionsuit.engine.base import LoraRef, LoraUnloadable, OutOfDeviceMemory
from visionsuit.engine.base_shapes import BaseShapes
from visionsuit.engine.changes import Change
from visionsuit.engine.devices import is_out_of_memory
from visionsuit.engine.lora_files import LoraFile, module_shapes, read_lora
from visionsuit.engine.lora_names import Component, Shape

#: (sha256, strength) of each LoRA of a mix in one component, in the order of the mix; strengths are never 0.
MixKey = tuple[tuple[str, float], ...]


class Layout:
    """Which layers of a bare module have which weight shape: [out, in], or [out, in, kernel, kernel]."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.shapes, self.real_names = module_shapes(module)
        self.groups: dict[Shape, list[str]] = {}
        self.places: dict[str, tuple[Shape, int]] = {}
        for name, shape in self.shapes.items():
            names = self.groups.setdefault(shape, [])
            self.places[name] = (shape, len(names))
            names.append(name)


@dataclass(frozen=True, slots=True)
class Stack:
    """A LoRA's matrices for all layers of one shape.

    Attributes:
        layers: int64 [l], which layers of the group; `whole` when it is all of them in order.
        down: [l, rank, in * kernel] in the module's number format.
        up: [l, rank, out] fp32 with alpha / rank inside; the strength of a mix comes on top of it before any rounding.
    """

    layers: torch.Tensor
    down: torch.Tensor
    up: torch.Tensor
    whole: bool

    @property
    def rank(self) -> int:
        return self.down.shape[1]


@dataclass(frozen=True, slots=True)
class Pack:
    """One LoRA file, parsed for one base model."""

    parts: dict[Component, dict[Shape, Stack]]
    changes: dict[Component, dict[str, Change]]
    bytes: int
    biases: dict[Component, dict[str, torch.Tensor]] = field(default_factory=dict)

    @property
    def components(self) -> set[Component]:
        return {*self.parts, *self.changes, *self.biases}


#: The LoRAs of one mix in one component, in the order of the mix: (stacks by shape, strength).
Parts = list[tuple[dict[Shape, Stack], float]]


@dataclass(frozen=True, slots=True)
class Mix:
    """What the LoRAs of a request do to one component; `changes` and `biases` by module name, with their strengths."""

    key: MixKey = ()
    parts: Parts = field(default_factory=list)
    changes: list[tuple[dict[str, Change], float]] = field(default_factory=list)
    biases: list[tuple[dict[str, torch.Tensor], float]] = field(default_factory=list)


def mix_key(loras: Sequence[LoraRef], *, text: bool) -> MixKey:
    """Strengths per file; the same file named twice counts with the sum, strength 0 not at all."""
    merged: dict[str, float] = {}
    for lora in loras:
        unset = lora.text_encoder_weight is None
        weight = lora.weight if not text or unset else float(lora.text_encoder_weight or 0.0)
        merged[lora.sha256.lower()] = merged.get(lora.sha256.lower(), 0.0) + weight
    return tuple((sha256, weight) for sha256, weight in merged.items() if weight)


def mix_of(packs: Mapping[str, Pack], key: MixKey, component: Component) -> Mix:
    """Of one component; LoRAs that leave it alone are not in its key."""
    own = tuple((sha256, weight) for sha256, weight in key if component in packs[sha256].components)
    return Mix(
        own,
        [(packs[sha256].parts[component], weight) for sha256, weight in own if component in packs[sha256].parts],
        [(packs[sha256].changes[component], weight) for sha256, weight in own if component in packs[sha256].changes],
        [(packs[sha256].biases[component], weight) for sha256, weight in own if component in packs[sha256].biases],
    )


def pack(file: LoraFile, layouts: Mapping[Component, Layout], dtype: torch.dtype) -> Pack:
    """Stack a LoRA's matrices by shape; ranks that differ inside a shape are padded with zeros, which is exact.

    Raises:
        LoraUnloadable: values that are no numbers, also those too large for `dtype`.
    """
    parts: dict[Component, dict[Shape, Stack]] = {}
    for component, layers in file.pairs.items():
        layout = layouts[component]
        grouped: dict[Shape, list[tuple[int, torch.Tensor, torch.Tensor]]] = {}
        for name, (down, up) in layers.items():
            shape, place = layout.places[name]
            grouped.setdefault(shape, []).append((place, down.flatten(1), up.flatten(1).t()))
        parts[component] = {
            shape: _stack(members, len(layout.groups[shape]), dtype) for shape, members in grouped.items()
        }
    matrices = [m for stacks in parts.values() for stack in stacks.values() for m in (stack.down, stack.up)]
    # A sum is finite only where all it adds up are; one pass, and no tensor of answers.
    if not all(math.isfinite(float(matrix.sum(dtype=torch.float64))) for matrix in matrices):
        raise LoraUnloadable("The LoRA holds values that are no numbers (NaN or infinity).")
    size = sum(matrix.numel() * matrix.element_size() for matrix in matrices)
    size += sum(change.bytes for changes in file.changes.values() for change in changes.values())
    return Pack(parts, file.changes, size, file.biases)


def _stack(members: list[tuple[int, torch.Tensor, torch.Tensor]], in_group: int, dtype: torch.dtype) -> Stack:
    members.sort(key=lambda member: member[0])
    rank = max(down.shape[0] for _, down, _ in members)
    downs = torch.zeros(len(members), rank, members[0][1].shape[1], dtype=dtype)
    ups = torch.zeros(len(members), rank, members[0][2].shape[1], dtype=torch.float32)
    for number, (_, down, up) in enumerate(members):
        downs[number, : down.shape[0]] = down
        ups[number, : up.shape[0]] = up
    layers = torch.tensor([place for place, _, _ in members], dtype=torch.int64)
    return Stack(layers, downs, ups, whole=len(members) == in_group)


class PackCache:
    """Parsed LoRAs of one base model, least recently used dropped first. Any thread may ask.

    Args:
        base: the model as LoRAs see it.
        budget_bytes: of host memory; a LoRA in use stays alive with whoever uses it.
    """

    def __init__(
        self, base: BaseShapes, layouts: Mapping[Component, Layout], dtype: torch.dtype, budget_bytes: int
    ) -> None:
        self._base = base
        self._layouts = layouts
        self._dtype = dtype
        self._budget_bytes = budget_bytes
        self._packs: OrderedDict[str, Pack] = OrderedDict()
        self._lock = threading.Lock()
        #: One reader per file; the others wait for its result.
        self._gates: dict[str, threading.Lock] = {}
        self.loads = 0

    def __len__(self) -> int:
        return len(self._packs)

    @property
    def bytes(self) -> int:
        with self._lock:
            return sum(pack.bytes for pack in self._packs.values())

    def get(self, lora: LoraRef) -> Pack:
        """Raises: LoraUnloadable, OutOfDeviceMemory."""
        sha256 = lora.sha256.lower()
        found = self._find(sha256)
        if found is not None:
            return found
        with self._lock:
            gate = self._gates.setdefault(sha256, threading.Lock())
        with gate:
            found = self._find(sha256)
            if found is None:
                found = self._read(lora)
                self._keep(sha256, found)
        with self._lock:
            self._gates.pop(sha256, None)
        return found

    def find(self, loras: Sequence[LoraRef]) -> dict[str, Pack] | None:
        """By SHA-256, if all are in memory."""
        found = {lora.sha256.lower(): self._find(lora.sha256.lower()) for lora in loras}
        kept = {sha256: one for sha256, one in found.items() if one is not None}
        return kept if len(kept) == len(found) else None

    def clear(self) -> None:
        with self._lock:
            self._packs.clear()

    def _find(self, sha256: str) -> Pack | None:
        with self._lock:
            found = self._packs.get(sha256)
            if found is not None:
                self._packs.move_to_end(sha256)
            return found

    def _read(self, lora: LoraRef) -> Pack:
        label = lora.name or lora.path.name
        try:
            return self._parse(lora)
        except LoraUnloadable:
            raise
        except Exception as error:  # whatever a file makes the libraries say, the person needs a sentence
            if is_out_of_memory(error):
                raise OutOfDeviceMemory(f"There is not enough memory to read {label}.") from error
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise LoraUnloadable(f"{label} cannot be applied: {reason[:300]}") from error

    def _parse(self, lora: LoraRef) -> Pack:
        return pack(read_lora(lora, self._base), self._layouts, self._dtype)

    def _keep(self, sha256: str, found: Pack) -> None:
        with self._lock:
            self.loads += 1
            self._packs[sha256] = found
            kept = sum(pack.bytes for pack in self._packs.values())
            while kept > self._budget_bytes and len(self._packs) > 1:
                _, dropped = self._packs.popitem(last=False)
                kept -= dropped.bytes

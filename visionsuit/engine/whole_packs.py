"""LoRA files as diffusers' loaders take them, whatever trainer wrote them, and beside it what these do not take."""

from collections.abc import Collection
from dataclasses import dataclass, field

import torch

from visionsuit.engine.base import LoraRef, LoraUnloadable
from visionsuit.engine.changes import Change, Pair
from visionsuit.engine.compat import BaseShapes
from visionsuit.engine.lora_files import read_checked, read_file
from visionsuit.engine.lora_names import Component
from visionsuit.engine.lora_packs import Pack, PackCache
from visionsuit.engine.tensor_file import TensorFile


@dataclass(frozen=True, slots=True)
class AdapterPack(Pack):
    """One LoRA file. `tensors` are under diffusers' names, `transformer.<module>.lora_A.weight` and the like, alpha
    folded in."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def components(self) -> set[Component]:
        return {*self.adapted, *self.changes, *self.biases}

    @property
    def adapted(self) -> set[Component]:
        """Components that `tensors` are of."""
        return {Component(name.partition(".")[0]) for name in self.tensors}


class AdapterPacks(PackCache):
    """Of one pipeline.

    Args:
        loaded: components whose pairs of matrices diffusers' loader takes; those of others are changes like any.
    """

    def __init__(self, base: BaseShapes, loaded: Collection[Component], dtype: torch.dtype, budget_bytes: int) -> None:
        super().__init__(base, {}, dtype, budget_bytes)
        self._loaded = loaded

    @property
    def base(self) -> BaseShapes:
        return self._base

    def _parse(self, lora: LoraRef) -> AdapterPack:
        return read_checked(lora, lambda file, label: read_adapter(file, self._base, self._loaded, self._dtype, label))


def read_adapter(
    file: TensorFile, base: BaseShapes, loaded: Collection[Component], dtype: torch.dtype, label: str
) -> AdapterPack:
    """
    Args:
        loaded: as of `AdapterPacks`.

    Raises:
        IncompatibleLora: it was made for another model.
        LoraUnloadable: values that are no numbers, also those too large for `dtype`.
    """
    found = read_file(file, base, label)
    tensors: dict[str, torch.Tensor] = {}
    changes: dict[Component, dict[str, Change]] = {}
    biases: dict[Component, dict[str, torch.Tensor]] = {}
    for spoken, own in found.changes.items():
        changes.setdefault(base.component(spoken), {}).update(own)
    for spoken, offsets in found.biases.items():
        biases.setdefault(base.component(spoken), {}).update(offsets)
    for spoken, pairs in found.pairs.items():
        component = base.component(spoken)
        held = dtype if component in loaded else torch.float32
        # One by one, so that what has been read is not held twice.
        for name in list(pairs):
            # Copies, since what is kept must not keep the whole file.
            down, up = (matrix.to(held, copy=True) for matrix in pairs.pop(name))
            if not (down.isfinite().all() and up.isfinite().all()):
                raise LoraUnloadable(f"{label} holds values that are no numbers (NaN or infinity) at {name}.")
            if component not in loaded:
                changes.setdefault(component, {})[name] = Pair(down.flatten(1), up.flatten(1))
                continue
            for place, share in base.places(component, name):
                stem = f"{place}.{_spelled(place, share.name)}"
                tensors[f"{stem}.lora_A.weight"] = down
                tensors[f"{stem}.lora_B.weight"] = torch.cat([up[first:end] for first, end in share.rows])
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    size += sum(change.bytes for own in changes.values() for change in own.values())
    return AdapterPack({}, changes, size, biases, tensors)


def _spelled(component: Component, name: str) -> str:
    # As older releases of transformers call it; diffusers knows both.
    return f"text_model.{name}" if component is Component.TEXT_ENCODER else name

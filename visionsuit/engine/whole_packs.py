"""LoRA files as diffusers' loaders take them, whatever trainer wrote them."""

from dataclasses import dataclass, field

import torch

from visionsuit.engine.base import LoraRef, LoraUnloadable
from visionsuit.engine.compat import BaseShapes, check_lora
from visionsuit.engine.lora_files import RawPair, adapter_configs, read_checked, read_matrices
from visionsuit.engine.lora_names import Component
from visionsuit.engine.lora_packs import Pack, PackCache
from visionsuit.engine.tensor_file import TensorFile


@dataclass(frozen=True, slots=True)
class AdapterPack(Pack):
    """One LoRA file under diffusers' names, `transformer.<module>.lora_A.weight` and the like, alpha folded in."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def components(self) -> set[Component]:
        return {Component(name.partition(".")[0]) for name in self.tensors}


class AdapterPacks(PackCache):
    """Of one pipeline."""

    def __init__(self, base: BaseShapes, dtype: torch.dtype, budget_bytes: int) -> None:
        super().__init__(base, {}, dtype, budget_bytes)

    def _parse(self, lora: LoraRef) -> AdapterPack:
        return read_checked(lora, lambda file, label: read_adapter(file, self._base, self._dtype, label))


def read_adapter(file: TensorFile, base: BaseShapes, dtype: torch.dtype, label: str) -> AdapterPack:
    """
    Raises:
        IncompatibleLora: it was made for another model, or is of a kind that diffusers does not load.
        LoraUnloadable: values that are no numbers, also those too large for `dtype`.
    """
    fit, configs = check_lora(file.tensors, base), adapter_configs(file.header, base)
    tensors: dict[str, torch.Tensor] = {}
    for module, name in fit.fitting:
        pair = read_matrices(module, name, file, configs[module.component], label)
        if not isinstance(pair, RawPair):
            continue
        shape = base.index.shapes[module.component][name]
        # Copies, since what is kept must not keep the whole file.
        down, up = (matrix.to(dtype, copy=True) for matrix in pair.widened(shape))
        if not (down.isfinite().all() and up.isfinite().all()):
            raise LoraUnloadable(f"{label} holds values that are no numbers (NaN or infinity) at {name}.")
        for component, share in base.places(module.component, name):
            stem = f"{component}.{_spelled(component, share.name)}"
            tensors[f"{stem}.lora_A.weight"] = down
            tensors[f"{stem}.lora_B.weight"] = torch.cat([up[first:end] for first, end in share.rows])
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    return AdapterPack({}, {}, size, {}, tensors)


def _spelled(component: Component, name: str) -> str:
    # As older releases of transformers call it; diffusers knows both.
    return f"text_model.{name}" if component is Component.TEXT_ENCODER else name

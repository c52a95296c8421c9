"""Changes of weights that diffusers' loaders do not take: there for as long as one picture is rendered."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from visionsuit.engine.base import LoraUnloadable
from visionsuit.engine.base_shapes import BaseShapes
from visionsuit.engine.changes import Change
from visionsuit.engine.devices import Device
from visionsuit.engine.flux_names import Share
from visionsuit.engine.lora_files import module_shapes
from visionsuit.engine.lora_names import Component
from visionsuit.engine.lora_packs import Mix

#: Of the device's free memory, what originals may take beside the changed weights; a picture needs the rest.
_SHARE_OF_FREE = 0.5


class ChangedWeights:
    """Of one pipeline, whose own weights come back bit for bit, since they are kept and not calculated.

    Args:
        modules: before anything is put into them.
    """

    def __init__(self, label: str, modules: Mapping[Component, Any], base: BaseShapes, device: Device) -> None:
        self._label = label
        self._base = base
        self._device = device
        self._layers: dict[Component, dict[str, Any]] = {
            component: {name: module.get_submodule(real) for name, real in module_shapes(module)[1].items()}
            for component, module in modules.items()
        }

    @contextmanager
    def under(self, mixes: Mapping[Component, Mix]) -> Iterator[None]:
        """The layers compute with what these mixes make of them.

        Raises:
            LoraUnloadable: one of them is no layer that could be changed.
        """
        with ExitStack() as stack:
            with torch.no_grad():
                originals = _Originals(stack, self._device, in_host_memory=not self._has_room(mixes))
                for component, mix in mixes.items():
                    for changes, strength in mix.changes:
                        for name, change in changes.items():
                            self._change_weight(originals, self._places(component, name), change, strength)
                    for biases, strength in mix.biases:
                        for name, bias in biases.items():
                            self._change_bias(originals, self._places(component, name), bias * strength)
            yield

    def _places(self, component: Component, name: str) -> list[tuple[Any, Share]]:
        """The layers that a name means, each with the rows that are its own."""
        try:
            return [(self._layers[place][share.name], share) for place, share in self._base.places(component, name)]
        except KeyError:
            raise LoraUnloadable(f"{self._label} has no layer {name} that a LoRA could change.") from None

    def _has_room(self, mixes: Mapping[Component, Mix]) -> bool:
        if not self._device.has_own_memory:
            return True
        layers = {
            id(layer): layer
            for component, mix in mixes.items()
            for changes, _ in mix.changes
            for name in changes
            for layer, _ in self._places(component, name)
        }
        needed = sum(layer.weight.numel() * layer.weight.element_size() for layer in layers.values())
        return not needed or needed < self._device.free_memory() * _SHARE_OF_FREE

    def _change_weight(
        self, originals: "_Originals", places: list[tuple[Any, Share]], change: Change, strength: float
    ) -> None:
        on_device = self._device.torch_device
        rows: dict[int, torch.Tensor] = {}
        for layer, share in places:
            # Always of the original, whatever else is added to it.
            weight = originals.of(layer, "weight").to(on_device).flatten(1).float()
            sizes = [end - first for first, end in share.rows]
            rows |= {first: part for (first, _), part in zip(share.rows, weight.split(sizes), strict=True)}
        delta = change.delta(torch.cat([rows[first] for first in sorted(rows)]), strength)
        for layer, share in places:
            own = torch.cat([delta[first:end] for first, end in share.rows]).view(layer.weight.shape)
            # In fp32 before the cast, so that half precision rounds once.
            weight = layer.weight.data
            weight = own.add_(weight.to(on_device)).to(weight.device, weight.dtype)
            layer.weight.data = weight

    def _change_bias(self, originals: "_Originals", places: list[tuple[Any, Share]], bias: torch.Tensor) -> None:
        for layer, share in places:
            own = torch.cat([bias[first:end] for first, end in share.rows])
            weight = layer.weight.data
            if layer.bias is None:
                originals.without_bias(layer)
                layer.bias = torch.nn.Parameter(own.to(weight.device, weight.dtype), requires_grad=False)
            else:
                originals.of(layer, "bias")
                layer.bias.data = own.to(weight.device).add_(layer.bias.data).to(layer.bias.dtype)


class _Originals:
    """What is put back when `stack` is closed."""

    def __init__(self, stack: ExitStack, device: Device, *, in_host_memory: bool) -> None:
        self._stack = stack
        self._device = device
        self._in_host_memory = in_host_memory
        self._kept: dict[int, torch.Tensor] = {}

    def of(self, layer: Any, part: str) -> torch.Tensor:
        """A parameter's value, kept from the first asking on."""
        parameter = getattr(layer, part)
        kept = self._kept.get(id(parameter))
        if kept is None:
            kept = parameter.data
            if self._in_host_memory and kept.device.type == self._device.kind:
                kept = self._device.fetch(kept, pinned=False)
            self._kept[id(parameter)] = kept
            self._stack.callback(_put_back, parameter, kept)
        return kept

    def without_bias(self, layer: Any) -> None:
        self._stack.callback(setattr, layer, "bias", None)


def _put_back(parameter: torch.Tensor, kept: torch.Tensor) -> None:
    if parameter.device == kept.device:
        parameter.data = kept
    else:
        parameter.data.copy_(kept)

"""LoRAs inside a loaded base model: PEFT adapters, kept by the SHA-256 of their file, switched per render.

An adapter is never merged into the weights, so a render without LoRAs is bit-equal however many were used before.
Every spelling is turned into plain pairs of matrices whose `alpha / rank` is folded into the up matrix; PEFT then
sees alpha = rank everywhere.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora.layer import Conv2d, Linear

from visionsuit.engine.base import Family, LoraRef, LoraUnloadable
from visionsuit.engine.compat import BaseShapes
from visionsuit.engine.devices import is_out_of_memory
from visionsuit.engine.lora_files import Pairs, module_shapes, read_pairs
from visionsuit.engine.lora_names import Component, ModuleIndex, Shape

#: A whole mix must fit; more than this and switching walks too many layers.
MAX_ADAPTERS = 32
#: Scale 1, no dropout, no random numbers drawn.
_PLAIN = LoraConfig(init_lora_weights=False, inference_mode=True)


class AdapterCache:
    """The adapters of one base model.

    Args:
        modules: the bare (not yet adapted) UNet and text encoders.
        budget_bytes: adapters beyond the running mix are dropped past this, least recently used first.
    """

    def __init__(self, family: Family, modules: Mapping[Component, Any], budget_bytes: int) -> None:
        self._modules = dict(modules)
        self._budget_bytes = budget_bytes
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._parts: dict[str, frozenset[Component]] = {}
        #: Wrapped layers by their name in the module.
        self._layers: dict[Component, dict[str, Any]] = {component: {} for component in modules}
        #: None while it is not known, after a mix that failed half-way.
        self._current: tuple[tuple[str, float, float], ...] | None = ()
        # Asked of a module, its dtype is found by walking all of it.
        self._weight_bytes = modules[Component.UNET].dtype.itemsize
        self.loads = 0
        shapes: dict[Component, dict[str, Shape]] = {}
        self._real_names: dict[Component, dict[str, str]] = {}
        for component, module in modules.items():
            shapes[component], self._real_names[component] = module_shapes(module)
        width = modules[Component.UNET].config.cross_attention_dim
        self._base = BaseShapes(family, ModuleIndex(shapes), width if isinstance(width, int) else None)

    @property
    def bytes(self) -> int:
        return sum(self._sizes.values())

    @property
    def hashes(self) -> tuple[str, ...]:
        """Kept adapters, least recently used first."""
        return tuple(self._sizes)

    def activate(self, loras: Sequence[LoraRef]) -> None:
        """Make exactly this mix effective. The same file named twice counts with the sum of its weights.

        Raises:
            LoraUnloadable: one of them cannot be used; `activate` again before rendering.
        """
        mix = _merge(loras)
        if mix == self._current:
            for sha256, _, _ in mix:
                self._sizes.move_to_end(sha256)
            return
        self._current = None
        for lora in loras:
            if _key(lora) not in self._sizes:
                self._load(lora)
            self._sizes.move_to_end(_key(lora))
        self._evict(keep={sha256 for sha256, _, _ in mix})
        for component in self._modules:
            in_text = component is not Component.UNET
            weights = [(sha256, text if in_text else unet) for sha256, unet, text in mix]
            self._set(
                component,
                [(sha256, weight) for sha256, weight in weights if weight and component in self._parts[sha256]],
            )
        self._current = mix

    def clear(self) -> None:
        """Drop every adapter and the wrappers around the base layers."""
        self._current = ()
        for sha256 in list(self._sizes):
            self._drop(sha256)

    def _load(self, lora: LoraRef) -> None:
        sha256 = _key(lora)
        pairs = read_pairs(lora, self._base)
        try:
            for component, layers in pairs.items():
                self._inject(component, sha256, layers)
        except Exception as error:  # whatever PEFT says to a file, the base model has to be whole again
            self._parts[sha256] = frozenset(pairs)
            self._drop(sha256)
            if is_out_of_memory(error):
                raise
            reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
            raise LoraUnloadable(f"{lora.name or lora.path.name} cannot be applied: {reason[0][:300]}") from error
        self._parts[sha256] = frozenset(pairs)
        self._sizes[sha256] = sum(
            (down.numel() + up.numel()) * self._weight_bytes
            for layers in pairs.values()
            for down, up in layers.values()
        )
        self.loads += 1

    def _inject(self, component: Component, sha256: str, pairs: Pairs) -> None:
        """Put the pairs beside their layers, wrapping a layer when it gets its first adapter.

        PEFT's own injection walks all modules several times, which takes seconds on a large model with many adapters.
        """
        module, layers = self._modules[component], self._layers[component]
        for name, (down, up) in pairs.items():
            real = self._real_names[component][name]
            layer, rank = layers.get(real), down.shape[0]
            # On the meta device nothing is allocated or drawn for weights that are replaced at once.
            with torch.device("meta"):
                if layer is None:
                    base = module.get_submodule(real)
                    wrapper = Conv2d if isinstance(base, torch.nn.Conv2d) else Linear
                    layer = wrapper(base, sha256, config=_PLAIN, r=rank, lora_alpha=rank)
                    _replace(module, real, layer)
                    layers[real] = layer
                else:
                    layer.update_layer(sha256, rank, lora_alpha=rank, config=_PLAIN)
            weight = layer.get_base_layer().weight
            layer.lora_A[sha256].weight = _frozen(down.to(weight.device, weight.dtype))
            layer.lora_B[sha256].weight = _frozen(up.to(weight.device, weight.dtype))
            layer._active_adapter = []

    def _set(self, component: Component, weights: list[tuple[str, float]]) -> None:
        for layer in self._layers[component].values():
            own = [(sha256, weight) for sha256, weight in weights if sha256 in layer.lora_A]
            for sha256, weight in own:
                layer.set_scale(sha256, weight)
            # PEFT's setter also walks every parameter to say which is trained; none is.
            layer._active_adapter = [sha256 for sha256, _ in own]

    def _evict(self, keep: set[str]) -> None:
        for sha256 in list(self._sizes):
            if len(self._sizes) <= MAX_ADAPTERS and self.bytes <= self._budget_bytes:
                return
            if sha256 not in keep:
                self._drop(sha256)

    def _drop(self, sha256: str) -> None:
        for component in self._parts.pop(sha256, frozenset()):
            layers = self._layers[component]
            for real, layer in list(layers.items()):
                layer._active_adapter = []
                layer.delete_adapter(sha256)
                if not layer.lora_A:
                    _replace(self._modules[component], real, layer.get_base_layer())
                    del layers[real]
        self._sizes.pop(sha256, None)


def _replace(module: Any, name: str, layer: Any) -> None:
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, layer)


def _frozen(tensor: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(tensor.contiguous(), requires_grad=False)


def _key(lora: LoraRef) -> str:
    return lora.sha256.lower()


def _merge(loras: Sequence[LoraRef]) -> tuple[tuple[str, float, float], ...]:
    """(sha256, UNet weight, text encoder weight) per file, in the order of the mix."""
    merged: dict[str, tuple[float, float]] = {}
    for lora in loras:
        text = lora.weight if lora.text_encoder_weight is None else lora.text_encoder_weight
        unet_before, text_before = merged.get(_key(lora), (0.0, 0.0))
        merged[_key(lora)] = (unet_before + lora.weight, text_before + text)
    return tuple((sha256, unet, text) for sha256, (unet, text) in merged.items())

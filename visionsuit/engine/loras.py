"""LoRAs inside a loaded base model: PEFT adapters, kept by the SHA-256 of their file, switched per render.

An adapter is never merged into the weights, so a render without LoRAs is bit-equal however many were used before.
Every spelling is turned into plain pairs of matrices whose `alpha / rank` is folded into the up matrix; PEFT then
sees alpha = rank everywhere.
"""

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from diffusers.utils import recurse_remove_peft_layers
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer

from visionsuit.engine.base import Family, LoraRef, LoraUnloadable
from visionsuit.engine.compat import BaseShapes
from visionsuit.engine.devices import is_out_of_memory
from visionsuit.engine.lora_files import Pairs, module_shapes, read_pairs
from visionsuit.engine.lora_names import Component, ModuleIndex, Shape

#: A whole mix must fit; more than this and switching walks too many layers.
MAX_ADAPTERS = 32


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
        self._layers: dict[Component, list[Any]] = {component: [] for component in modules}
        self._current: tuple[tuple[str, float, float], ...] = ()
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
            LoraUnloadable: one of them cannot be used; no LoRA is effective then.
        """
        mix = _merge(loras)
        if mix == self._current:
            for sha256, _, _ in mix:
                self._sizes.move_to_end(sha256)
            return
        self._current = ()
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
        except Exception as error:
            self._parts[sha256] = frozenset(pairs)
            self._drop(sha256)
            if is_out_of_memory(error):
                raise
            reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
            raise LoraUnloadable(f"{lora.name or lora.path.name} cannot be applied: {reason[0][:300]}") from error
        self._parts[sha256] = frozenset(pairs)
        width = self._modules[Component.UNET].dtype.itemsize
        self._sizes[sha256] = sum(
            (down.numel() + up.numel()) * width for layers in pairs.values() for down, up in layers.values()
        )
        self.loads += 1

    def _inject(self, component: Component, sha256: str, pairs: Pairs) -> None:
        module, real = self._modules[component], self._real_names[component]
        ranks = {real[name]: down.shape[0] for name, (down, _) in pairs.items()}
        usual = Counter(ranks.values()).most_common(1)[0][0]
        others = {f"^{name}": rank for name, rank in ranks.items() if rank != usual}
        config = LoraConfig(
            r=usual,
            lora_alpha=usual,
            rank_pattern=others,
            alpha_pattern=dict(others),
            target_modules=list(ranks),
            lora_dropout=0.0,
        )
        weights = {}
        for name, (down, up) in pairs.items():
            weights[f"{real[name]}.lora_A.weight"] = down.to(module.dtype)
            weights[f"{real[name]}.lora_B.weight"] = up.to(module.dtype)
        inject_adapter_in_model(config, module, sha256, low_cpu_mem_usage=True, state_dict=weights)
        set_peft_model_state_dict(module, weights, sha256, low_cpu_mem_usage=True)
        self._layers[component] = [layer for layer in module.modules() if isinstance(layer, BaseTunerLayer)]
        for layer in self._layers[component]:
            # PEFT makes a new adapter the active one; only `activate` decides that.
            layer.set_adapter([], inference_mode=True)

    def _set(self, component: Component, weights: list[tuple[str, float]]) -> None:
        names = [sha256 for sha256, _ in weights]
        for layer in self._layers[component]:
            layer.set_adapter(names, inference_mode=True)
            for sha256, weight in weights:
                layer.set_scale(sha256, weight)

    def _evict(self, keep: set[str]) -> None:
        for sha256 in list(self._sizes):
            if len(self._sizes) <= MAX_ADAPTERS and self.bytes <= self._budget_bytes:
                return
            if sha256 not in keep:
                self._drop(sha256)

    def _drop(self, sha256: str) -> None:
        for component in self._parts.pop(sha256, frozenset()):
            module = self._modules[component]
            for layer in self._layers[component]:
                layer.set_adapter([], inference_mode=True)
                layer.delete_adapter(sha256)
            if getattr(module, "peft_config", None):
                module.peft_config.pop(sha256, None)
            if not any(component in parts for parts in self._parts.values()):
                recurse_remove_peft_layers(module)
                self._layers[component] = []
        self._sizes.pop(sha256, None)


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

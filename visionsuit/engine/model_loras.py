"""The LoRAs of one loaded base model: parsed files, slots for batches, merged weights, text encoders.

The base model's own parameters are never written: a layer under a LoRA gets another `forward`, and taking it away
leaves what was loaded, bit for bit.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from visionsuit.engine.base import Family, LoraRef
from visionsuit.engine.base_shapes import BaseShapes
from visionsuit.engine.batch_sizes import BatchSizes
from visionsuit.engine.devices import Device
from visionsuit.engine.lora_names import Component, ModuleIndex, Shape
from visionsuit.engine.lora_packs import Layout, Mix, MixKey, Pack, PackCache, mix_key, mix_of
from visionsuit.engine.merge_policy import CallKey, MergePolicy
from visionsuit.engine.prompt_layers import PromptLayers
from visionsuit.engine.slots import MAX_RANK, Forwards, SlotPool, fold, ranks_of


class Adapted:
    """A module whose layers' `forward` can be replaced, all at once."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.layout = Layout(module)
        self.layers: dict[str, Any] = {
            name: module.get_submodule(real) for name, real in self.layout.real_names.items()
        }
        self._bound: Forwards = []

    def bind(self, forwards: Forwards) -> None:
        """Let just these layers compute otherwise. Cheap when they do already."""
        if forwards is self._bound:
            return
        for layer, _ in self._bound:
            layer.__dict__.pop("forward", None)
        # Past the module's own __setattr__, which looks for parameters, buffers and modules first.
        for layer, forward in forwards:
            layer.__dict__["forward"] = forward
        self._bound = forwards


@dataclass(frozen=True, slots=True)
class _Target:
    """One layer's weight as it is and with a mix; `forward` computes with the latter."""

    parameter: torch.Tensor
    merged: torch.Tensor
    forward: tuple[Any, Callable[[torch.Tensor], torch.Tensor]]

    def add(self, up: torch.Tensor, down: torch.Tensor) -> None:
        """[out, rank] times [rank, in * kernel], the latter in the weight's order in memory."""
        # Always from the original, so a thousand switches leave no trace. The parameter stays the same object when it
        # leaves the device, its views do not.
        torch.addmm(_as_matrix(self.parameter), up, down, out=_as_matrix(self.merged))


@dataclass(frozen=True, slots=True)
class _Folded:
    """A mix's matrices for each layer that it changes, by name: [out, rank] with its strengths, and [rank, in]."""

    layers: list[tuple[str, _Target, torch.Tensor, torch.Tensor]]
    bytes: int


class MergedWeights:
    """Weights with one mix added, beside the originals. One mix at a time, for all who hold it.

    Args:
        folded_budget_bytes: device memory for the matrices of mixes that somebody may come back to.
    """

    def __init__(self, adapted: Adapted, policy: MergePolicy, folded_budget_bytes: int = 0) -> None:
        self._adapted = adapted
        self._policy = policy
        self._folded_budget_bytes = folded_budget_bytes
        self._targets: dict[str, _Target] = {}
        #: Of the mixes merged last, for whoever comes back to one.
        self._folded: OrderedDict[MixKey, _Folded] = OrderedDict()
        self._key: MixKey | None = None
        self._forwards: Forwards = []
        self._holders: set[int] = set()
        self._reserved: dict[int, MixKey] = {}

    @property
    def bytes(self) -> int:
        merged = [target.merged for target in self._targets.values()]
        folded = sum(folded.bytes for folded in self._folded.values())
        return sum(weight.numel() * weight.element_size() for weight in merged) + folded

    @property
    def reserved(self) -> MixKey | None:
        """A mix that can only be merged; others leave the place to it."""
        return next(iter(self._reserved.values()), None)

    def reserve(self, holder: object, key: MixKey) -> None:
        """`key` is the one that is reserved already, if one is; until the holder releases it."""
        self._reserved[id(holder)] = key

    def is_free_for(self, key: MixKey, holder: object) -> bool:
        if self.reserved is not None and key != self.reserved:
            return False
        return key == self._key or not self._holders - {id(holder)}

    def extra_bytes(self, mix: Mix) -> int:
        """Memory that merging this mix would take beyond what is taken."""
        groups = self._adapted.layout.groups
        names = {
            groups[shape][place]
            for stacks, _ in mix.parts
            for shape, stack in stacks.items()
            for place in stack.layers.tolist()
        }
        names.update(name for changes, _ in mix.changes for name in changes)
        names.update(name for biases, _ in mix.biases for name in biases)
        weights = (self._adapted.layers[name].weight for name in names - self._targets.keys())
        return sum(weight.numel() * weight.element_size() for weight in weights)

    def take(self, holder: object, mix: Mix) -> Forwards:
        """The forwards under this mix, which stays until the holder releases it; `is_free_for` the holder before."""
        if mix.key != self._key:
            began = time.perf_counter()
            self._key = None
            self._forwards = self._merge(mix)
            self._key = mix.key
            self._policy.note_merge(time.perf_counter() - began)
        self._holders.add(id(holder))
        return self._forwards

    def release(self, holder: object) -> None:
        """The mix is kept, for whoever comes back to it, until another one is merged."""
        self._holders.discard(id(holder))
        self._reserved.pop(id(holder), None)

    def drop(self) -> None:
        """Give the memory back, unless somebody holds it."""
        self._folded.clear()
        if not self._holders:
            self._key, self._forwards = None, []
            self._targets.clear()

    def _merge(self, mix: Mix) -> Forwards:
        touched: dict[str, _Target] = {}
        for name, target, up, down in self._fold(mix).layers:
            touched[name] = target
            target.add(up, down)
        for changes, strength in mix.changes:
            for name, change in changes.items():
                target = self._target(name)
                if name not in touched:
                    touched[name] = target
                    target.merged.copy_(target.parameter)
                delta = change.delta(target.parameter.flatten(1).float(), strength).view(target.merged.shape)
                # In fp32 before the cast, so that half precision rounds once.
                target.merged.copy_(delta.add_(target.merged))
        biases = self._biases(mix)
        for name in biases.keys() - touched.keys():
            target = touched[name] = self._target(name)
            target.merged.copy_(target.parameter)
        return [
            self._forward_with(name, target, biases[name]) if name in biases else target.forward
            for name, target in touched.items()
        ]

    def _fold(self, mix: Mix) -> _Folded:
        folded = self._folded.pop(mix.key, None)
        if folded is None:
            folded = self._fold_anew(mix)
        if folded.bytes <= self._folded_budget_bytes:
            self._folded[mix.key] = folded
            while sum(one.bytes for one in self._folded.values()) > self._folded_budget_bytes:
                self._folded.popitem(last=False)
        return folded

    def _fold_anew(self, mix: Mix) -> _Folded:
        layers: list[tuple[str, _Target, torch.Tensor, torch.Tensor]] = []
        size = 0
        for shape, rank in ranks_of(mix.parts).items():
            names = self._adapted.layout.groups[shape]
            weight = self._adapted.layers[names[0]].weight
            width = weight[0].numel()
            down = torch.empty(len(names), rank, width, dtype=weight.dtype, device=weight.device)
            up = torch.empty(len(names), rank, shape[0], dtype=weight.dtype, device=weight.device)
            present = fold(mix.parts, shape, down, up)
            size += (down.numel() + up.numel()) * weight.element_size()
            if not weight.is_contiguous():
                # Channels last: the matrices of a kernel go pixel by pixel.
                down = down.view(*down.shape[:2], *shape[1:]).permute(0, 1, 3, 4, 2).flatten(2)
            ups, downs = up.transpose(1, 2).unbind(), down.unbind()
            for place in present.nonzero()[0].tolist():
                layers.append((names[place], self._target(names[place]), ups[place], downs[place]))
        return _Folded(layers, size)

    def _biases(self, mix: Mix) -> dict[str, torch.Tensor]:
        """[out] of the layers whose bias the mix changes."""
        found: dict[str, torch.Tensor] = {}
        for biases, strength in mix.biases:
            for name, change in biases.items():
                layer = self._adapted.layers[name]
                before = found.get(name)
                if before is None:
                    bias, weight = layer.bias, layer.weight
                    before = torch.zeros(weight.shape[0], device=weight.device) if bias is None else bias.float()
                found[name] = before + change.to(before.device) * strength
        return found

    def _forward_with(self, name: str, target: "_Target", bias: torch.Tensor) -> Any:
        layer = self._adapted.layers[name]
        return layer, _merged_forward(layer, target.merged, bias.to(target.merged.dtype))

    def _target(self, name: str) -> "_Target":
        target = self._targets.get(name)
        if target is None:
            layer = self._adapted.layers[name]
            merged = torch.empty_like(layer.weight)
            forward = (layer, _merged_forward(layer, merged, layer.bias))
            target = self._targets[name] = _Target(layer.weight, merged, forward)
        return target


def _as_matrix(weight: torch.Tensor) -> torch.Tensor:
    """[out, in * kernel] as it lies in memory."""
    if weight.dim() == 2:
        return weight
    return (weight if weight.is_contiguous() else weight.permute(0, 2, 3, 1)).flatten(1)


def needs_merging(mix: Mix) -> bool:
    """Whether no slot can hold it."""
    return bool(mix.changes or mix.biases) or max(ranks_of(mix.parts).values(), default=0) > MAX_RANK


def _merged_forward(layer: Any, merged: torch.Tensor, bias: torch.Tensor | None) -> Any:
    if isinstance(layer, torch.nn.Linear):
        return lambda x: F.linear(x, merged, bias)
    options = (layer.stride, layer.padding, layer.dilation, layer.groups)
    return lambda x: F.conv2d(x, merged, bias, *options)


@dataclass(frozen=True, slots=True)
class _TextLoras:
    adapted: Adapted
    merged: MergedWeights
    slot: SlotPool


class ModelLoras:
    """
    Args:
        modules: the bare UNet or transformer, and text encoders.

    Attributes:
        budget_bytes: slots of all batches together, on the device.
        prompt_layers: of the UNet.
    """

    def __init__(
        self,
        family: Family,
        modules: Mapping[Component, Any],
        device: Device,
        dtype: torch.dtype,
    ) -> None:
        self.adapted = {component: Adapted(module) for component, module in modules.items()}
        layouts = {component: one.layout for component, one in self.adapted.items()}
        #: What is called at every step: a UNet, or the transformer of newer families.
        self.denoiser = Component.TRANSFORMER if Component.TRANSFORMER in modules else Component.UNET
        width = getattr(modules[self.denoiser].config, "cross_attention_dim", None)
        shapes = {component: layout.shapes for component, layout in layouts.items()}
        base = BaseShapes(family, ModuleIndex(shapes), width if isinstance(width, int) else None)
        self.packs = PackCache(base, layouts, dtype, device.lora_budget())
        weights = [parameter for module in modules.values() for parameter in module.parameters()]
        self.budget_bytes = max(2**28, sum(weight.numel() * weight.element_size() for weight in weights) // 2)
        self.unet = self.adapted[self.denoiser]
        self.prompt_layers = PromptLayers(modules[self.denoiser])
        self.policy = MergePolicy()
        self.sizes = BatchSizes()
        self.merged = MergedWeights(self.unet, self.policy, self.budget_bytes // 4)
        self._place = (device.torch_device, dtype)
        self._device = device
        self._text: dict[Component, _TextLoras] = {}
        for component, one in self.adapted.items():
            if component is not self.denoiser:
                slot = SlotPool(one.layout, one.layers, 1, *self._place)
                self._text[component] = _TextLoras(one, MergedWeights(one, MergePolicy()), slot)
        self._idle_pools: dict[tuple[int, int], SlotPool] = {}
        self._pools: list[SlotPool] = []

    @property
    def bytes(self) -> int:
        """Device memory of slots and merged weights."""
        text = self._text.values()
        pools = [*self._pools, *self._idle_pools.values(), *(one.slot for one in text)]
        return sum(pool.bytes for pool in pools) + self.merged.bytes + sum(one.merged.bytes for one in text)

    def unet_mix(self, loras: Sequence[LoraRef], packs: Mapping[str, Pack]) -> Mix:
        """What a request's LoRAs do to the UNet."""
        return mix_of(packs, mix_key(loras, text=False), self.denoiser)

    def text_key(self, loras: Sequence[LoraRef], packs: Mapping[str, Pack]) -> MixKey:
        """What they do to the text encoders; empty where nothing."""
        return tuple(entry for entry in mix_key(loras, text=True) if packs[entry[0]].components & self._text.keys())

    def use_text(self, key: MixKey, packs: Mapping[str, Pack]) -> None:
        """Make a mix effective in the text encoders."""
        for component, text in self._text.items():
            mix = mix_of(packs, key, component)
            if needs_merging(mix):
                forwards = text.merged.take(self, mix)
            elif mix.key:
                text.slot.write(0, mix.key, mix.parts)
                forwards = text.slot.forwards(0, 1)
            else:
                forwards = []
            text.adapted.bind(forwards)

    def lease_pool(self, rows: int, rank: int = 0) -> SlotPool:
        """Slots of at least this rank for a batch with so many rows per picture; those of an earlier batch if any."""
        pool = self._idle_pools.pop((rows, rank), None)
        if pool is None:
            pool = SlotPool(self.unet.layout, self.unet.layers, rows, *self._place, rank=rank)
        self._pools.append(pool)
        return pool

    def return_pool(self, pool: SlotPool) -> None:
        self._pools.remove(pool)
        self._idle_pools[pool.rows, pool.rank] = pool

    def has_room(self, pool: SlotPool, slots: int, ranks: dict[Shape, int]) -> bool:
        """Whether `pool` may grow to so many slots of these ranks."""
        needed = pool.bytes_for(slots, ranks)
        if needed <= pool.bytes:
            return True
        taken = sum(other.bytes for other in self._pools if other is not pool)
        if taken + needed + sum(idle.bytes for idle in self._idle_pools.values()) > self.budget_bytes:
            self._idle_pools.clear()
        return taken + needed <= self.budget_bytes

    def may_merge(self, mix: Mix, holder: object, call: CallKey, calls: int) -> bool:
        """Whether so many calls under one mix are better served by merged weights, which are free and fit."""
        if not self.merged.is_free_for(mix.key, holder) or calls < self.policy.fewest_calls(call):
            return False
        extra = self.merged.extra_bytes(mix)
        return not extra or extra * 2 < self._device.free_memory()

    def keeps_projections(self, embeds: Sequence[torch.Tensor], *, always: bool = False) -> bool:
        """Whether what the UNet makes of these prompts alone, [k, tokens, width] each, is kept between steps; `always`:
        whatever memory is free."""
        if not self.prompt_layers.layers:
            return False
        return always or self.prompt_layers.fits(embeds, self._device.free_memory())

    def free_memory(self) -> None:
        """Give up what is only kept for speed."""
        self.unet.bind([])
        self._idle_pools.clear()
        self.merged.drop()
        self.free_text()

    def free_denoiser(self) -> None:
        """Take everything off the UNet; no batch of it is left."""
        self.unet.bind([])
        self._idle_pools.clear()
        self.merged.drop()

    def free_text(self) -> None:
        """Take everything off the text encoders."""
        for text in self._text.values():
            text.adapted.bind([])
            text.slot.clear()
            text.merged.release(self)
            text.merged.drop()

"""Changes of a weight that no slot can hold, because they are no sum of a few products: merged, one mix at a time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from visionsuit.engine.lora_names import Part


class Change(Protocol):
    @property
    def bytes(self) -> int: ...

    def delta(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        """What to add to `weight`, [out, in * kernel] fp32, which stays as it is."""


@dataclass(frozen=True, slots=True)
class Product:
    """LoHa, LoKr or a full difference: `factors` by their short names, fp32 on the CPU."""

    part: Part
    factors: Mapping[str, torch.Tensor]
    scale: float

    @property
    def bytes(self) -> int:
        return sum(factor.numel() * factor.element_size() for factor in self.factors.values())

    def delta(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        own = {name: factor.to(weight.device) for name, factor in self.factors.items()}
        if self.part is Part.FULL:
            change = own["diff"]
        elif self.part is Part.LOHA:
            change = _pair(own, "w1_a", "w1_b", "t1") * _pair(own, "w2_a", "w2_b", "t2")
        else:
            outer = own["w1"] if "w1" in own else _pair(own, "w1_a", "w1_b", "")
            inner = own["w2"] if "w2" in own else _pair(own, "w2_a", "w2_b", "t2")
            change = torch.kron(outer.reshape(*outer.shape[:2], *[1] * (inner.dim() - 2)), inner)
        return change.reshape(weight.shape) * (self.scale * strength)


@dataclass(frozen=True, slots=True)
class Dora:
    """A pair whose sum with the weight is rescaled to a magnitude per output, or per input as older trainers wrote it.

    `down` [r, in * kernel], `up` [out, r] with alpha / rank inside, `magnitude` [out, 1] or [1, in * kernel].
    """

    down: torch.Tensor
    up: torch.Tensor
    magnitude: torch.Tensor

    @property
    def bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.down, self.up, self.magnitude))

    def delta(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        down, up, magnitude = (tensor.to(weight.device) for tensor in (self.down, self.up, self.magnitude))
        moved = torch.addmm(weight, up, down, alpha=strength)
        across = 1 if magnitude.shape[1] == 1 else 0
        norm = moved.norm(dim=across, keepdim=True).clamp_min(1e-12)
        return moved * (magnitude / norm) - weight


def _pair(own: Mapping[str, torch.Tensor], a: str, b: str, core: str) -> torch.Tensor:
    if core not in own:
        return own[a] @ own[b].flatten(1)
    return torch.einsum("rqhw,ro,qi->oihw", own[core], own[a], own[b].flatten(1))

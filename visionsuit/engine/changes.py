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
            # Flat, or halves whose kernels differ would be broadcast against each other, which fills any memory.
            halves = _pair(own, "w1_a", "w1_b", "t1"), _pair(own, "w2_a", "w2_b", "t2")
            change = halves[0].flatten(1) * halves[1].flatten(1)
        else:
            outer = own["w1"] if "w1" in own else _pair(own, "w1_a", "w1_b", "")
            inner = own["w2"] if "w2" in own else _pair(own, "w2_a", "w2_b", "t2")
            # Their Kronecker product; torch.kron fails on the layout that a Tucker form comes out in.
            change = outer.flatten(1)[:, None, :, None] * inner.flatten(1)[None, :, None, :]
        return change.reshape(weight.shape) * (self.scale * strength)


@dataclass(frozen=True, slots=True)
class Rotation:
    """OFT: the outputs of a layer are turned, block by block.

    Attributes:
        turn: [k, n, n], a rotation of n outputs less the identity.
        rescale: [out, 1], factors of the outputs, or None.
    """

    turn: torch.Tensor
    rescale: torch.Tensor | None = None

    @property
    def bytes(self) -> int:
        tensors = [self.turn] if self.rescale is None else [self.turn, self.rescale]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def delta(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        turn = self.turn.to(weight.device)
        blocks = weight.reshape(*turn.shape[:2], -1)
        change = torch.bmm(turn.transpose(1, 2), blocks).reshape(weight.shape) * strength
        if self.rescale is None:
            return change
        factors = 1 + (self.rescale.to(weight.device) - 1) * strength
        return factors * (weight + change) - weight


def rotation(blocks: torch.Tensor, rescale: torch.Tensor | None, constraint: float) -> Rotation:
    """Cayley's map of the blocks' skew parts.

    Args:
        blocks: [k, n, n] fp32.
        rescale: any shape of as many numbers as there are outputs.
        constraint: the skew part's norm is at most this; 0: any.
    """
    skew = blocks - blocks.transpose(1, 2)
    norm = float(skew.norm())
    if 0 < constraint < norm:
        skew = skew * (constraint / norm)
    identity = torch.eye(blocks.shape[1]).expand_as(skew)
    # (I + Q)(I - Q)^-1; the second factor from the left of the transposed equation.
    turned = torch.linalg.solve((identity - skew).transpose(1, 2), (identity + skew).transpose(1, 2)).transpose(1, 2)
    factors = None if rescale is None else rescale.reshape(-1, 1)
    return Rotation((turned - identity).contiguous(), factors)


@dataclass(frozen=True, slots=True)
class Pair:
    """`down` [r, in * kernel], `up` [out, r] with alpha / rank inside; where a slot cannot hold it."""

    down: torch.Tensor
    up: torch.Tensor

    @property
    def bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.down, self.up))

    def delta(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        return torch.mm(self.up.to(weight.device), self.down.to(weight.device)).mul_(strength)


@dataclass(frozen=True, slots=True)
class Dora:
    """A change after which the weight is rescaled: to a magnitude per output, or per input as older trainers wrote it.

    `magnitude` [out, 1, 1], [1, in, 1] or [1, in, kernel].
    """

    change: Change
    magnitude: torch.Tensor

    @property
    def bytes(self) -> int:
        return self.change.bytes + self.magnitude.numel() * self.magnitude.element_size()

    def delta(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        magnitude = self.magnitude.to(weight.device)
        moved = (weight + self.change.delta(weight, strength)).view(len(weight), max(1, magnitude.shape[1]), -1)
        across = [side for side, length in enumerate(magnitude.shape) if length == 1]
        norm = torch.linalg.vector_norm(moved, dim=across, keepdim=True).clamp_min(1e-12)
        return (moved * (magnitude / norm)).view(weight.shape) - weight


def _pair(own: Mapping[str, torch.Tensor], a: str, b: str, core: str) -> torch.Tensor:
    if core not in own:
        return own[a] @ own[b].flatten(1)
    return torch.einsum("rqhw,ro,qi->oihw", own[core], own[a], own[b].flatten(1))

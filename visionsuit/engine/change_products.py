"""Sums of the elementwise products of what files do to one layer, in one thread's matrix products."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement

import numpy as np
import torch

from visionsuit.engine.lora_files import RawPair

#: Sum of ranks up to which one product of everything beats one a pair.
_MOST_STACKED = 1024

#: By the numbers of two files, the smaller one first, or twice one's.
Dots = dict[tuple[int, int], float]


@dataclass(frozen=True, slots=True)
class _Stack:
    """Where all files' pairs of a layer are put side by side, as fp32.

    Attributes:
        down, up: [rank, in * kernel] and [out, rank], of all files' ranks together.
        downs, ups: views of these, one a file.
        asked: places of two files, or twice one's.
        ones: [files, rank], ones where a file's rows of `down` are; None where one product of everything, of which
            numpy calculates half, is more than one for each that is asked for.
    """

    down: np.ndarray
    up: np.ndarray
    downs: list[torch.Tensor]
    ups: list[torch.Tensor]
    asked: list[tuple[int, int]]
    ones: np.ndarray | None

    def dots(self) -> list[float]:
        """<up_a down_a, up_b down_b>, which is the sum of (up_a^T up_b) * (down_a down_b^T), for all of `asked`."""
        if self.ones is not None:
            sums = (self.ones @ ((self.down @ self.down.T) * (self.up.T @ self.up)) @ self.ones.T).tolist()
            return [sums[a][b] for a, b in self.asked]
        return [
            float(((self.ups[a].t() @ self.ups[b]) * (self.downs[a] @ self.downs[b].t())).sum()) for a, b in self.asked
        ]


class LayerProducts:
    """Calculates for one layer after another, in the same memory. For one thread.

    Args:
        wanted: numbers of two files, the smaller one first.
    """

    def __init__(self, wanted: Collection[tuple[int, int]]) -> None:
        self._wanted = frozenset(wanted)
        self._memory = torch.empty(0)
        self._stacks: dict[tuple[int, ...], _Stack] = {}

    def of(self, held: Mapping[int, RawPair | torch.Tensor]) -> Dots:
        """Of each change with itself, and of the wanted two.

        Args:
            held: by the files' numbers, a pair of matrices or the change itself; all for a weight of one shape.
        """
        pairs = {number: matrices for number, matrices in held.items() if isinstance(matrices, RawPair)}
        dots = self._of_pairs(pairs) if pairs else {}
        if len(pairs) == len(held):
            return dots
        for number, whole in held.items():
            if isinstance(whole, torch.Tensor):
                dots[number, number] = _sum(whole, whole)
        for a, b in combinations(sorted(held), 2):
            if (a, b) in self._wanted and not (a in pairs and b in pairs):
                dots[a, b] = _dot(held[a], held[b])
        return dots

    def _of_pairs(self, pairs: Mapping[int, RawPair]) -> Dots:
        numbers, ordered = list(pairs), list(pairs.values())
        stack = self._stack(numbers, ordered)
        for pair, down, up in zip(ordered, stack.downs, stack.ups, strict=True):
            down.copy_(pair.down)
            up.copy_(pair.up)
        return {
            (numbers[a], numbers[b]): dot * ordered[a].scale * ordered[b].scale
            for (a, b), dot in zip(stack.asked, stack.dots(), strict=True)
        }

    def _stack(self, numbers: list[int], pairs: list[RawPair]) -> _Stack:
        outputs, inputs = pairs[0].up.shape[0], pairs[0].down.shape[1]
        ranks = [pair.down.shape[0] for pair in pairs]
        key = (outputs, inputs, *numbers, *ranks)
        if key not in self._stacks:
            size = sum(ranks) * (outputs + inputs)
            if size > self._memory.numel():
                self._memory = torch.empty(size)
                self._stacks.clear()
            self._stacks[key] = self._lay_out(numbers, ranks, outputs, inputs)
        return self._stacks[key]

    def _lay_out(self, numbers: list[int], ranks: list[int], outputs: int, inputs: int) -> _Stack:
        rank = sum(ranks)
        down = self._memory[: rank * inputs].view(rank, inputs)
        up = self._memory[rank * inputs :][: rank * outputs].view(outputs, rank)
        places = range(len(numbers))
        asked = [
            (a, b)
            for a, b in combinations_with_replacement(places, 2)
            if a == b or (numbers[a], numbers[b]) in self._wanted
        ]
        ones = None
        if rank <= _MOST_STACKED and rank * rank / 2 < sum(ranks[a] * ranks[b] for a, b in asked):
            ones = np.repeat(np.eye(len(ranks), dtype=np.float32), ranks, axis=1)
        downs, ups = list(down.split(ranks)), list(up.split(ranks, dim=1))
        return _Stack(down.numpy(), up.numpy(), downs, ups, asked, ones)


def _dot(one: RawPair | torch.Tensor, other: RawPair | torch.Tensor) -> float:
    """Of a whole change and another or a pair."""
    if isinstance(one, RawPair):
        one, other = other, one
    assert isinstance(one, torch.Tensor)
    if isinstance(other, torch.Tensor):
        return _sum(one, other)
    return _sum(other.up.to(torch.float32).t() @ one, other.down.to(torch.float32)) * other.scale


def _sum(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one * other).sum())

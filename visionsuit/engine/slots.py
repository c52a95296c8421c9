"""The LoRA mixes of one batch on the device: fixed slots, one per picture, for one module.

Each mix is folded into a single pair of matrices per layer (stacked along the rank, strengths inside the up matrix), so
one LoRA or five cost the same. A slot is written when a picture joins; nothing else moves.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from visionsuit.engine.lora_names import Shape
from visionsuit.engine.lora_packs import Layout, MixKey, Parts

#: Ranks that storage and products are cut to: few, so that shapes repeat.
RANKS = (4, 8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 256)
#: A mix with more rank than this in one layer is merged into weights instead.
MAX_RANK = RANKS[-1]

_KEPT_VIEWS = 64

#: module -> forward that adds the slots' products.
Forwards = list[tuple[Any, Callable[[torch.Tensor], torch.Tensor]]]


def bucket(rank: int) -> int:
    """The smallest of RANKS that holds `rank`; beyond them multiples of 64."""
    return next((size for size in RANKS if size >= rank), -(-rank // 64) * 64)


def ranks_of(parts: Parts) -> dict[Shape, int]:
    """Rank of the whole mix per weight shape."""
    ranks: dict[Shape, int] = {}
    for stacks, _ in parts:
        for shape, stack in stacks.items():
            ranks[shape] = ranks.get(shape, 0) + stack.rank
    return ranks


def fold(parts: Parts, shape: Shape, down: torch.Tensor, up: torch.Tensor) -> NDArray[np.bool_]:
    """Write a mix's matrices for one shape into `down` [L, R, in] and `up` [L, R, out]; the rest becomes zero.

    Returns which of the L layers the mix changes.
    """
    present = np.zeros(down.shape[0], bool)
    start = 0
    for stacks, strength in parts:
        stack = stacks.get(shape)
        if stack is None:
            continue
        stop = start + stack.rank
        # In fp32 before the cast, so that strengths cost no precision.
        scaled = stack.up.to(up.device) * strength
        if stack.whole:
            down[:, start:stop] = stack.down.to(down.device)
            up[:, start:stop] = scaled
            present[:] = True
        else:
            layers = stack.layers.to(down.device)
            for target, source in ((down, stack.down), (up, scaled)):
                target[:, start:stop] = 0
                target[:, start:stop].index_copy_(0, layers, source.to(target.device, target.dtype))
            present[stack.layers.numpy()] = True
        start = stop
    down[:, start:] = 0
    up[:, start:] = 0
    return present


@dataclass(slots=True)
class _Storage:
    """All slots of one shape: `down` [L, S, K, R, in * kernel], `up` [L, S, K, R, out].

    K is 1 for linear layers; for convolutions it is the rows that a picture has in the batch, each with a copy, so
    that the matrices of all rows lie side by side.
    """

    down: torch.Tensor
    up: torch.Tensor
    ranks: list[int]
    present: NDArray[np.bool_]
    views: dict[tuple[int, int, int, bytes], Forwards] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        return self.down.shape[3]

    @property
    def bytes(self) -> int:
        return (self.down.numel() + self.up.numel()) * self.down.element_size()


class SlotPool:
    """Slots for the pictures of one batch.

    Args:
        modules: the layers by their name in `layout`.
        rows: rows of the batch per picture: 2 with guidance, else 1.
        rank: every mix is padded to at least this, which is exact; with it, mixes of up to this rank are calculated
            alike whatever the slots beside them hold.
    """

    def __init__(
        self,
        layout: Layout,
        modules: dict[str, Any],
        rows: int,
        device: torch.device,
        dtype: torch.dtype,
        *,
        rank: int = 0,
    ) -> None:
        self._layout = layout
        self._modules = modules
        self.rows = rows
        self.rank = rank
        self._device = device
        self._dtype = dtype
        self._storages: dict[Shape, _Storage] = {}
        self._mixes: list[MixKey | None] = []

    @property
    def bytes(self) -> int:
        return sum(storage.bytes for storage in self._storages.values())

    def bytes_for(self, slots: int, ranks: dict[Shape, int]) -> int:
        """Memory that this pool would take with so many slots of such ranks."""
        total = 0
        for shape in self._storages.keys() | ranks.keys():
            storage = self._storages.get(shape)
            rank = max(storage.rank if storage else 0, self._bucket(ranks.get(shape, 0)))
            width = int(np.prod(shape[1:])) + shape[0]
            copies = self.rows if len(shape) > 2 else 1
            total += len(self._layout.groups[shape]) * max(slots, len(self._mixes)) * copies * rank * width
        return total * self._dtype.itemsize

    def _bucket(self, rank: int) -> int:
        return max(self.rank, bucket(rank)) if rank else 0

    def write(self, slot: int, key: MixKey, parts: Parts) -> None:
        """Put a mix into a slot; nothing happens where it is there already."""
        self.reserve(slot + 1)
        if self._mixes[slot] == key:
            return
        elsewhere = self._mixes.index(key) if key in self._mixes else None
        # Not known while it is half written.
        self._mixes[slot] = None
        if elsewhere is not None:
            self._copy(elsewhere, slot)
        else:
            self._fold(slot, parts)
        self._mixes[slot] = key

    def forwards(self, start: int, stop: int, *, only: frozenset[int] | None = None) -> Forwards:
        """What the layers have to compute for a batch of the pictures in slots [start, stop).

        Args:
            only: identities of the layers that are asked for; all without it.
        """
        found: Forwards = []
        for shape, storage in self._storages.items():
            rank = max(storage.ranks[start:stop], default=0)
            if not rank:
                continue
            touched = storage.present[:, start:stop].any(axis=1)
            if only is not None:
                touched = touched & self._among(shape, only)
            view = (start, stop, self._bucket(rank), touched.tobytes())
            if view not in storage.views:
                if len(storage.views) >= _KEPT_VIEWS:
                    storage.views.clear()
                storage.views[view] = self._make_forwards(shape, storage, *view[:3], np.flatnonzero(touched).tolist())
            found += storage.views[view]
        return found

    def _among(self, shape: Shape, ids: frozenset[int]) -> NDArray[np.bool_]:
        """Which layers of a shape these are: [L]."""
        return np.array([id(self._modules[name]) in ids for name in self._layout.groups[shape]])

    def clear(self) -> None:
        """Give the memory back; all slots are gone."""
        self._storages.clear()
        self._mixes.clear()

    def _fold(self, slot: int, parts: Parts) -> None:
        ranks = ranks_of(parts)
        for shape in self._storages.keys() - ranks.keys():
            self._clear(self._storages[shape], slot)
        for shape, rank in ranks.items():
            storage = self._storage(shape, rank, slot)
            down, up = storage.down[:, slot], storage.up[:, slot]
            storage.present[:, slot] = fold(parts, shape, down[:, 0], up[:, 0])
            storage.ranks[slot] = rank
            if down.shape[1] > 1:
                down[:, 1:], up[:, 1:] = down[:, :1], up[:, :1]

    def _copy(self, source: int, target: int) -> None:
        for storage in self._storages.values():
            storage.down[:, target] = storage.down[:, source]
            storage.up[:, target] = storage.up[:, source]
            storage.present[:, target] = storage.present[:, source]
            storage.ranks[target] = storage.ranks[source]

    def _make_forwards(
        self, shape: Shape, storage: _Storage, start: int, stop: int, rank: int, layers: Iterable[int]
    ) -> Forwards:
        names = self._layout.groups[shape]
        made: Forwards = []
        for place in layers:
            module = self._modules[names[place]]
            make = _linear if len(shape) == 2 else _pointwise if _is_pointwise(module) else _convolution
            # A convolution's matrices are read as one block, which a cut along the rank would tear.
            used = storage.rank if make is _convolution else rank
            down, up = (tensor[place, start:stop, :, :used] for tensor in (storage.down, storage.up))
            made.append((module, make(module, down, up)))
        return made

    def _storage(self, shape: Shape, rank: int, slot: int) -> _Storage:
        """Storage of at least this rank; of just this rank where a wide kernel's slots are all free."""
        old, needed, slots = self._storages.get(shape), self._bucket(rank), len(self._mixes)
        if old is not None:
            others = any(used for number, used in enumerate(old.ranks) if number != slot)
            if old.rank == needed or (old.rank > needed and (others or not _is_wide(shape))):
                return old
            if not others:
                old = None
        layers, copies = len(self._layout.groups[shape]), self.rows if len(shape) > 2 else 1
        down = self._zeros(layers, slots, copies, needed, int(np.prod(shape[1:])))
        up = self._zeros(layers, slots, copies, needed, shape[0])
        storage = _Storage(down, up, [0] * slots, np.zeros((layers, slots), bool))
        if old is not None:
            _carry_over(old, storage)
        self._storages[shape] = storage
        return storage

    def reserve(self, slots: int) -> None:
        """Have at least so many, the new ones empty."""
        if slots <= len(self._mixes):
            return
        # Doubling: growing copies everything.
        slots = 1 << (slots - 1).bit_length()
        for shape, old in list(self._storages.items()):
            layers, _, copies, rank, width = old.down.shape
            storage = _Storage(
                self._zeros(layers, slots, copies, rank, width),
                self._zeros(layers, slots, copies, rank, old.up.shape[-1]),
                [0] * slots,
                np.zeros((layers, slots), bool),
            )
            _carry_over(old, storage)
            self._storages[shape] = storage
        self._mixes += [()] * (slots - len(self._mixes))

    def _zeros(self, *shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=self._dtype, device=self._device)

    @staticmethod
    def _clear(storage: _Storage, slot: int) -> None:
        if storage.ranks[slot]:
            storage.down[:, slot] = 0
            storage.up[:, slot] = 0
            storage.present[:, slot] = False
            storage.ranks[slot] = 0


def _carry_over(old: _Storage, new: _Storage) -> None:
    slots = len(old.ranks)
    new.down[:, :slots, :, : old.rank] = old.down
    new.up[:, :slots, :, : old.rank] = old.up
    new.ranks[:slots] = old.ranks
    new.present[:, :slots] = old.present


def _is_wide(shape: Shape) -> bool:
    return len(shape) > 2 and shape[2:] != (1, 1)


def _is_pointwise(layer: Any) -> bool:
    return tuple(layer.kernel_size) == (1, 1) and tuple(layer.stride) == (1, 1) and tuple(layer.padding) == (0, 0)


def _linear(layer: Any, down: torch.Tensor, up: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """`down` [n, 1, R, in], `up` [n, 1, R, out]; x [n * rows, ..., in]."""
    weight, bias, shrink, expand = layer.weight, layer.bias, down[:, 0].transpose(1, 2), up[:, 0]
    count, inputs, outputs = down.shape[0], down.shape[-1], up.shape[-1]

    def forward(x: torch.Tensor) -> torch.Tensor:
        out = F.linear(x, weight, bias)
        out.view(count, -1, outputs).baddbmm_(torch.bmm(x.reshape(count, -1, inputs), shrink), expand)
        return out

    return forward


def _pointwise(layer: Any, down: torch.Tensor, up: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """`down` [n, K, R, in], `up` [n, K, R, out]; x [n * K, in, h, w]."""
    weight, bias, shrink, expand = layer.weight, layer.bias, down.flatten(0, 1), up.flatten(0, 1).transpose(1, 2)

    def forward(x: torch.Tensor) -> torch.Tensor:
        return _add_pixels(F.conv2d(x, weight, bias), expand, torch.bmm(shrink, x.flatten(2)))

    return forward


def _convolution(layer: Any, down: torch.Tensor, up: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """As `_pointwise`, the rows of the batch being the groups of one convolution."""
    weight, bias, expand = layer.weight, layer.bias, up.flatten(0, 1).transpose(1, 2)
    rows, rank = expand.shape[0], down.shape[2]
    kernel = down.reshape(rows * rank, *weight.shape[1:])
    stride, padding, dilation = layer.stride, layer.padding, layer.dilation

    def forward(x: torch.Tensor) -> torch.Tensor:
        out = F.conv2d(x, weight, bias, stride, padding, dilation)
        small = F.conv2d(x.reshape(1, -1, *x.shape[2:]), kernel, None, stride, padding, dilation, groups=rows)
        return _add_pixels(out, expand, small.view(rows, rank, -1))

    return forward


def _add_pixels(out: torch.Tensor, expand: torch.Tensor, small: torch.Tensor) -> torch.Tensor:
    """Adds [n, out, R] times [n, R, pixels] to `out` [n, out, h, w], whichever of its orders in memory it has."""
    if out.is_contiguous():
        out.view(*out.shape[:2], -1).baddbmm_(expand, small)
    else:
        out.permute(0, 2, 3, 1).view(out.shape[0], -1, out.shape[1]).baddbmm_(small.mT, expand.mT)
    return out

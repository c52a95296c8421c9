"""A device with memory of its own, without one: the CPU calculates, and weights on it are other tensors than in host
memory, counted as long as anybody holds them."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from visionsuit.engine.devices import Device

_ALIGNED = 64


@dataclass(frozen=True, eq=False)
class PretendGpu(Device):
    """
    Attributes:
        size: bytes of its memory; slots, merged weights and latents are not counted.
        held: address -> bytes of what lies in it.
        moves: bytes that were placed on it and fetched from it so far.
    """

    size: int = 10**9
    held: dict[int, int] = field(default_factory=dict)
    moves: dict[str, int] = field(default_factory=lambda: {"placed": 0, "fetched": 0})

    def memory(self) -> tuple[int, int]:
        return sum(self.held.values()), self.size

    def place(self, tensor: torch.Tensor) -> torch.Tensor:
        size = tensor.numel() * tensor.element_size()
        if sum(self.held.values()) + size > self.size:
            raise torch.OutOfMemoryError("The pretended memory is full.")
        # Of numpy, whose arrays say when the last tensor over them is gone.
        buffer = np.empty(size + _ALIGNED, np.uint8)
        # As torch's own: kernels calculate otherwise in the last bit where numbers lie otherwise.
        start = -buffer.ctypes.data % _ALIGNED
        flat = torch.from_numpy(buffer)[start : start + size].view(tensor.dtype)
        placed = flat.as_strided(tensor.shape, tensor.stride()).copy_(tensor)
        self.held[placed.data_ptr()] = size
        weakref.finalize(buffer, self.held.pop, placed.data_ptr())
        self.moves["placed"] += size
        return placed

    def fetch(self, tensor: torch.Tensor, *, pinned: bool) -> torch.Tensor:
        assert tensor.data_ptr() in self.held
        self.moves["fetched"] += tensor.numel() * tensor.element_size()
        return tensor.clone()

    @contextmanager
    def watch(self) -> Iterator[list[str]]:
        """Inside, names of the modules that were called while their weights were elsewhere."""
        strangers: list[str] = []

        def look(module: torch.nn.Module, inputs: Any) -> None:
            if any(own.data_ptr() not in self.held for own in module.parameters(recurse=False)):
                strangers.append(type(module).__name__)

        hook = register_module_forward_pre_hook(look)
        try:
            yield strangers
        finally:
            hook.remove()

"""Where the weights of a base model are: on the device, or in host memory, from where they come back by a copy."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from visionsuit.engine.devices import Device


def _nothing() -> None:
    pass


class Weights:
    """Parameters and buffers of some modules; in host memory at first.

    They stay the same objects wherever they are, so whoever holds a layer computes with what it has at the time. No
    request writes them: a copy in host memory is as good at the next leaving, and is kept from the first one on.

    Args:
        before_leaving: lets go of what else is on the device for these modules.
        pinned: they come and go often.
    """

    def __init__(
        self,
        modules: Sequence[torch.nn.Module],
        device: Device,
        *,
        before_leaving: Callable[[], None] = _nothing,
        pinned: bool = False,
    ) -> None:
        found = {id(tensor): tensor for module in modules for tensor in (*module.parameters(), *module.buffers())}
        self._tensors = list(found.values())
        self._device = device
        self._before_leaving = before_leaving
        self._pinned = pinned
        self._copies: list[torch.Tensor] = []
        self._has_left = False
        self.on_device = False
        self.bytes = sum(tensor.numel() * tensor.element_size() for tensor in self._tensors)

    @property
    def device_bytes(self) -> int:
        return self.bytes if self.on_device else 0

    @property
    def host_bytes(self) -> int:
        return self.bytes if self._copies or not self.on_device else 0

    def enter(self) -> None:
        """Onto the device; where that fails for want of memory they are in host memory as before."""
        if self.on_device:
            return
        held = [tensor.data for tensor in self._tensors]
        try:
            self._put(map(self._device.place, held))
        except BaseException:
            self._put(iter(held))
            raise
        self._copies = held if self._has_left else []
        self.on_device = True

    def leave(self) -> None:
        """Into host memory."""
        if not self.on_device:
            return
        self._before_leaving()
        copies = self._copies or [self._device.fetch(tensor.data, pinned=self._pinned) for tensor in self._tensors]
        self._put(iter(copies))
        self._copies, self._has_left, self.on_device = [], True, False

    def forget_copies(self) -> None:
        """What is kept in host memory while they are on the device; the next leaving takes longer."""
        self._copies = []

    @contextmanager
    def visit(self) -> Iterator[None]:
        """On the device inside, and afterwards where they were."""
        if self.on_device:
            yield
            return
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def _put(self, values: Iterator[torch.Tensor]) -> None:
        # What is made in inference mode cannot become a parameter's value.
        with torch.inference_mode(False):
            for tensor, value in zip(self._tensors, values, strict=True):
                tensor.data = value


class Residence:
    """Of one base model.

    Args:
        denoiser: is called at every step, and so stays on the device.
        guests: the other parts; where the model does not fit as a whole, they come for as long as they are used.
    """

    def __init__(self, denoiser: Weights, *guests: Weights) -> None:
        self._denoiser = denoiser
        self._guests = guests
        self._all = (denoiser, *guests)

    @property
    def on_device(self) -> bool:
        return self._denoiser.on_device

    @property
    def bytes(self) -> int:
        return sum(weights.bytes for weights in self._all)

    @property
    def least_bytes(self) -> int:
        """What is on the device at once at least."""
        return self._denoiser.bytes + max((guest.bytes for guest in self._guests), default=0)

    @property
    def device_bytes(self) -> int:
        return sum(weights.device_bytes for weights in self._all)

    @property
    def host_bytes(self) -> int:
        return sum(weights.host_bytes for weights in self._all)

    def enter(self, *, whole: bool = True) -> None:
        """`whole`: the guests stay too."""
        try:
            for weights in self._all if whole else (self._denoiser,):
                weights.enter()
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        for weights in self._all:
            weights.leave()

    def forget_copies(self) -> None:
        for weights in self._all:
            if weights.on_device:
                weights.forget_copies()


class PipelineResidence(Residence):
    """Of a pipeline of diffusers, which lets its parts come and go by itself where it does not fit as a whole. What is
    added to its modules later comes and goes with them."""

    def __init__(self, pipeline: Any, device: Device) -> None:
        modules = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
        super().__init__(Weights(modules, device))
        self._pipeline = pipeline
        self._device = device
        self._largest = max(Weights([module], device).bytes for module in modules)
        self._is_hooked = False

    @property
    def on_device(self) -> bool:
        return self._is_hooked or super().on_device

    @property
    def least_bytes(self) -> int:
        return self._largest + sum(guest.bytes for guest in self._guests)

    @property
    def device_bytes(self) -> int:
        return self.least_bytes if self._is_hooked else super().device_bytes

    def add(self, weights: Weights) -> None:
        """Of layers that were put into the pipeline; they go where it is."""
        if not self._is_hooked and self.on_device:
            weights.enter()
        self._set_guests(*self._guests, weights)

    def remove(self, weights: Weights) -> None:
        self._set_guests(*(guest for guest in self._guests if guest is not weights))

    @contextmanager
    def unhooked(self) -> Iterator[None]:
        """Nothing comes or goes by itself inside, so that layers can be put into the pipeline."""
        if not self._is_hooked:
            yield
            return
        self.leave()
        try:
            yield
        finally:
            self.enter(whole=False)

    def settle(self) -> None:
        """After a call of the pipeline, or of another one over the same parts, however it ended."""
        if self._is_hooked:
            self._pipeline.maybe_free_model_hooks()

    def _set_guests(self, *guests: Weights) -> None:
        self._guests, self._all = guests, (self._denoiser, *guests)

    def enter(self, *, whole: bool = True) -> None:
        if whole:
            super().enter()
        else:
            self._pipeline.enable_model_cpu_offload(device=self._device.torch_device)
            self._is_hooked = True

    def leave(self) -> None:
        if self._is_hooked:
            self._pipeline.remove_all_hooks()
            self._pipeline.to("cpu")
            self._is_hooked = False
        super().leave()

"""Base models in memory: on the device as long as there is room, then in host memory, least recently used out first."""

from collections import OrderedDict
from dataclasses import dataclass

import torch

from visionsuit.core.config import Offload
from visionsuit.engine.base import BaseModelRef, OutOfDeviceMemory
from visionsuit.engine.base_models import LoadedModel, load_model
from visionsuit.engine.catalog import BaseModelInfo, read_base_model
from visionsuit.engine.devices import Device, available_host_memory
from visionsuit.engine.whole import WholeModel

#: Of the host memory that is free now, what weights may take: others live there too.
_SHARE_OF_FREE = 0.8


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes for the weights of all base models together; `host` counts on devices with memory of their own."""

    device: int
    host: int


class ModelCache:
    """Base models by content key; always room for one on the device. Used by the device thread alone, but for what
    says where they are."""

    def __init__(self, device: Device, budget: Budget, offload: Offload = Offload.AUTO) -> None:
        self._device = device
        self._budget = budget
        self._offload = offload
        self._models: OrderedDict[str, LoadedModel | WholeModel] = OrderedDict()

    @property
    def all(self) -> list[LoadedModel | WholeModel]:
        return list(self._models.values())

    @property
    def on_device(self) -> list[LoadedModel | WholeModel]:
        return [model for model in self.all if model.residence.on_device]

    @property
    def in_host_memory(self) -> list[LoadedModel | WholeModel]:
        return [model for model in self.all if not model.residence.on_device]

    def has_on_device(self, ref: BaseModelRef) -> bool:
        model = self._models.get(ref.key)
        return model is not None and model.residence.on_device

    def has_room(self, ref: BaseModelRef, in_use: set[str]) -> bool:
        """Whether `get` would find room beside the models of `in_use`, or waiting could not help it.

        Raises: ModelUnloadable.
        """
        model = self._models.get(ref.key)
        if not in_use or (model is not None and model.residence.on_device):
            return True
        info = read_base_model(ref.path)
        needed = model.residence.bytes if model is not None else self._expected_bytes(ref, info)
        used = sum(model.residence.bytes for key, model in self._models.items() if key in in_use)
        if used + needed > self._budget.device:
            return False
        return not self._device.has_own_memory or needed + self._picture_bytes(info) <= self._room(in_use)

    def get(self, ref: BaseModelRef, in_use: set[str]) -> LoadedModel | WholeModel:
        """On the device; models of `in_use` stay there too.

        Raises:
            ModelUnloadable
            OutOfDeviceMemory: not even its parts fit one after the other.
        """
        model = self._models.get(ref.key)
        if model is not None and model.residence.on_device:
            self._models.move_to_end(ref.key)
            return model
        keep = in_use | {ref.key}
        info = read_base_model(ref.path)
        if model is None:
            expected = self._expected_bytes(ref, info)
            if self._device.has_own_memory:
                self._make_host_room(expected, keep)
            else:
                self._make_room(expected, keep)
            model = self._models[ref.key] = load_model(ref, self._device)
        self._models.move_to_end(ref.key)
        self._bring(model, info, keep)
        return model

    def keep_only(self, in_use: set[str]) -> None:
        """Every other model leaves the device, and what these hold only for speed is dropped."""
        for key in [key for key in self._models if key not in in_use]:
            self._send_away(key, in_use)
        for model in self._models.values():
            model.loras.free_memory()
            model.prompts.clear()
        self._device.free_cached()

    def clear(self) -> None:
        self._models.clear()
        self._device.free_cached()

    # The device

    def _bring(self, model: LoadedModel | WholeModel, info: BaseModelInfo, keep: set[str]) -> None:
        residence = model.residence
        whole = True
        if self._device.has_own_memory:
            whole = self._fits_whole(model, info, self._room(keep))
            self._make_room(residence.bytes if whole else residence.least_bytes, keep)
        residence.enter(whole=whole)

    def _fits_whole(self, model: LoadedModel | WholeModel, info: BaseModelInfo, room: int) -> bool:
        """Or in parts.

        Raises: OutOfDeviceMemory.
        """
        residence, wish = model.residence, self._offload
        if wish is not Offload.ALWAYS and residence.bytes + self._picture_bytes(info) <= room:
            return True
        if wish is not Offload.NEVER and residence.least_bytes <= room:
            return False
        if wish is Offload.NEVER and residence.bytes <= room:
            return True
        needed = residence.bytes if wish is Offload.NEVER else residence.least_bytes
        raise OutOfDeviceMemory(
            f"{model.label} needs {_gigabytes(needed)} of memory, and {self._device.label} has "
            f"{_gigabytes(room)} free for it."
        )

    def _make_room(self, needed_bytes: int, keep: set[str]) -> None:
        before, has_left = len(self._models), False
        for key in [key for key in self._models if key not in keep and self._models[key].residence.on_device]:
            used = sum(model.residence.device_bytes + model.loras.bytes for model in self._models.values())
            is_free = not self._device.has_own_memory or self._device.free_memory() >= needed_bytes
            if is_free and used + needed_bytes <= self._budget.device:
                break
            self._send_away(key, keep)
            has_left = True
        if has_left:
            # Layers under LoRAs refer to themselves; those that only wait in host memory are not garbage.
            self._device.free_cached(with_cycles=len(self._models) < before)

    def _send_away(self, key: str, keep: set[str]) -> None:
        """Into host memory, or out of all memory where that has no room."""
        model = self._models.get(key)
        if model is None or not model.residence.on_device:
            return
        residence = model.residence
        needed = residence.bytes - residence.host_bytes
        offloads = self._device.has_own_memory and self._offload is not Offload.NEVER
        if offloads and self._make_host_room(needed, keep | {key}):
            model.prompts.clear()
            residence.leave()
        else:
            del self._models[key]

    def _room(self, keep: set[str]) -> int:
        """Bytes of the device's memory that are free when all models but these are away."""
        others = (model for key, model in self._models.items() if key not in keep)
        return self._device.free_memory() + sum(other.residence.device_bytes + other.loras.bytes for other in others)

    # Host memory

    def _make_host_room(self, needed_bytes: int, keep: set[str]) -> bool:
        """Whether there is; models that wait there are dropped for it, copies of those on the device before."""
        if self._has_host_room(needed_bytes):
            return True
        for model in self.all:
            if model.residence.on_device:
                model.residence.forget_copies()
                if self._has_host_room(needed_bytes):
                    return True
        for key in [key for key in self._models if key not in keep and not self._models[key].residence.on_device]:
            del self._models[key]
            if self._has_host_room(needed_bytes):
                return True
        return False

    def _has_host_room(self, needed_bytes: int) -> bool:
        held = sum(model.residence.host_bytes for model in self._models.values())
        free = int(available_host_memory() * _SHARE_OF_FREE)
        return needed_bytes == 0 or (held + needed_bytes <= self._budget.host and needed_bytes <= free)

    # Sizes

    def _picture_bytes(self, info: BaseModelInfo) -> int:
        return self._device.picture_bytes(info.default.width, info.default.height)

    def _expected_bytes(self, ref: BaseModelRef, info: BaseModelInfo) -> int:
        # Files are mostly half precision, so fp32 takes twice their size.
        return info.weights_bytes * (2 if self._device.dtype_for(info.family, ref.dtype) is torch.float32 else 1)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.3g} GB"

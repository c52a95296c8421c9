"""Encoded prompts, by their text and the LoRA mix that the text encoders had; least recently used out first."""

from collections import OrderedDict
from typing import Any

_KEPT_PROMPTS = 64
#: On the device. A prompt of one chunk takes a megabyte, and the longest a hundred of them.
_KEPT_BYTES = 256 * 2**20


class PromptCache:
    """Of one base model; used by the device thread alone."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Any, ...], tuple[Any, int]] = OrderedDict()
        self.bytes = 0

    def get(self, key: tuple[Any, ...]) -> Any:
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def keep(self, key: tuple[Any, ...], encoded: Any, size_bytes: int) -> None:
        self._kept[key] = encoded, size_bytes
        self.bytes += size_bytes
        while len(self._kept) > _KEPT_PROMPTS or self.bytes > _KEPT_BYTES:
            _, (_, dropped_bytes) = self._kept.popitem(last=False)
            self.bytes -= dropped_bytes

    def clear(self) -> None:
        self._kept.clear()
        self.bytes = 0

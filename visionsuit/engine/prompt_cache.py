"""Encoded prompts, by their text and the LoRA mix that the text encoders had; least recently used out first."""

from collections import OrderedDict
from typing import Any

_KEPT_PROMPTS = 64


class PromptCache:
    """Of one base model; used by the device thread alone."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def get(self, key: tuple[Any, ...]) -> Any:
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def keep(self, key: tuple[Any, ...], encoded: Any) -> None:
        self._kept[key] = encoded
        while len(self._kept) > _KEPT_PROMPTS:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        self._kept.clear()

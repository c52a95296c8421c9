"""CLIP's own vocabulary, which every Stable Diffusion checkpoint in one file takes for granted. No torch."""

import gzip
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

_MERGES = Path(__file__).parent / "clip" / "merges.txt.gz"
START, END = "<|startoftext|>", "<|endoftext|>"


@lru_cache(maxsize=1)
def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """(token -> id, merges): 256 bytes, the same at the end of a word, what each merge makes, begin and end."""
    pairs = [line.split(" ") for line in gzip.decompress(_MERGES.read_bytes()).decode().splitlines()]
    merges = [(left, right) for left, right in pairs]
    letters = _letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(left + right for left, right in merges), START, END]
    return {token: number for number, token in enumerate(tokens)}, merges


def pad_token(text_encoder: Mapping[str, Any]) -> str:
    """What a text encoder of this configuration was trained to be padded with: OpenCLIP's with the first token."""
    return "!" if text_encoder["hidden_act"] == "gelu" else END


def _letters() -> list[str]:
    """A printable letter for each byte: its own where it has one, else one from past the bytes."""
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = range(256 - len(own))
    return [chr(number) for number in own] + [chr(256 + number) for number in others]

"""Headers of safetensors files: names, dtypes and shapes of the tensors, without reading a single weight."""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: The format's own limit for the JSON part.
MAX_HEADER_BYTES = 100_000_000


class BadHeader(ValueError):
    """Not a safetensors file, or one that is cut off."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """dtype as the format spells it (`F16`, `BF16`, ...), shape in elements."""

    dtype: str
    shape: tuple[int, ...]


def read_header(path: Path) -> dict[str, Any]:
    """The raw header: tensor name -> {dtype, shape, data_offsets}, and `__metadata__` -> {str: str}.

    Raises:
        BadHeader: the file is too short, its length field makes no sense, or its JSON does not parse.
    """
    try:
        with path.open("rb") as file:
            length = header_length(file.read(8))
            raw = file.read(length)
    except OSError as error:
        raise BadHeader(f"The file cannot be read: {error.strerror or error}.") from error
    return parse_header(raw, length)


def header_length(prefix: bytes) -> int:
    """How many bytes of JSON follow the first eight.

    Raises:
        BadHeader: fewer than eight, or a number that makes no sense.
    """
    if len(prefix) < 8:
        raise BadHeader("The file is too short for a safetensors file.")
    (length,) = struct.unpack("<Q", prefix)
    if length > MAX_HEADER_BYTES:
        raise BadHeader("The file does not begin with a safetensors header.")
    return int(length)


def parse_header(raw: bytes, length: int) -> dict[str, Any]:
    """The JSON part, `length` bytes where the file holds so many.

    Raises:
        BadHeader: it is cut off, or no JSON object.
    """
    if len(raw) < length:
        raise BadHeader("The file ends within its header.")
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadHeader("The safetensors header is not valid JSON.") from error
    if not isinstance(header, dict):
        raise BadHeader("The safetensors header is not a JSON object.")
    return header


def tensors_of(header: Mapping[str, Any]) -> dict[str, TensorInfo]:
    """The well-formed tensors of a raw header; entries that make no sense are left out, never an error."""
    tensors: dict[str, TensorInfo] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if isinstance(entry, TensorInfo):
            tensors[name] = entry
            continue
        if not isinstance(entry, Mapping):
            continue
        shape, dtype = entry.get("shape"), entry.get("dtype")
        if not isinstance(shape, list | tuple) or not isinstance(dtype, str) or len(shape) > 8:
            continue
        if all(type(side) is int and 0 <= side < 2**40 for side in shape):
            tensors[name] = TensorInfo(dtype, tuple(shape))
    return tensors


def metadata_of(header: Mapping[str, Any]) -> dict[str, str]:
    """The free text entries of a raw header."""
    metadata = header.get("__metadata__")
    if not isinstance(metadata, Mapping):
        return {}
    return {str(key): value for key, value in metadata.items() if isinstance(value, str)}

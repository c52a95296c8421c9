"""Is this a whole and honest safetensors file? Answered from its header alone, never by reading a tensor.

The layout (https://github.com/huggingface/safetensors): 8 bytes little-endian header length, the header as a JSON
object of name -> {dtype, shape, data_offsets} and an optional `__metadata__` of texts, then the tensors' bytes
without hole or overlap.
"""

import json
import struct
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from visionsuit.media.errors import BadWeights, UnsupportedWeights, short_name

#: (offset, size) -> at most `size` bytes from there.
ReadRange = Callable[[int, int], bytes]

MAX_HEADER_BYTES = 100_000_000
#: Parsed JSON takes many times its length in memory: headers larger than this are read one at a time.
_LARGE_HEADER_BYTES = 8_000_000
_large_headers = threading.Lock()

_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
CONVERT_HINT = (
    "Load it once with `torch.load(path, weights_only=True)` and write it with `safetensors.torch.save_file`, "
    "or use the converter of your trainer."
)


@dataclass(frozen=True, slots=True)
class WeightsHeader:
    """A verified header.

    Attributes:
        metadata: the free texts of `__metadata__`.
        tensors: name -> {"dtype": str, "shape": list[int], "data_offsets": [int, int]}.
        header_bytes: length of the JSON; the first tensor begins at 8 + header_bytes.
    """

    metadata: dict[str, str]
    tensors: dict[str, dict[str, Any]]
    header_bytes: int

    @property
    def raw(self) -> dict[str, Any]:
        """The header as the file has it, for those who read it by its own rules."""
        return {"__metadata__": self.metadata, **self.tensors}


def check_first_bytes(first: bytes, name: str = "") -> None:
    """Refuse what cannot become a safetensors file, from its first 16 bytes on; fewer bytes pass as far as they go.

    Raises:
        UnsupportedWeights: another format, with how to convert it.
        BadWeights: the length in front makes no sense.
    """
    label = short_name(name)
    if first.startswith(b"PK\x03\x04"):
        raise UnsupportedWeights(
            f"{label} is a zip-packed checkpoint (.ckpt, .pt, .bin), which may run code when opened; "
            "only safetensors is taken.",
            hint=CONVERT_HINT,
        )
    if first[:1] == b"\x80" and first[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and first[8:9] != b"{":
        raise UnsupportedWeights(
            f"{label} is a pickle (.ckpt, .pt, .bin), which may run code when opened; only safetensors is taken.",
            hint=CONVERT_HINT,
        )
    if first.startswith(b"GGUF"):
        raise UnsupportedWeights(f"{label} is a GGUF file; only safetensors is taken.")
    if len(first) >= 8:
        (length,) = struct.unpack("<Q", first[:8])
        if length > MAX_HEADER_BYTES or length < 2:
            raise BadWeights(f"{label} is not a safetensors file: it does not begin with the length of a header.")
    if len(first) >= 9 and first[8:9] != b"{":
        raise BadWeights(f"{label} is not a safetensors file: no JSON header follows the length.")


def read_weights_header(read: ReadRange, size_bytes: int, name: str = "") -> WeightsHeader:
    """Verify header and layout of a file of `size_bytes` that `read` reaches into.

    Raises:
        UnsupportedWeights, BadWeights: with the reason as a sentence.
    """
    label = short_name(name)
    if size_bytes < 10:
        raise BadWeights(f"{label} is empty or far too short for a safetensors file ({size_bytes} bytes).")
    first = read(0, 16)
    check_first_bytes(first, name)
    (length,) = struct.unpack("<Q", first[:8])
    if 8 + length > size_bytes:
        raise BadWeights(
            f"{label} is cut off: its header alone should be {length} bytes, the whole file is {size_bytes}."
        )
    with _large_headers if length > _LARGE_HEADER_BYTES else nullcontext():
        header = _parse(read(8, length), length, label)
    metadata = _check_metadata(header.pop("__metadata__", {}), label)
    _check_layout(header, size_bytes - 8 - length, label)
    return WeightsHeader(metadata=metadata, tensors=header, header_bytes=length)


def read_weights_file(path: Path, name: str = "") -> WeightsHeader:
    """`read_weights_header` over a file on this machine."""
    with path.open("rb") as file:

        def read(offset: int, size: int) -> bytes:
            file.seek(offset)
            return file.read(size)

        return read_weights_header(read, path.stat().st_size, name or path.name)


def _parse(raw: bytes, length: int, label: str) -> dict[str, Any]:
    if len(raw) != length:
        raise BadWeights(f"{label} is cut off within its header.")
    try:
        header = json.loads(raw, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except _DuplicateName as error:
        raise BadWeights(f"{label} has a header that names {short_name(str(error))} twice.") from error
    except (ValueError, RecursionError) as error:
        raise BadWeights(f"{label} has a header that is not valid JSON.") from error
    if not isinstance(header, dict):
        raise BadWeights(f"{label} has a header that is not a JSON object.")
    return header


class _DuplicateName(Exception):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # The last of two equal names wins in most parsers, but not in all: two readers would see two files.
    shape = dict(pairs)
    if len(shape) != len(pairs):
        seen: set[str] = set()
        raise _DuplicateName(next(key for key, _ in pairs if key in seen or seen.add(key)))  # type: ignore[func-returns-value]
    return shape


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _check_metadata(metadata: Any, label: str) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise BadWeights(f"{label} has a `__metadata__` that is not an object of texts.")
    return metadata


def _check_layout(tensors: dict[str, Any], data_bytes: int, label: str) -> None:
    """Every tensor has the bytes that its shape and dtype say, and together they are all the bytes there are."""
    if not tensors:
        raise BadWeights(f"{label} holds no tensors.")
    spans = sorted((_span(name, entry, label), name) for name, entry in tensors.items())
    position = 0
    for (begin, end), name in spans:
        if begin < position:
            raise BadWeights(f"{label}: tensor {short_name(name)} overlaps another one.")
        if begin > position:
            raise BadWeights(f"{label}: {begin - position} bytes before tensor {short_name(name)} belong to nothing.")
        position = end
    if position > data_bytes:
        raise BadWeights(f"{label} is cut off: its tensors need {position} bytes, {data_bytes} are there.")
    if position < data_bytes:
        raise BadWeights(f"{label}: {data_bytes - position} bytes after the last tensor belong to nothing.")


def _span(name: str, entry: Any, label: str) -> tuple[int, int]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise BadWeights(f"{label}: the entry of tensor {short_name(name)} lacks dtype, shape or data_offsets.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    bits = _BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        raise BadWeights(f"{label}: tensor {short_name(name)} has the unknown dtype {short_name(str(dtype))}.")
    if not _is_sizes(shape) or len(shape) > 64:
        raise BadWeights(f"{label}: tensor {short_name(name)} has a shape that makes no sense.")
    if not _is_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise BadWeights(f"{label}: tensor {short_name(name)} has offsets that make no sense.")
    begin, end = offsets
    if (end - begin) * 8 != prod(shape) * bits:
        raise BadWeights(
            f"{label}: tensor {short_name(name)} says {dtype} {shape}, which does not fit its {end - begin} bytes."
        )
    return begin, end


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 2**48 for size in value)

"""safetensors files, read whole (`TensorFile`) or tensor by tensor (`TensorPieces`); places are checked, not believed.

safetensors' own reader takes as long for a thousand small tensors as the rest of applying a LoRA; here a tensor is a
view of the one block that was hashed, so that what is used is what the checksum names. Where no tensor is needed twice,
reading them one by one keeps the memory small and in the processor's caches.
"""

import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any, Self

import torch

from visionsuit.engine.header import BadHeader, TensorInfo, header_length, parse_header, tensors_of

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

#: Bytes that TensorPieces reads at least, and up to which a tensor counts as a number rather than a matrix.
_AHEAD, _SMALL = 2**18, 2**10
_NOTHING = torch.empty(0, dtype=torch.uint8).numpy()


class TensorFile(Mapping[str, torch.Tensor]):
    """Names -> tensors on the CPU, in the file's number formats, all views of one block of memory.

    Attributes:
        sha256: of the whole file, lower-case hexadecimal.
        header: as `read_header` gives it.
        tensors: what the header says of every well-formed tensor.

    Raises:
        BadHeader: on creation: no safetensors file, or one that is cut off; on access: a tensor whose place or number
            format makes no sense.
        OSError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        size = path.stat().st_size
        # Not initialised, since it is overwritten whole; not mapped, since a file cut while in use would kill us.
        self._block = torch.empty(size, dtype=torch.uint8).numpy()
        view = self._block.data
        with path.open("rb", buffering=0) as file:
            _fill(view, file)
        self.sha256 = hashlib.sha256(view).hexdigest()
        length = header_length(bytes(view[:8]))
        self._begin = 8 + length
        self.header = parse_header(bytes(view[8 : self._begin]), length)
        self.tensors = tensors_of(self.header)

    def __getitem__(self, name: str) -> torch.Tensor:
        shape, dtype, offset = _place(name, self.tensors[name], self.header[name], self._block.size - self._begin)
        if 0 in shape:
            return torch.empty(shape, dtype=dtype)
        # Also from places that are no multiple of the element's size, which views of a tensor cannot begin at.
        found = torch.frombuffer(self._block, dtype=dtype, count=math.prod(shape), offset=self._begin + offset)
        return found.view(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


class TensorPieces(Mapping[str, torch.Tensor]):
    """Names -> tensors on the CPU, in the file's number formats, read when asked for, with what follows them in the
    file as far as it is little. To be closed; for one thread.

    Attributes:
        header, tensors: as of `TensorFile`.

    Raises:
        BadHeader: as of `TensorFile`; also on access, if the file was cut off since.
        OSError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        try:
            length = header_length(self._file.read(8))
            self._begin = 8 + length
            self.header = parse_header(self._file.read(length), length)
            self._size = self._file.seek(0, os.SEEK_END)
        except BaseException:
            self._file.close()
            raise
        self.tensors = tensors_of(self.header)
        self._windows: dict[bool, tuple[int, Any]] = {}

    def __getitem__(self, name: str) -> torch.Tensor:
        shape, dtype, offset = _place(name, self.tensors[name], self.header[name], self._size - self._begin)
        count = math.prod(shape)
        if not count:
            return torch.empty(shape, dtype=dtype)
        begin, block = self._window(self._begin + offset, count * dtype.itemsize)
        found = torch.frombuffer(block, dtype=dtype, count=count, offset=self._begin + offset - begin)
        return found.view(shape)

    def _window(self, begin: int, size: int) -> tuple[int, Any]:
        # Numbers like alpha lie apart from matrices, and are asked for by turns with them.
        kind = size <= _SMALL
        first, block = self._windows.get(kind, (0, _NOTHING))
        if begin < first or begin + size > first + block.size:
            block = torch.empty(min(max(size, _AHEAD), self._size - begin), dtype=torch.uint8).numpy()
            self._file.seek(begin)
            _fill(block.data, self._file)
            self._windows[kind] = first, block = begin, block
        return first, block

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _fill(view: memoryview, file: FileIO) -> None:
    read = 0
    while read < len(view):
        count = file.readinto(view[read:])
        if not count:
            raise BadHeader("The file was cut off while it was read.")
        read += count


def _place(
    name: str, info: TensorInfo, entry: Mapping[str, Any], available: int
) -> tuple[tuple[int, ...], torch.dtype, int]:
    """Shape, number format, and where the tensor begins in the file's data, which are `available` bytes long."""
    dtype, offsets = DTYPES.get(info.dtype), entry.get("data_offsets", ())
    if dtype is None:
        raise BadHeader(f"The tensor {name} is in the number format {info.dtype[:20]}, which is not known here.")
    if not _fits(offsets, math.prod(info.shape) * dtype.itemsize, available):
        raise BadHeader(f"The tensor {name} lies outside of the file, or is not as long as its shape says.")
    return info.shape, dtype, offsets[0]


def _fits(offsets: Any, size: int, available: int) -> bool:
    if not isinstance(offsets, list) or len(offsets) != 2:
        return False
    begin, end = offsets
    return type(begin) is int and type(end) is int and 0 <= begin <= end <= available and end - begin == size

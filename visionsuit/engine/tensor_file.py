"""A safetensors file read once: hashed, its header checked against its length, its tensors made where they are wanted.

safetensors' own reader takes as long for a thousand small tensors as the rest of applying a LoRA; here a tensor is a
view of the one block that was hashed, so that what is used is what the checksum names.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from visionsuit.engine.header import BadHeader, header_length, parse_header, tensors_of

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
            read = 0
            while read < size and (count := file.readinto(view[read:])):
                read += count
        if read < size:
            raise BadHeader("The file was cut off while it was read.")
        self.sha256 = hashlib.sha256(view).hexdigest()
        length = header_length(bytes(view[:8]))
        self._begin = 8 + length
        self.header = parse_header(bytes(view[8 : self._begin]), length)
        self.tensors = tensors_of(self.header)

    def __getitem__(self, name: str) -> torch.Tensor:
        info = self.tensors[name]
        dtype, offsets = DTYPES.get(info.dtype), self.header[name].get("data_offsets")
        if dtype is None:
            raise BadHeader(f"The tensor {name} is in the number format {info.dtype[:20]}, which is not known here.")
        count = math.prod(info.shape)
        if not _fits(offsets, count * dtype.itemsize, self._block.size - self._begin):
            raise BadHeader(f"The tensor {name} lies outside of the file, or is not as long as its shape says.")
        if not count:
            return torch.empty(info.shape, dtype=dtype)
        # Also from places that are no multiple of the element's size, which views of a tensor cannot begin at.
        found = torch.frombuffer(self._block, dtype=dtype, count=count, offset=self._begin + offsets[0])
        return found.view(info.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def _fits(offsets: Any, size: int, available: int) -> bool:
    if not isinstance(offsets, list) or len(offsets) != 2:
        return False
    begin, end = offsets
    return type(begin) is int and type(end) is int and 0 <= begin <= end <= available and end - begin == size

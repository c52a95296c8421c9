"""What both drivers share: which ids are ours, and writing a whole stream or nothing."""

import re
from collections.abc import Iterable

from visionsuit.storage.base import ObjectMissing, Writer

#: Bytes handed on at a time. Larger chunks gain nothing measurable; smaller ones cost system calls.
CHUNK_BYTES = 1024 * 1024

_OBJECT_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")


def check_object_id(object_id: str) -> str:
    """Only ids as `core.ids` makes them come near a path or key; every other text names nothing.

    Raises:
        ObjectMissing: the text cannot be the id of a stored object.
    """
    if not _OBJECT_ID.fullmatch(object_id):
        raise ObjectMissing("There is no file with this id.")
    return object_id


def write_all(writer: Writer, chunks: Iterable[bytes]) -> int:
    """Write all chunks and finish; whatever goes wrong on the way leaves nothing behind. Returns the bytes written."""
    size = 0
    try:
        for chunk in chunks:
            writer.write(chunk)
            size += len(chunk)
        writer.finish()
    except BaseException:
        writer.abort()
        raise
    return size

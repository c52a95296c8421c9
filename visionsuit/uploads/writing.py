"""A file on its way into the storage: hashed in a thread beside the stream, bounded while it flows."""

import hashlib
import queue
import threading
from collections.abc import Iterable

from visionsuit.objects.service import StoredFile
from visionsuit.runtime import Runtime
from visionsuit.storage.base import Bucket
from visionsuit.uploads.errors import FileTooLarge

_BLOCKS_WAITING = 4


class Sha256Thread:
    """SHA-256 over blocks in a thread of its own: hashing costs about as much as writing, and runs beside it."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._queue: queue.Queue[bytes | memoryview | None] = queue.Queue(_BLOCKS_WAITING)
        self._thread = threading.Thread(target=self._run, name="upload-sha256", daemon=True)
        self._thread.start()

    def update(self, block: bytes | memoryview) -> None:
        self._queue.put(block)

    def finish(self) -> str:
        """Hexadecimal digest of everything; ends the thread."""
        self._queue.put(None)
        self._thread.join()
        return self._digest.hexdigest()

    def _run(self) -> None:
        while (block := self._queue.get()) is not None:
            self._digest.update(block)


def check_size(size: int, most: int, label: str) -> None:
    """
    Raises:
        FileTooLarge: `size` (so far) exceeds `most`.
    """
    if size > most:
        raise FileTooLarge(f"{label} is larger than the limit of {in_words(most)}.")


def in_words(size: int) -> str:
    for unit, divisor in (("GB", 1024**3), ("MB", 1024**2), ("KB", 1024)):
        if size >= divisor:
            return f"{size / divisor:.3g} {unit}"
    return f"{size} bytes"


def write_stream(
    runtime: Runtime,
    bucket: Bucket,
    object_id: str,
    blocks: Iterable[bytes | memoryview],
    *,
    most: int,
    label: str,
    mime: str,
    file_name: str,
) -> StoredFile:
    """Stream `blocks` to the storage with constant memory, or leave nothing behind.

    Raises:
        FileTooLarge: as soon as more than `most` bytes have come.
        StorageUnavailable
    """
    writer = runtime.storage.open_writer(bucket, object_id)
    digest = Sha256Thread()
    size = 0
    try:
        for block in blocks:
            size += len(block)
            check_size(size, most, label)
            digest.update(block)
            writer.write(block)
        sha256 = digest.finish()
        writer.finish()
    except BaseException:
        digest.finish()
        writer.abort()
        raise
    return StoredFile(object_id, bucket, size, sha256, mime, file_name)


def collect(blocks: Iterable[bytes | memoryview], *, most: int, label: str) -> bytes:
    """A small file whole in memory.

    Raises:
        FileTooLarge: as soon as more than `most` bytes have come.
    """
    data = bytearray()
    for block in blocks:
        check_size(len(data) + len(block), most, label)
        data += block
    return bytes(data)

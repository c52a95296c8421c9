"""Where bytes live. Two implementations: a folder (default) and S3/MinIO."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from visionsuit.core.errors import NotFound, Unavailable


class Bucket(StrEnum):
    MODELS = "models"
    IMAGES = "images"
    PREVIEWS = "previews"
    DATASETS = "datasets"
    OUTPUTS = "outputs"
    AVATARS = "avatars"
    EXPORTS = "exports"


#: The operator's own bucket, of base models: keys in it are names of theirs, nothing here writes to it, and it need
#: not be there.
BASE_MODELS = "base-models"


class ObjectMissing(NotFound):
    code = "object_missing"


class StorageUnavailable(Unavailable):
    code = "storage_unavailable"


class StorageForbids(StorageUnavailable):
    """The storage does not let us list or read something; for what is not there it may say the same."""

    code = "storage_forbids"


@dataclass(frozen=True, slots=True)
class NamedObject:
    """`version` changes with the content. `md5` (hex) where the storage knows it."""

    key: str
    size_bytes: int
    version: str
    md5: str | None = None


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    object_id: str
    size_bytes: int
    modified_at: datetime


class Writer(Protocol):
    """A stream on its way in. Nothing can be read until `finish`; `abort` leaves nothing behind."""

    def write(self, chunk: bytes | memoryview) -> None: ...
    def finish(self) -> None: ...
    def abort(self) -> None: ...


class Storage(Protocol):
    """One interface, two drivers, one contract test. Object ids are random text made by us, never a file's name.

    All methods may raise StorageUnavailable; reads of what is not there raise ObjectMissing.
    """

    def prepare(self) -> None:
        """Create the buckets that are missing."""

    def open_writer(self, bucket: Bucket, object_id: str) -> Writer:
        """Begin a streamed write with constant memory."""

    def put(self, bucket: Bucket, object_id: str, chunks: Iterable[bytes]) -> int:
        """Write all chunks, or leave nothing behind. Returns the bytes written."""

    def read(self, bucket: Bucket, object_id: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Bytes `start` (included) to `end` (excluded; None: to the end), in chunks."""

    def read_bytes(self, bucket: Bucket, object_id: str) -> bytes:
        """The whole object; for what is known to be small."""

    def size(self, bucket: Bucket, object_id: str) -> int:
        """Bytes of the object."""

    def copy(self, bucket: Bucket, object_id: str, to_bucket: Bucket, to_object_id: str) -> None:
        """Copy inside the store, not through this process where the driver can."""

    def delete(self, bucket: Bucket, object_id: str) -> None:
        """Remove the object; removing what is not there is no error."""

    def abandon(self, bucket: Bucket, object_id: str) -> None:
        """Remove the object and what a killed writer of it left; for uploads that never came to be."""

    def list_objects(self, bucket: Bucket) -> Iterator[ObjectInfo]:
        """Everything in the bucket, in no order."""

    def local_path(self, bucket: Bucket, object_id: str) -> Path | None:
        """A path that can be read directly, where the driver has one."""

    def list_named(self) -> Iterator[NamedObject]:
        """Everything in BASE_MODELS; nothing where there is no such bucket.

        Raises:
            StorageForbids
        """

    def read_named(self, key: str, start: int = 0, version: str | None = None) -> Iterator[bytes]:
        """Bytes of an object in BASE_MODELS, from `start` on, in chunks.

        Raises:
            ObjectMissing: it is not there, or no longer of this version.
            StorageForbids
        """

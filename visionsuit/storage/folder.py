"""Objects as files: `<root>/<bucket>/ab/<object id>`, fanned out by the first two characters of the id, 4,096 folders
at most. Earlier versions had two levels, where nearly every file made two folders for itself; those files are found.

A file appears under its name in one rename, so nobody ever reads half of one. Files on their way in lie in
`<root>/.incoming`, locked by the process that writes them: what is unlocked there belongs to a process that died.
"""

import errno
import io
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from visionsuit.storage.base import (
    BASE_MODELS,
    Bucket,
    NamedObject,
    ObjectInfo,
    ObjectMissing,
    StorageUnavailable,
)
from visionsuit.storage.writing import CHUNK_BYTES, check_object_id, write_all

try:
    import fcntl
except ImportError:  # Windows has no flock; there, leftovers are told apart by age.
    fcntl = None  # type: ignore[assignment]

_INCOMING = ".incoming"
_STALE_SECONDS = 24 * 3600


class FolderStorage:
    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def prepare(self) -> None:
        with _readable_errors():
            for bucket in Bucket:
                (self.root / bucket).mkdir(parents=True, exist_ok=True)
            incoming = self._incoming()
            for leftover in incoming.iterdir():
                _remove_if_abandoned(leftover)

    def open_writer(self, bucket: Bucket, object_id: str) -> "FolderWriter":
        target = self._new_path(bucket, object_id)
        with _readable_errors():
            return FolderWriter(target, f"{self.root}/{_INCOMING}/{bucket}.{object_id}")

    def put(self, bucket: Bucket, object_id: str, chunks: Iterable[bytes]) -> int:
        return write_all(self.open_writer(bucket, object_id), chunks)

    def read(self, bucket: Bucket, object_id: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        path = self._path(bucket, object_id)
        # Opened here and not in the generator: a missing file is an answer, not a stream that breaks off.
        with _readable_errors():
            file = path.open("rb", buffering=0)
        return _read_range(file.fileno(), file, start, end)

    def read_bytes(self, bucket: Bucket, object_id: str) -> bytes:
        with _readable_errors():
            return self._path(bucket, object_id).read_bytes()

    def size(self, bucket: Bucket, object_id: str) -> int:
        with _readable_errors():
            return self._path(bucket, object_id).stat().st_size

    def copy(self, bucket: Bucket, object_id: str, to_bucket: Bucket, to_object_id: str) -> None:
        source = self._path(bucket, object_id)
        writer = self.open_writer(to_bucket, to_object_id)
        try:
            with _readable_errors(), source.open("rb") as file:
                shutil.copyfileobj(file, writer.file, CHUNK_BYTES)
            writer.finish()
        except BaseException:
            writer.abort()
            raise

    def delete(self, bucket: Bucket, object_id: str) -> None:
        with _readable_errors():
            self._path(bucket, object_id).unlink(missing_ok=True)

    def abandon(self, bucket: Bucket, object_id: str) -> None:
        self.delete(bucket, object_id)
        with _readable_errors():
            for leftover in self._incoming().glob(f"{bucket}.{object_id}.*"):
                _remove_if_abandoned(leftover)

    def list_objects(self, bucket: Bucket) -> Iterator[ObjectInfo]:
        with _readable_errors():
            for folder, _, names in os.walk(self.root / bucket):
                for name in names:
                    # A file may go between the listing and the look at it.
                    with suppress(FileNotFoundError):
                        stat = os.stat(os.path.join(folder, name))
                        yield ObjectInfo(name, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC))

    def local_path(self, bucket: Bucket, object_id: str) -> Path | None:
        path = self._path(bucket, object_id)
        if not path.is_file():
            raise ObjectMissing("The file is not in the storage.")
        return path

    def list_named(self) -> Iterator[NamedObject]:
        top = self.root / BASE_MODELS
        with _readable_errors():
            for folder, _, names in os.walk(top, followlinks=True):
                for name in names:
                    with suppress(FileNotFoundError):
                        path = Path(folder, name)
                        stat = path.stat()
                        yield NamedObject(path.relative_to(top).as_posix(), stat.st_size, _version(stat))

    def read_named(self, key: str, start: int = 0, version: str | None = None) -> Iterator[bytes]:
        if ".." in PurePosixPath(key).parts or key.startswith("/") or "\0" in key:
            raise ObjectMissing("The file is not in the storage.")
        with _readable_errors():
            file = (self.root / BASE_MODELS / key).open("rb", buffering=0)
            if version is not None and _version(os.fstat(file.fileno())) != version:
                file.close()
                raise ObjectMissing("The file was replaced in the storage.")
        return _read_range(file.fileno(), file, start, None)

    def _new_path(self, bucket: Bucket, object_id: str) -> Path:
        name = check_object_id(object_id)
        # In one piece: joining paths is a noticeable part of storing a small file.
        return Path(f"{self.root}/{Bucket(bucket)}/{name[:2]}/{name}")

    def _path(self, bucket: Bucket, object_id: str) -> Path:
        """Where the object lies; where it would lie if there is none."""
        path = self._new_path(bucket, object_id)
        with _readable_errors():
            if not path.exists():
                earlier = path.parent / object_id[2:4] / object_id
                if earlier.exists():
                    return earlier
        return path

    def _incoming(self) -> Path:
        folder = self.root / _INCOMING
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
        return folder


class FolderWriter:
    """One file on its way in."""

    def __init__(self, target: Path, beginning: str) -> None:
        """`beginning`: of the path where it lies on its way."""
        self._target = target
        self._done = False
        while True:
            self._path = f"{beginning}.{secrets.token_hex(4)}"
            self.file = _create(self._path)
            if fcntl is not None:
                fcntl.flock(self.file, fcntl.LOCK_EX)
            # Another process that starts just now may take the new file for a leftover before it is locked.
            if os.fstat(self.file.fileno()).st_nlink > 0 or fcntl is None:
                return
            self.file.close()

    def write(self, chunk: bytes | memoryview) -> None:
        with _readable_errors():
            view = memoryview(chunk)
            while len(view):
                view = view[self.file.write(view) or 0 :]

    def finish(self) -> None:
        with _readable_errors():
            try:
                os.replace(self._path, self._target)
            except FileNotFoundError:
                self._target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(self._path, self._target)
            self._done = True
            self.file.close()

    def abort(self) -> None:
        if self._done:
            return
        self._done = True
        with _readable_errors():
            with suppress(FileNotFoundError):
                os.unlink(self._path)
            self.file.close()


def _create(path: str) -> io.FileIO:
    """A new file, in a folder that is made if somebody cleared it away."""
    try:
        return io.FileIO(path, "x")
    except FileNotFoundError:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return io.FileIO(path, "x")


def _version(stat: os.stat_result) -> str:
    return f"{stat.st_mtime_ns}-{stat.st_size}"


def _read_range(descriptor: int, file: object, start: int, end: int | None) -> Iterator[bytes]:
    """Chunks from `start` to `end`; `file` is held (and closed) by the generator's life."""
    with _readable_errors(), file:  # type: ignore[attr-defined]
        position = max(0, start)
        while end is None or position < end:
            wanted = CHUNK_BYTES if end is None else min(CHUNK_BYTES, end - position)
            chunk = os.pread(descriptor, wanted, position)
            if not chunk:
                return
            position += len(chunk)
            yield chunk


def _remove_if_abandoned(path: Path) -> None:
    with suppress(FileNotFoundError):
        if fcntl is None:
            if datetime.now(UTC).timestamp() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()
            return
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return  # somebody is writing it
            path.unlink(missing_ok=True)


@contextmanager
def _readable_errors() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ObjectMissing("The file is not in the storage.") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageUnavailable(
                "The disk of this server is full; nothing can be stored until space is made."
            ) from error
        raise StorageUnavailable(
            f"The storage folder cannot be used now ({error.strerror or 'input/output error'})."
        ) from error

"""What every driver promises, run against a real folder and a real S3 server."""

import hashlib
import random
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3server import closed_port
from visionsuit.core.config import StorageSettings
from visionsuit.core.ids import new_id
from visionsuit.storage.base import Bucket, ObjectMissing, Storage, StorageUnavailable
from visionsuit.storage.folder import FolderStorage
from visionsuit.storage.s3 import FIRST_PART_BYTES, S3Storage


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    store: Storage
    if request.param == "folder":
        store = FolderStorage(tmp_path / "storage")
    else:
        settings: StorageSettings = request.getfixturevalue("s3_settings")
        store = S3Storage(settings.model_copy(update={"bucket_prefix": f"t{secrets.token_hex(4)}-"}))
    store.prepare()
    return store


def blob(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def ids_in(storage: Storage, bucket: Bucket) -> set[str]:
    return {info.object_id for info in storage.list_objects(bucket)}


def test_round_trip(storage: Storage) -> None:
    name, data = new_id(), blob(100_000)
    assert storage.put(Bucket.IMAGES, name, [data[:10], b"", data[10:]]) == len(data)
    assert storage.read_bytes(Bucket.IMAGES, name) == data
    assert b"".join(storage.read(Bucket.IMAGES, name)) == data
    assert storage.size(Bucket.IMAGES, name) == len(data)


def test_prepare_twice_keeps_what_is_there(storage: Storage) -> None:
    name = new_id()
    storage.put(Bucket.MODELS, name, [b"kept"])
    storage.prepare()
    assert storage.read_bytes(Bucket.MODELS, name) == b"kept"


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, None, slice(0, None)),
        (5, None, slice(5, None)),
        (0, 1, slice(0, 1)),
        (10, 20, slice(10, 20)),
        (999, 1000, slice(999, 1000)),
        (990, 5000, slice(990, None)),
        (1000, None, slice(0, 0)),
        (2000, 3000, slice(0, 0)),
        (7, 7, slice(0, 0)),
        (9, 3, slice(0, 0)),
    ],
)
def test_ranges(storage: Storage, start: int, end: int | None, expected: slice) -> None:
    name, data = new_id(), blob(1000)
    storage.put(Bucket.IMAGES, name, [data])
    assert b"".join(storage.read(Bucket.IMAGES, name, start, end)) == data[expected]


def test_empty_object(storage: Storage) -> None:
    name = new_id()
    assert storage.put(Bucket.IMAGES, name, []) == 0
    assert storage.size(Bucket.IMAGES, name) == 0
    assert storage.read_bytes(Bucket.IMAGES, name) == b""


def test_nothing_to_read_until_finish(storage: Storage) -> None:
    name = new_id()
    writer = storage.open_writer(Bucket.MODELS, name)
    writer.write(blob(FIRST_PART_BYTES + 1000))
    with pytest.raises(ObjectMissing):
        storage.size(Bucket.MODELS, name)
    writer.finish()
    assert storage.size(Bucket.MODELS, name) == FIRST_PART_BYTES + 1000


@pytest.mark.parametrize("size", [0, 1000, FIRST_PART_BYTES + 1000, 2 * FIRST_PART_BYTES])
def test_abort_leaves_nothing(storage: Storage, size: int) -> None:
    name = new_id()
    writer = storage.open_writer(Bucket.MODELS, name)
    writer.write(blob(size))
    writer.abort()
    writer.abort()
    assert ids_in(storage, Bucket.MODELS) == set()
    assert unfinished(storage) == 0
    with pytest.raises(ObjectMissing):
        storage.read(Bucket.MODELS, name)


def test_abort_after_finish_keeps_the_object(storage: Storage) -> None:
    name = new_id()
    writer = storage.open_writer(Bucket.MODELS, name)
    writer.write(b"done")
    writer.finish()
    writer.abort()
    assert storage.read_bytes(Bucket.MODELS, name) == b"done"


def test_a_stream_that_breaks_leaves_nothing(storage: Storage) -> None:
    def chunks() -> Iterator[bytes]:
        yield blob(FIRST_PART_BYTES * 2)
        raise ConnectionResetError("the sender went away")

    with pytest.raises(ConnectionResetError):
        storage.put(Bucket.MODELS, new_id(), chunks())
    assert ids_in(storage, Bucket.MODELS) == set()
    assert unfinished(storage) == 0


def test_abandon_removes_the_object_and_what_was_unfinished(storage: Storage) -> None:
    name = new_id()
    storage.put(Bucket.MODELS, name, [b"whole"])
    storage.abandon(Bucket.MODELS, name)
    storage.abandon(Bucket.MODELS, name)
    assert ids_in(storage, Bucket.MODELS) == set()


def test_streams_20_mb(storage: Storage) -> None:
    name, data = new_id(), blob(20 * 1000 * 1000)
    pieces = (data[at : at + 65_537] for at in range(0, len(data), 65_537))
    assert storage.put(Bucket.MODELS, name, pieces) == len(data)
    digest = hashlib.sha256()
    for chunk in storage.read(Bucket.MODELS, name):
        assert len(chunk) <= 1024 * 1024
        digest.update(chunk)
    assert digest.digest() == hashlib.sha256(data).digest()
    border = FIRST_PART_BYTES
    assert b"".join(storage.read(Bucket.MODELS, name, border - 3, border + 3)) == data[border - 3 : border + 3]


def test_listing_knows_sizes_and_buckets(storage: Storage) -> None:
    first, second, third = new_id(), new_id(), new_id()
    storage.put(Bucket.IMAGES, first, [b"1"])
    storage.put(Bucket.IMAGES, second, [b"22"])
    storage.put(Bucket.PREVIEWS, third, [b"333"])
    assert {(info.object_id, info.size_bytes) for info in storage.list_objects(Bucket.IMAGES)} == {
        (first, 1),
        (second, 2),
    }
    assert all(info.modified_at.tzinfo for info in storage.list_objects(Bucket.PREVIEWS))
    assert ids_in(storage, Bucket.EXPORTS) == set()


def test_copy(storage: Storage) -> None:
    source, target = new_id(), new_id()
    storage.put(Bucket.OUTPUTS, source, [b"picture"])
    storage.copy(Bucket.OUTPUTS, source, Bucket.IMAGES, target)
    storage.delete(Bucket.OUTPUTS, source)
    assert storage.read_bytes(Bucket.IMAGES, target) == b"picture"


def test_missing_objects(storage: Storage) -> None:
    name = new_id()
    for ask in (
        lambda: storage.read(Bucket.IMAGES, name),
        lambda: storage.read(Bucket.IMAGES, name, 3, 9),
        lambda: storage.read(Bucket.IMAGES, name, 3, 3),
        lambda: storage.read_bytes(Bucket.IMAGES, name),
        lambda: storage.size(Bucket.IMAGES, name),
        lambda: storage.copy(Bucket.IMAGES, name, Bucket.IMAGES, new_id()),
    ):
        with pytest.raises(ObjectMissing):
            ask()
    storage.delete(Bucket.IMAGES, name)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "", "short", "a" * 65, "abcdefgh/../../x", "abcdefgh\0"]
)
def test_ids_that_are_not_ours_name_nothing(storage: Storage, name: str) -> None:
    for ask in (storage.read, storage.size, storage.delete, storage.open_writer, storage.abandon):
        with pytest.raises(ObjectMissing):
            ask(Bucket.IMAGES, name)  # type: ignore[operator]


def test_local_path_leads_to_the_bytes_where_there_is_one(storage: Storage) -> None:
    name = new_id()
    storage.put(Bucket.MODELS, name, [b"bytes"])
    path = storage.local_path(Bucket.MODELS, name)
    assert path is None or path.read_bytes() == b"bytes"
    assert (path is None) == isinstance(storage, S3Storage)


def test_an_endpoint_that_does_not_answer_is_a_sentence() -> None:
    settings = StorageSettings(endpoint=f"http://127.0.0.1:{closed_port()}", access_key="k", secret_key="s")  # type: ignore[arg-type]
    storage = S3Storage(settings)
    with pytest.raises(StorageUnavailable, match="does not answer"):
        storage.size(Bucket.IMAGES, new_id())
    writer = storage.open_writer(Bucket.IMAGES, new_id())
    writer.write(b"x")
    with pytest.raises(StorageUnavailable):
        writer.finish()


def unfinished(storage: Storage) -> int:
    """Files or parts of uploads that never ended."""
    if isinstance(storage, FolderStorage):
        return len(list((storage.root / ".incoming").iterdir()))
    assert isinstance(storage, S3Storage)
    pages = [storage._client.list_multipart_uploads(Bucket=storage._name(bucket)) for bucket in Bucket]
    return sum(len(page.get("Uploads", ())) for page in pages)

import pytest

from tests.conftest import People
from visionsuit.core.ids import new_id
from visionsuit.objects import service as objects
from visionsuit.objects.service import Subject
from visionsuit.runtime import Runtime
from visionsuit.storage.base import Bucket, ObjectMissing

SUBJECT = Subject("image", "abcdefgh")


def in_storage(runtime: Runtime, bucket: Bucket = Bucket.IMAGES) -> set[str]:
    return {info.object_id for info in runtime.storage.list_objects(bucket)}


def test_store_and_find(runtime: Runtime, people: People) -> None:
    with runtime.open_ctx(people.curator) as ctx:
        row = objects.store(ctx, Bucket.IMAGES, b"bytes", SUBJECT, mime="image/png", file_name="a\nb.png")
    assert runtime.storage.read_bytes(Bucket.IMAGES, row.id) == b"bytes"
    assert row.file_name == "a b.png"
    assert row.owner_id == people.curator.user_id
    with runtime.open_ctx(people.guest, read_only=True) as ctx:
        assert objects.get(ctx, Bucket.IMAGES, row.id).sha256 == row.sha256
        assert objects.find(ctx, Bucket.MODELS, row.id) is None
        assert [found.id for found in objects.find_by_sha256(ctx, Bucket.IMAGES, row.sha256)] == [row.id]
        assert not objects.find_by_sha256(ctx, Bucket.MODELS, row.sha256)
        with pytest.raises(ObjectMissing):
            objects.get(ctx, Bucket.IMAGES, new_id())


def test_a_failed_transaction_takes_the_bytes_with_it(runtime: Runtime, people: People) -> None:
    with pytest.raises(RuntimeError), runtime.open_ctx(people.curator) as ctx:  # noqa: PT012
        objects.store(ctx, Bucket.IMAGES, b"bytes", SUBJECT, mime="image/png")
        raise RuntimeError("no")
    assert in_storage(runtime) == set()


def test_delete_waits_for_the_commit(runtime: Runtime, people: People) -> None:
    with runtime.open_ctx(people.curator) as ctx:
        row = objects.store(ctx, Bucket.IMAGES, b"bytes", SUBJECT, mime="image/png")
    with pytest.raises(RuntimeError), runtime.open_ctx(people.curator) as ctx:  # noqa: PT012
        objects.delete(ctx, Bucket.IMAGES, row.id)
        raise RuntimeError("no")
    assert in_storage(runtime) == {row.id}
    with runtime.open_ctx(people.curator) as ctx:
        objects.delete(ctx, Bucket.IMAGES, row.id)
        assert in_storage(runtime) == {row.id}
    assert in_storage(runtime) == set()


def test_delete_of_takes_all_files_of_a_thing_and_no_other(runtime: Runtime, people: People) -> None:
    with runtime.open_ctx(people.curator) as ctx:
        for bucket in (Bucket.IMAGES, Bucket.PREVIEWS):
            objects.store(ctx, bucket, b"mine", SUBJECT, mime="image/png")
        kept = objects.store(ctx, Bucket.IMAGES, b"other", Subject("image", "other"), mime="image/png")
    with runtime.open_ctx(people.curator) as ctx:
        assert objects.delete_of(ctx, SUBJECT) == 2
    assert in_storage(runtime) == {kept.id}
    assert in_storage(runtime, Bucket.PREVIEWS) == set()


def test_assign_moves_a_file_to_another_thing(runtime: Runtime, people: People) -> None:
    with runtime.open_ctx(people.curator) as ctx:
        row = objects.store(ctx, Bucket.IMAGES, b"bytes", SUBJECT, mime="image/png")
    with runtime.open_ctx(people.curator) as ctx:
        objects.assign(ctx, [row.id], Subject("model", "m"))
    with runtime.open_ctx(people.curator, read_only=True) as ctx:
        assert objects.get(ctx, Bucket.IMAGES, row.id).subject_kind == "model"


def test_addresses() -> None:
    assert objects.url_of(Bucket.IMAGES, "abcdefgh") == "/api/storage/images/abcdefgh"
    assert objects.url_of("previews", None) is None

"""Pictures of a render become image pages in galleries."""

import threading
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from tests.conftest import People
from tests.generation.conftest import finished, order, show, submit
from tests.postgres import both_databases
from visionsuit.core.actor import SYSTEM, Actor
from visionsuit.core.errors import AppError, Conflict, InvalidInput, NotFound, NotPermitted
from visionsuit.galleries.service import create_gallery
from visionsuit.galleries.tables import Gallery, GalleryItem
from visionsuit.generation import service
from visionsuit.generation.save import PageDeleted, save
from visionsuit.images.tables import Image
from visionsuit.jobs.worker import Worker
from visionsuit.objects.tables import StorageObject
from visionsuit.runtime import Runtime
from visionsuit.storage.base import Bucket, StorageUnavailable
from visionsuit.storage.folder import FolderStorage
from visionsuit.visibility import Visibility

pytestmark = both_databases


@pytest.fixture
def render(site: Runtime, people: People, worker: Worker) -> str:
    generation_id = submit(site, people.user, order("a red cat " * 20, count=2))
    assert finished(site, people.user, generation_id).status == "completed"
    return generation_id


def count(runtime: Runtime, table: type) -> int:
    with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        return ctx.session.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def files(runtime: Runtime, bucket: Bucket) -> int:
    return len(list(runtime.storage.list_objects(bucket)))


def test_pictures_are_kept_with_their_recipe(site: Runtime, people: People, render: str) -> None:
    saved = save(site, people.user, render, gallery_title="Cats", visibility=Visibility.PUBLIC)
    assert len(saved.images) == 2
    assert saved.gallery is not None
    assert (saved.gallery.title, saved.gallery.visibility) == ("Cats", "public")
    first = saved.images[0]
    assert len(first.title) <= 80
    assert first.recipe is not None
    assert first.recipe["seed"] == 7
    assert first.generation_id == render
    shown = show(site, people.user, render)
    original = site.storage.read_bytes(Bucket.OUTPUTS, shown.images[0].url.rpartition("/")[2])
    assert site.storage.read_bytes(Bucket.IMAGES, first.object_id) == original
    assert site.storage.size(Bucket.PREVIEWS, first.thumb_small_id or "") > 0
    assert all(image.saved for image in shown.images)


def test_saving_again_makes_no_second_page(site: Runtime, people: People, render: str) -> None:
    once = save(site, people.user, render, gallery_title="Cats")
    again = save(site, people.user, render, gallery_title="Cats")
    other = save(site, people.user, render, gallery_title="Dogs")
    assert [image.id for image in once.images] == [image.id for image in again.images]
    assert [image.id for image in once.images] == [image.id for image in other.images]
    assert count(site, Image) == 2
    assert count(site, Gallery) == 2
    assert count(site, GalleryItem) == 4
    assert files(site, Bucket.IMAGES) == 2
    assert files(site, Bucket.PREVIEWS) == 4


def test_saving_at_once_makes_one_page(site: Runtime, people: People, render: str) -> None:
    actor, barrier = people.user, threading.Barrier(6)
    problems: list[BaseException] = []

    def run() -> None:
        barrier.wait()
        try:
            save(site, actor, render, gallery_title="Cats")
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert (count(site, Image), count(site, Gallery), files(site, Bucket.IMAGES)) == (2, 1, 2)


def test_some_pictures_only(site: Runtime, people: People, render: str) -> None:
    second = show(site, people.user, render).images[1]
    saved = save(site, people.user, render, image_ids=[second.id, second.id])
    assert [image.recipe and image.recipe["seed"] for image in saved.images] == [second.seed]
    assert saved.gallery is None
    for wrong in ([], ["x"], [second.id, "\x00"]):
        with pytest.raises(InvalidInput) as refused:
            save(site, people.user, render, image_ids=wrong)
        assert refused.value.field == "image_ids"


def test_a_deleted_page_can_be_saved_again(site: Runtime, people: People, render: str) -> None:
    first = save(site, people.user, render).images[0]
    with site.open_ctx(SYSTEM) as ctx:
        ctx.session.execute(sa.delete(Image).where(sa.column("id") == first.id))
    assert save(site, people.user, render).images[0].id != first.id


def test_a_page_that_goes_meanwhile_is_a_conflict(site: Runtime, people: People, render: str) -> None:
    """Deleted between looking and writing: there is no copy for it."""
    pictures = show(site, people.user, render).images
    kept = save(site, people.user, render, image_ids=[pictures[0].id]).images[0]

    class Interfering(FolderStorage):
        def copy(self, *place: Any) -> None:
            super().copy(*place)
            with site.open_ctx(SYSTEM) as ctx:
                ctx.session.execute(sa.delete(Image).where(sa.column("id") == kept.id))

    storage = Interfering(site.settings.storage_folder)
    stored = files(site, Bucket.IMAGES)
    with pytest.raises(PageDeleted):
        save(replace(site, storage=storage), people.user, render)
    assert files(site, Bucket.IMAGES) == stored, "copies of nobody stayed"
    assert len(save(site, people.user, render).images) == 2


def test_copies_go_when_the_storage_fails_at_a_later_picture(site: Runtime, people: People, render: str) -> None:
    class Failing(FolderStorage):
        copies = 0

        def copy(self, *place: Any) -> None:
            self.copies += 1
            if self.copies == 5:
                raise StorageUnavailable("The storage is out.")
            super().copy(*place)

    with pytest.raises(StorageUnavailable):
        save(replace(site, storage=Failing(site.settings.storage_folder)), people.user, render)
    assert files(site, Bucket.IMAGES) == files(site, Bucket.PREVIEWS) == 0
    assert len(save(site, people.user, render).images) == 2


def test_pages_outlive_the_render(site: Runtime, people: People, render: str) -> None:
    saved = save(site, people.user, render)
    with site.open_ctx(people.user) as ctx:
        service.delete(ctx, render)
    assert site.storage.size(Bucket.IMAGES, saved.images[0].object_id) > 0
    assert count(site, Image) == 2


def test_a_strange_gallery_is_refused_and_leaves_nothing(site: Runtime, people: People, render: str) -> None:
    with site.open_ctx(people.other_user) as ctx:
        public = create_gallery(ctx, title="Theirs", visibility=Visibility.PUBLIC)
        private = create_gallery(ctx, title="Hidden")
    before = count(site, StorageObject)
    for gallery, kind in ((public.public_id, NotPermitted), (private.public_id, NotFound), ("\x00", NotFound)):
        with pytest.raises(kind):
            save(site, people.user, render, gallery_id=gallery)
    with pytest.raises(AppError):
        save(site, people.user, render, gallery_title="t" * 181)
    with pytest.raises(InvalidInput):
        save(site, people.user, render, gallery_title="a", gallery_id="b")
    assert count(site, Image) == 0
    assert count(site, StorageObject) == before
    assert files(site, Bucket.IMAGES) == files(site, Bucket.PREVIEWS) == 0


@pytest.mark.parametrize(
    ("name", "kind"), [("other_user", NotFound), ("curator", NotFound), ("guest", AppError), ("admin", NotPermitted)]
)
def test_only_who_rendered_it_saves_it(
    site: Runtime, people: People, render: str, name: str, kind: type[AppError]
) -> None:
    actor: Actor = getattr(people, name)
    with pytest.raises(kind):
        save(site, actor, render)


def test_what_is_not_done_cannot_be_saved(site: Runtime, people: People) -> None:
    with pytest.raises(Conflict):
        save(site, people.user, submit(site, people.user))

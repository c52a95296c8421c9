"""Keep results: pictures of a render become image pages, in a gallery of one's own."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import col, select

from visionsuit.core.actor import Actor
from visionsuit.core.errors import Conflict, InvalidInput, NotPermitted
from visionsuit.core.ids import new_id
from visionsuit.core.permissions import Permission, require
from visionsuit.galleries.queries import find_own_gallery, get_gallery
from visionsuit.galleries.service import add_items, create_gallery
from visionsuit.galleries.tables import Gallery
from visionsuit.generation.cells import cells_of
from visionsuit.generation.queries import get_generation
from visionsuit.generation.recipe import recipe_of
from visionsuit.generation.tables import Generation, GenerationImage
from visionsuit.images.service import create_image
from visionsuit.images.tables import Image
from visionsuit.objects.service import StoredFile, Subject, adopt, get
from visionsuit.runtime import Ctx, Runtime
from visionsuit.storage.base import Bucket
from visionsuit.visibility import Visibility

_TITLE_CHARACTERS = 80


class NothingToSave(Conflict):
    code = "nothing_to_save"


class PageDeleted(Conflict):
    code = "page_deleted"


class NoSuchPicture(InvalidInput):
    code = "no_such_picture"


@dataclass(frozen=True, slots=True)
class Saved:
    images: list[Image]
    gallery: Gallery | None


@dataclass(frozen=True, slots=True)
class _Copies:
    """A picture's files under new ids, by the row they were copied for."""

    picture: StoredFile
    small: StoredFile
    large: StoredFile


def save(
    runtime: Runtime,
    actor: Actor,
    generation_id: str,
    *,
    gallery_id: str | None = None,
    gallery_title: str | None = None,
    visibility: Visibility = Visibility.PRIVATE,
    image_ids: Sequence[str] | None = None,
) -> Saved:
    """Make image pages of a render's pictures (all of them without `image_ids`), and put them into a gallery if one
    is named: an own one by id, or one of that title, which is made if there is none.

    A picture that was saved before keeps its one page and only joins the gallery. Files are copied with no
    transaction open.

    Raises:
        GenerationNotFound, GalleryNotFound, NotPermitted
        NothingToSave: the render has no pictures (yet).
        NoSuchPicture: an id in `image_ids` is not of this render.
        PageDeleted: a page that there was at the beginning.
    """
    if gallery_id and gallery_title:
        raise InvalidInput("Name one gallery, by id or by title.", field="gallery_title")
    with runtime.open_ctx(actor, read_only=True) as ctx:
        _, pictures = _choose(ctx, generation_id, image_ids)
        fresh = [picture for picture in pictures if _saved_page(ctx, picture) is None]
        files = {picture.public_id: _files(ctx, picture) for picture in fresh}
    unused: dict[str, _Copies] = {}
    try:
        for public_id, originals in files.items():
            unused[public_id] = _copy(runtime, originals)
        with runtime.open_ctx(actor) as ctx:
            generation, pictures = _choose(ctx, generation_id, image_ids, lock=True)
            gallery = _gallery(ctx, gallery_id, gallery_title, visibility)
            images = []
            for picture in pictures:
                page = _saved_page(ctx, picture)
                if page is None:
                    if picture.public_id not in unused:
                        raise PageDeleted("A page of this render was deleted just now. Save again to make a new one.")
                    page = _make_page(ctx, generation, picture, unused[picture.public_id], visibility)
                    del unused[picture.public_id]
                images.append(page)
            if gallery is not None:
                add_items(ctx, gallery, images=images)
    finally:
        # Not all could be copied, rolled back, or another request saved the picture in between. (`adopt` removes what
        # it took.)
        for copy in unused.values():
            for file in (copy.picture, copy.small, copy.large):
                runtime.storage.delete(file.bucket, file.object_id)
    return Saved(images, gallery)


def _choose(
    ctx: Ctx, generation_id: str, image_ids: Sequence[str] | None, *, lock: bool = False
) -> tuple[Generation, list[GenerationImage]]:
    require(ctx.actor, Permission.ASSETS_SAVE)
    generation = get_generation(ctx, generation_id)
    if generation.owner_id != ctx.actor.user_id:
        # An administrator who sees it would become the owner of somebody else's page.
        raise NotPermitted("Only the person who rendered this can save it.")
    query = (
        select(GenerationImage)
        .where(col(GenerationImage.generation_id) == generation.id)
        .order_by(col(GenerationImage.index))
    )
    rows = list(ctx.session.exec(query.with_for_update() if lock else query))
    if not rows:
        raise NothingToSave("This render has no pictures to save.")
    if image_ids is None:
        return generation, [row for row in rows if not row.is_sheet]
    by_id = {row.public_id: row for row in rows}
    chosen = list(dict.fromkeys(image_ids))
    if not chosen:
        raise NoSuchPicture("Choose at least one picture.", field="image_ids")
    for public_id in chosen:
        if public_id not in by_id:
            raise NoSuchPicture("This render has no such picture.", field="image_ids")
    return generation, [by_id[public_id] for public_id in chosen]


def _saved_page(ctx: Ctx, picture: GenerationImage) -> Image | None:
    return None if picture.saved_image_id is None else ctx.session.get(Image, picture.saved_image_id)


def _files(ctx: Ctx, picture: GenerationImage) -> tuple[StoredFile, StoredFile, StoredFile]:
    """The picture's three files as they lie in `outputs`."""
    found = []
    for object_id in (picture.object_id, picture.thumb_small_id, picture.thumb_large_id):
        row = get(ctx, Bucket.OUTPUTS, object_id)
        found.append(StoredFile(row.id, Bucket.OUTPUTS, row.size_bytes, row.sha256, row.mime, row.file_name))
    return found[0], found[1], found[2]


def _copy(runtime: Runtime, originals: tuple[StoredFile, StoredFile, StoredFile]) -> _Copies:
    made: list[StoredFile] = []
    try:
        for original, bucket in zip(originals, (Bucket.IMAGES, Bucket.PREVIEWS, Bucket.PREVIEWS), strict=True):
            object_id = new_id()
            runtime.storage.copy(original.bucket, original.object_id, bucket, object_id)
            made.append(
                StoredFile(object_id, bucket, original.size_bytes, original.sha256, original.mime, original.file_name)
            )
    except BaseException:
        for file in made:
            runtime.storage.delete(file.bucket, file.object_id)
        raise
    return _Copies(*made)


def _gallery(ctx: Ctx, gallery_id: str | None, title: str | None, visibility: Visibility) -> Gallery | None:
    if gallery_id is not None:
        return get_gallery(ctx, gallery_id)
    if title is None:
        return None
    return find_own_gallery(ctx, title) or create_gallery(ctx, title=title, visibility=visibility)


def _make_page(
    ctx: Ctx, generation: Generation, picture: GenerationImage, copies: _Copies, visibility: Visibility
) -> Image:
    request = generation.request
    # A prompt of tags alone leaves nothing to call the page by.
    cells = cells_of(request)
    cell = cells[0] if picture.is_sheet else cells[picture.index]
    title = " ".join((cell.prompt or request["prompt"]).split())
    page = create_image(
        ctx,
        title=title if len(title) <= _TITLE_CHARACTERS else f"{title[: _TITLE_CHARACTERS - 1].rstrip()}…",
        object_id=copies.picture.object_id,
        file_name=copies.picture.file_name,
        mime=copies.picture.mime,
        size_bytes=copies.picture.size_bytes,
        sha256=copies.picture.sha256,
        width=picture.width,
        height=picture.height,
        thumb_small_id=copies.small.object_id,
        thumb_large_id=copies.large.object_id,
        placeholder=picture.placeholder,
        dhash=picture.dhash,
        visibility=visibility,
        recipe=recipe_of(request, cell).model_dump(mode="json"),
        generation_id=generation.public_id,
        permission=Permission.ASSETS_SAVE,
    )
    for file in (copies.picture, copies.small, copies.large):
        adopt(ctx, file, Subject("image", page.public_id))
    picture.saved_image_id = page.id
    ctx.session.add(picture)
    ctx.session.flush()
    return page

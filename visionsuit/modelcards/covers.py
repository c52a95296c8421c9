"""A picture of the library as a card's cover: copied, so that the card keeps it when the picture goes."""

from dataclasses import dataclass
from typing import Any

from visionsuit.core.actor import Actor
from visionsuit.core.errors import InvalidInput
from visionsuit.core.ids import new_id
from visionsuit.images.queries import get_image
from visionsuit.modelcards.tables import ModelCard
from visionsuit.objects import service as objects
from visionsuit.objects.service import StoredFile, Subject
from visionsuit.objects.tables import StorageObject
from visionsuit.runtime import Ctx, Runtime
from visionsuit.search.document import Kind
from visionsuit.storage.base import Bucket


class AdultCover(InvalidInput):
    code = "adult_cover"


@dataclass(frozen=True, slots=True)
class Cover:
    """Files in bucket `previews` that no row names yet."""

    picture: StoredFile
    small: StoredFile
    large: StoredFile
    placeholder: str | None
    width: int
    height: int
    is_adult: bool


def copy_cover(runtime: Runtime, actor: Actor, image_id: str) -> Cover:
    """Copy an image that `actor` sees. Opens a transaction of its own, and none while bytes travel.

    Raises:
        ImageNotFound
    """
    with runtime.open_ctx(actor, read_only=True) as ctx:
        image = get_image(ctx, image_id)
        sources = [(Bucket.IMAGES, image.object_id)]
        for thumb_id in (image.thumb_small_id, image.thumb_large_id):
            sources.append((Bucket.PREVIEWS, thumb_id) if thumb_id else sources[0])
        rows = [objects.get(ctx, bucket, id_) for bucket, id_ in sources]
    picture, small, large = (_copy(runtime, row) for row in rows)
    return Cover(picture, small, large, image.placeholder, image.width, image.height, image.is_adult)


def _copy(runtime: Runtime, row: StorageObject) -> StoredFile:
    copy = StoredFile(new_id(), Bucket.PREVIEWS, row.size_bytes, row.sha256, row.mime, row.file_name)
    runtime.storage.copy(Bucket(row.bucket), row.id, copy.bucket, copy.object_id)
    return copy


def put_cover(ctx: Ctx, card: ModelCard, cover: Cover, *, is_adult: bool) -> dict[str, Any]:
    """Rows for the copied files, in place of the old cover's; returns the card's new columns.

    Raises:
        AdultCover: the picture is for adults and the card is not.
    """
    for file in (cover.picture, cover.small, cover.large):
        objects.adopt(ctx, file, Subject(Kind.MODEL, card.public_id), owner_id=card.owner_id)
    # Only now, since the copies go with the transaction from here on.
    if cover.is_adult and not is_adult:
        raise AdultCover("An adult picture can only be the cover of an adult model.", field="cover_image")
    for old in (card.cover_object_id, card.cover_small_id, card.cover_large_id):
        if old:
            objects.delete(ctx, Bucket.PREVIEWS, old)
    return {
        "cover_object_id": cover.picture.object_id,
        "cover_small_id": cover.small.object_id,
        "cover_large_id": cover.large.object_id,
        "cover_placeholder": cover.placeholder,
        "cover_width": cover.width,
        "cover_height": cover.height,
    }

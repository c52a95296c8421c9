"""Every SELECT on images."""

from collections.abc import Iterable

import sqlalchemy as sa
from sqlmodel import col

from visionsuit.core.errors import NotFound
from visionsuit.core.ids import is_id
from visionsuit.images.tables import Image
from visionsuit.runtime import Ctx
from visionsuit.search.document import Kind
from visionsuit.search.listing import Listing, Source, list_assets
from visionsuit.search.plan import ListRequest, Sort
from visionsuit.visibility import visible_to


class ImageNotFound(NotFound):
    code = "image_not_found"


#: What a tile needs; recipes and descriptions stay where they are.
TILE_COLUMNS = [
    col(column)
    for column in (
        Image.id,
        Image.public_id,
        Image.owner_id,
        Image.title,
        Image.tags,
        Image.visibility,
        Image.is_adult,
        Image.is_reported,
        Image.created_at,
        Image.object_id,
        Image.thumb_small_id,
        Image.thumb_large_id,
        Image.placeholder,
        Image.width,
        Image.height,
    )
]
SOURCE = Source(Kind.IMAGE, Image, TILE_COLUMNS, {Sort.TITLE: (sa.func.lower(col(Image.title)), str)})


def list_images(ctx: Ctx, request: ListRequest) -> Listing:
    """A page of tiles' rows that the actor finds in lists."""
    return list_assets(ctx, SOURCE, request)


def get_image(ctx: Ctx, public_id: str) -> Image:
    """
    Raises:
        ImageNotFound: there is none, or the actor may not know of it.
    """
    found = find_image(ctx, public_id)
    if found is None:
        raise ImageNotFound("There is no such image here, or it is not shared with you.")
    return found


def find_image(ctx: Ctx, public_id: str) -> Image | None:
    """The image, if the actor sees it."""
    found = find_images(ctx, [public_id])
    return found[0] if found else None


def find_images(ctx: Ctx, public_ids: Iterable[str]) -> list[Image]:
    """Those of the images that the actor sees, in the order of `public_ids`."""
    wanted = [public_id for public_id in dict.fromkeys(public_ids) if is_id(public_id)]
    query = sa.select(Image).where(col(Image.public_id).in_(wanted), visible_to(ctx.actor, Image))
    found = {image.public_id: image for image in ctx.session.scalars(query)} if wanted else {}
    return [found[public_id] for public_id in wanted if public_id in found]


def find_image_by_sha256(ctx: Ctx, sha256: str) -> Image | None:
    """The oldest image with these bytes that the actor sees."""
    query = (
        sa.select(Image)
        .where(col(Image.sha256) == sha256.lower(), visible_to(ctx.actor, Image))
        .order_by(col(Image.id))
        .limit(1)
    )
    return ctx.session.scalars(query).first()

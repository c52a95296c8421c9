"""Every SELECT on images."""

import sqlalchemy as sa
from sqlmodel import col

from visionsuit.core.errors import NotFound
from visionsuit.images.tables import Image
from visionsuit.runtime import Ctx
from visionsuit.visibility import visible_to


class ImageNotFound(NotFound):
    code = "image_not_found"


def get_image(ctx: Ctx, public_id: str) -> Image:
    """
    Raises:
        ImageNotFound: there is none, or the actor may not know of it.
    """
    query = sa.select(Image).where(col(Image.public_id) == public_id, visible_to(ctx.actor, Image))
    found = ctx.session.scalars(query).one_or_none()
    if found is None:
        raise ImageNotFound("There is no such image here, or it is not shared with you.")
    return found


def find_image_by_sha256(ctx: Ctx, sha256: str) -> Image | None:
    """The oldest image with these bytes that the actor sees."""
    query = (
        sa.select(Image)
        .where(col(Image.sha256) == sha256.lower(), visible_to(ctx.actor, Image))
        .order_by(col(Image.id))
        .limit(1)
    )
    return ctx.session.scalars(query).first()

"""Every SELECT on galleries."""

import sqlalchemy as sa
from sqlmodel import col

from visionsuit.core.errors import NotFound
from visionsuit.core.text import clean_line
from visionsuit.galleries.tables import Gallery
from visionsuit.runtime import Ctx
from visionsuit.visibility import visible_to


class GalleryNotFound(NotFound):
    code = "gallery_not_found"


def get_gallery(ctx: Ctx, public_id: str) -> Gallery:
    """
    Raises:
        GalleryNotFound: there is none, or the actor may not know of it.
    """
    query = sa.select(Gallery).where(col(Gallery.public_id) == public_id, visible_to(ctx.actor, Gallery))
    found = ctx.session.scalars(query).one_or_none()
    if found is None:
        raise GalleryNotFound("There is no such gallery here, or it is not shared with you.")
    return found


def find_own_by_title(ctx: Ctx, title: str) -> Gallery | None:
    """The actor's own gallery of exactly this title, the oldest if there are several."""
    query = (
        sa.select(Gallery)
        .where(col(Gallery.owner_id) == ctx.actor.user_id, col(Gallery.title) == clean_line(title))
        .order_by(col(Gallery.id))
        .limit(1)
    )
    return ctx.session.scalars(query).first()

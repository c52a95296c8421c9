"""What can be done with galleries. Every change of a row goes through here, so that the search index follows."""

from collections.abc import Iterable

import sqlalchemy as sa
from sqlmodel import col

from visionsuit.core.errors import Conflict, NotSignedIn
from visionsuit.core.permissions import Permission, require
from visionsuit.core.text import clean_description, clean_tags, clean_title
from visionsuit.galleries.tables import Gallery, GalleryItem, ItemKind
from visionsuit.images.tables import Image
from visionsuit.modelcards.tables import ModelCard
from visionsuit.runtime import Ctx
from visionsuit.visibility import Visibility, touch

MAX_ITEMS = 5000


class GalleryFull(Conflict):
    code = "gallery_full"


def create_gallery(
    ctx: Ctx,
    *,
    title: str,
    description: str = "",
    tags: Iterable[str] = (),
    visibility: Visibility = Visibility.PRIVATE,
    is_adult: bool = False,
) -> Gallery:
    """An empty gallery; the actor owns it.

    Raises:
        NotSignedIn, NotPermitted: the actor may not keep pictures.
        InvalidInput: title, description or tags are out of bounds.
    """
    require(ctx.actor, Permission.ASSETS_SAVE)
    if ctx.actor.user_id is None:
        raise NotSignedIn("A gallery needs an owner.")
    gallery = Gallery(
        owner_id=ctx.actor.user_id,
        title=clean_title(title),
        description=clean_description(description),
        tags=clean_tags(tags),
        visibility=Visibility(visibility),
        is_adult=is_adult,
    )
    ctx.session.add(gallery)
    ctx.session.flush()
    return gallery


def add_items(ctx: Ctx, gallery: Gallery, *, images: Iterable[Image] = (), cards: Iterable[ModelCard] = ()) -> None:
    """Put images and cards, which the caller has found visible, at the end. What is in already stays where it is.

    Raises:
        NotPermitted: the gallery is somebody else's.
        GalleryFull: it would hold more than MAX_ITEMS.
    """
    require(ctx.actor, Permission.ASSETS_SAVE, gallery)
    held = ctx.session.execute(
        sa.select(GalleryItem.image_id, GalleryItem.card_id, GalleryItem.position).where(
            col(GalleryItem.gallery_id) == gallery.id
        )
    ).all()
    image_ids = {row.image_id for row in held}
    card_ids = {row.card_id for row in held}
    position = max((row.position for row in held), default=0)
    fresh: list[GalleryItem] = []
    for image in images:
        if image.id not in image_ids:
            image_ids.add(image.id)
            fresh.append(GalleryItem(kind=ItemKind.IMAGE, gallery_id=gallery.id, image_id=image.id, position=0))
    for card in cards:
        if card.id not in card_ids:
            card_ids.add(card.id)
            fresh.append(GalleryItem(kind=ItemKind.MODEL, gallery_id=gallery.id, card_id=card.id, position=0))
    if len(held) + len(fresh) > MAX_ITEMS:
        raise GalleryFull(f"A gallery holds at most {MAX_ITEMS} items; this one has {len(held)}.")
    for offset, item in enumerate(fresh, start=1):
        item.position = position + offset
    ctx.session.add_all(fresh)
    if fresh:
        touch(gallery)
    ctx.session.flush()

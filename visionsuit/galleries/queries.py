"""Every SELECT on galleries and what is in them. Items that the viewer may not see are not there for them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlmodel import col

from visionsuit.core.errors import NotFound
from visionsuit.core.ids import is_id
from visionsuit.core.paging import MAX_LIMIT, Page, decode_cursor, encode_cursor
from visionsuit.galleries.tables import Gallery, GalleryItem, ItemKind
from visionsuit.images import queries as images
from visionsuit.images.tables import Image
from visionsuit.modelcards import queries as modelcards
from visionsuit.modelcards.tables import ModelCard
from visionsuit.runtime import Ctx
from visionsuit.search.document import Kind
from visionsuit.search.links import offers_galleries
from visionsuit.search.listing import Listing, Source, list_assets
from visionsuit.search.plan import ListRequest, Sort
from visionsuit.search.tiles import GalleryRef
from visionsuit.visibility import Asset, Visibility, visible_to


class GalleryNotFound(NotFound):
    code = "gallery_not_found"


TILE_COLUMNS = [
    col(column)
    for column in (
        Gallery.id,
        Gallery.public_id,
        Gallery.owner_id,
        Gallery.title,
        Gallery.tags,
        Gallery.visibility,
        Gallery.is_adult,
        Gallery.is_reported,
        Gallery.created_at,
        Gallery.updated_at,
        Gallery.cover_image_id,
    )
]
SOURCE = Source(Kind.GALLERY, Gallery, TILE_COLUMNS, {Sort.TITLE: (sa.func.lower(col(Gallery.title)), str)})
#: Galleries named on the page of an image or card.
MAX_REFS = 24


def list_galleries(ctx: Ctx, request: ListRequest) -> Listing:
    """A page of tiles' rows that the actor finds in lists."""
    return list_assets(ctx, SOURCE, request)


def get_gallery(ctx: Ctx, public_id: str) -> Gallery:
    """
    Raises:
        GalleryNotFound: there is none, or the actor may not know of it.
    """
    found = find_gallery(ctx, public_id)
    if found is None:
        raise GalleryNotFound("There is no such gallery here, or it is not shared with you.")
    return found


def find_gallery(ctx: Ctx, public_id: str) -> Gallery | None:
    """The gallery, if the actor sees it."""
    if not is_id(public_id):
        return None
    query = sa.select(Gallery).where(col(Gallery.public_id) == public_id, visible_to(ctx.actor, Gallery))
    return ctx.session.scalars(query).one_or_none()


def find_own_gallery(ctx: Ctx, title: str) -> Gallery | None:
    """The actor's oldest gallery of exactly this title."""
    query = sa.select(Gallery).where(col(Gallery.owner_id) == ctx.actor.user_id, col(Gallery.title) == title)
    return ctx.session.scalars(query.order_by(col(Gallery.id)).limit(1)).first()


@dataclass(frozen=True, slots=True)
class ItemRow:
    """A thing in a gallery with the columns of its tile."""

    kind: ItemKind
    row: Any


def list_items(ctx: Ctx, gallery: Gallery, *, cursor: str | None = None, limit: int = 24) -> Page[ItemRow]:
    """What the actor sees in a gallery, in its order.

    Raises:
        BadCursor
    """
    limit = max(1, min(limit, MAX_LIMIT))
    query = (
        sa.select(col(GalleryItem.id), col(GalleryItem.image_id), col(GalleryItem.card_id), col(GalleryItem.position))
        .join(Gallery, col(Gallery.id) == col(GalleryItem.gallery_id))
        .where(col(GalleryItem.gallery_id) == gallery.id, _shown(ctx))
        .order_by(col(GalleryItem.position), col(GalleryItem.id))
        .limit(limit + 1)
    )
    if cursor:
        big = sa.BigInteger()
        place = sa.tuple_(col(GalleryItem.position), col(GalleryItem.id))
        query = query.where(place > sa.tuple_(*(sa.literal(part, big) for part in decode_cursor(cursor, int, int))))
    entries = ctx.session.execute(query).all()
    page = entries[:limit]
    pictures = _rows(ctx, Image, images.TILE_COLUMNS, [entry.image_id for entry in page])
    cards = _rows(ctx, ModelCard, modelcards.TILE_COLUMNS, [entry.card_id for entry in page])
    items = [
        ItemRow(ItemKind.IMAGE, pictures[entry.image_id])
        if entry.image_id is not None
        else ItemRow(ItemKind.MODEL, cards[entry.card_id])
        for entry in page
    ]
    more = len(entries) > limit
    return Page(items, encode_cursor(page[-1].position, page[-1].id) if more else None)


def counts_of(ctx: Ctx, gallery_ids: Iterable[int]) -> dict[int, tuple[int, int]]:
    """Images and cards that the actor sees: gallery primary key -> (images, cards)."""
    query = (
        sa.select(
            col(GalleryItem.gallery_id),
            sa.func.count(col(GalleryItem.image_id)).label("images"),
            sa.func.count(col(GalleryItem.card_id)).label("cards"),
        )
        .join(Gallery, col(Gallery.id) == col(GalleryItem.gallery_id))
        .where(col(GalleryItem.gallery_id).in_(list(gallery_ids)), _shown(ctx))
        .group_by(col(GalleryItem.gallery_id))
    )
    return {row.gallery_id: (row.images, row.cards) for row in ctx.session.execute(query)}


def covers_of(ctx: Ctx, gallery_ids: Iterable[int]) -> dict[int, Any]:
    """The chosen cover if the actor sees it, or else the first image they see: primary key -> the image's columns."""
    first = (
        sa.select(col(GalleryItem.image_id))
        .where(
            col(GalleryItem.gallery_id) == col(Gallery.id), col(GalleryItem.image_id).is_not(None), _shown_image(ctx)
        )
        .correlate(Gallery)
        .limit(1)
    )
    chosen = first.where(col(GalleryItem.image_id) == col(Gallery.cover_image_id))
    first = first.order_by(col(GalleryItem.position), col(GalleryItem.id))
    cover = sa.func.coalesce(chosen.scalar_subquery(), first.scalar_subquery())
    query = sa.select(col(Gallery.id), cover.label("image_id")).where(col(Gallery.id).in_(list(gallery_ids)))
    found = {row.id: row.image_id for row in ctx.session.execute(query)}
    rows = _rows(ctx, Image, images.TILE_COLUMNS, found.values())
    return {gallery_id: rows[image_id] for gallery_id, image_id in found.items() if image_id in rows}


@dataclass(frozen=True, slots=True)
class Entry:
    """A place in a gallery: `id` of the place, `asset_id` and `public_id` of the thing in it."""

    id: int
    kind: ItemKind
    asset_id: int
    public_id: str
    position: int


def list_entries(ctx: Ctx, gallery: Gallery) -> list[Entry]:
    """Everything in a gallery in its order, seen or not: for its owner's changes."""
    query = (
        sa.select(
            col(GalleryItem.id),
            col(GalleryItem.image_id),
            col(GalleryItem.card_id),
            sa.func.coalesce(col(Image.public_id), col(ModelCard.public_id)).label("public_id"),
            col(GalleryItem.position),
        )
        .outerjoin(Image, col(Image.id) == col(GalleryItem.image_id))
        .outerjoin(ModelCard, col(ModelCard.id) == col(GalleryItem.card_id))
        .where(col(GalleryItem.gallery_id) == gallery.id)
        .order_by(col(GalleryItem.position), col(GalleryItem.id))
    )
    return [
        Entry(row.id, ItemKind.IMAGE, row.image_id, row.public_id, row.position)
        if row.image_id is not None
        else Entry(row.id, ItemKind.MODEL, row.card_id, row.public_id, row.position)
        for row in ctx.session.execute(query)
    ]


def lock_gallery(ctx: Ctx, gallery: Gallery) -> None:
    """Keep others from changing what is in the gallery until the transaction ends."""
    ctx.session.execute(sa.select(col(Gallery.id)).where(col(Gallery.id) == gallery.id).with_for_update())


@offers_galleries
def find_galleries_with(ctx: Ctx, kind: Kind, asset_id: int) -> list[GalleryRef]:
    """The newest galleries with an image or card that the actor finds in lists."""
    column = col(GalleryItem.image_id if kind is Kind.IMAGE else GalleryItem.card_id)
    query = (
        sa.select(col(Gallery.public_id), col(Gallery.title))
        .join(GalleryItem, col(GalleryItem.gallery_id) == col(Gallery.id))
        .where(column == asset_id, visible_to(ctx.actor, Gallery, listed=True))
        .order_by(col(Gallery.id).desc())
        .limit(MAX_REFS)
    )
    return [GalleryRef(id=row.public_id, title=row.title) for row in ctx.session.execute(query)]


def _shown(ctx: Ctx) -> sa.ColumnElement[bool]:
    """Whether the actor sees the thing in a place; for queries that join Gallery."""
    return sa.or_(_shown_image(ctx), _exists(ctx, ModelCard, col(GalleryItem.card_id)))


def _shown_image(ctx: Ctx) -> sa.ColumnElement[bool]:
    return _exists(ctx, Image, col(GalleryItem.image_id))


def _exists(ctx: Ctx, table: type[Asset], column: Any) -> sa.ColumnElement[bool]:
    # Whoever has the address of an unlisted gallery also sees the unlisted things that its owner put in it.
    shared = sa.and_(
        col(Gallery.visibility) == Visibility.UNLISTED,
        col(table.owner_id) == col(Gallery.owner_id),
        visible_to(ctx.actor, table),
    )
    return (
        sa.exists()
        .where(col(table.id) == column, sa.or_(visible_to(ctx.actor, table, listed=True), shared))
        .correlate(Gallery, GalleryItem)
    )


def _rows(ctx: Ctx, table: type[Asset], columns: Sequence[Any], ids: Iterable[int | None]) -> dict[int, Any]:
    wanted = {id_ for id_ in ids if id_ is not None}
    if not wanted:
        return {}
    query = sa.select(*columns).where(col(table.id).in_(wanted), visible_to(ctx.actor, table))
    return {row.id: row for row in ctx.session.execute(query)}

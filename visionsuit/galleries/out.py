"""Galleries as programs and pages see them."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal

from visionsuit.accounts.queries import owners_of
from visionsuit.galleries.queries import ItemRow, counts_of, covers_of
from visionsuit.galleries.tables import Gallery, ItemKind
from visionsuit.images.out import ImageTile, image_tiles
from visionsuit.modelcards.out import ModelTile, model_tiles
from visionsuit.runtime import Ctx
from visionsuit.search.tiles import Thumb, Tile, make_thumb, tile_fields


class GalleryTile(Tile):
    """Counts and cover are those of what the viewer sees."""

    kind: Literal["gallery"] = "gallery"
    cover: Thumb | None
    image_count: int
    model_count: int
    updated_at: datetime


class GalleryDetail(GalleryTile):
    description: str
    cover_image_id: str | None


def gallery_tiles(ctx: Ctx, rows: Iterable[Any]) -> list[GalleryTile]:
    """Rows (or selected columns) that the caller has found visible, in their order."""
    return [GalleryTile.model_validate(fields) for fields, _ in _fields(ctx, list(rows))]


def gallery_detail(ctx: Ctx, gallery: Gallery) -> GalleryDetail:
    [(fields, cover)] = _fields(ctx, [gallery])
    chosen = cover is not None and cover.id == gallery.cover_image_id
    return GalleryDetail(**fields, description=gallery.description, cover_image_id=cover.public_id if chosen else None)


def item_tiles(ctx: Ctx, items: Sequence[ItemRow]) -> list[ImageTile | ModelTile]:
    """Tiles of a gallery's things, in their order."""
    images = iter(image_tiles(ctx, [item.row for item in items if item.kind is ItemKind.IMAGE]))
    models = iter(model_tiles(ctx, [item.row for item in items if item.kind is ItemKind.MODEL]))
    return [next(images) if item.kind is ItemKind.IMAGE else next(models) for item in items]


def _fields(ctx: Ctx, rows: Sequence[Any]) -> list[tuple[dict[str, Any], Any]]:
    """Fields of each tile, with the row of its cover."""
    owners = owners_of(ctx, {row.owner_id for row in rows})
    counts = counts_of(ctx, [row.id for row in rows])
    covers = covers_of(ctx, [row.id for row in rows])
    made: list[tuple[dict[str, Any], Any]] = []
    for row in rows:
        image_count, model_count = counts.get(row.id, (0, 0))
        cover = covers.get(row.id)
        fields = tile_fields(ctx.actor, row, owners) | {
            "cover": _cover(cover),
            "image_count": image_count,
            "model_count": model_count,
            "updated_at": row.updated_at,
        }
        made.append((fields, cover))
    return made


def _cover(image: Any) -> dict[str, Any] | None:
    if image is None:
        return None
    return make_thumb(image.thumb_small_id, image.thumb_large_id, image.placeholder, image.width, image.height)

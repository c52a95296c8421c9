"""Images as programs and pages see them."""

from collections.abc import Iterable
from typing import Any, Literal

from visionsuit.accounts.queries import owners_of
from visionsuit.images.tables import Image
from visionsuit.media.recipe import Recipe
from visionsuit.objects.service import url_of
from visionsuit.runtime import Ctx
from visionsuit.search.document import Kind
from visionsuit.search.links import cards_by_hash, galleries_with
from visionsuit.search.tiles import GalleryRef, Thumb, Tile, make_thumb, tile_fields
from visionsuit.storage.base import Bucket


class ImageTile(Tile):
    kind: Literal["image"] = "image"
    url: str
    thumb: Thumb | None
    width: int
    height: int


class ImageDetail(ImageTile):
    description: str
    recipe: Recipe | None
    galleries: list[GalleryRef]
    size_bytes: int
    mime: str
    sha256: str
    file_name: str


def image_tiles(ctx: Ctx, rows: Iterable[Any]) -> list[ImageTile]:
    """Rows (or selected columns) that the caller has found visible, in their order."""
    held = list(rows)
    owners = owners_of(ctx, {row.owner_id for row in held})
    return [ImageTile.model_validate(tile_fields(ctx.actor, row, owners) | _picture(row)) for row in held]


def image_detail(ctx: Ctx, image: Image) -> ImageDetail:
    assert image.id is not None
    return ImageDetail(
        **tile_fields(ctx.actor, image, owners_of(ctx, [image.owner_id])),
        **_picture(image),
        description=image.description,
        recipe=_linked_recipe(ctx, image),
        galleries=galleries_with(ctx, Kind.IMAGE, image.id),
        size_bytes=image.size_bytes,
        mime=image.mime,
        sha256=image.sha256,
        file_name=image.file_name,
    )


def _picture(row: Any) -> dict[str, Any]:
    return {
        "url": url_of(Bucket.IMAGES, row.object_id),
        "thumb": make_thumb(row.thumb_small_id, row.thumb_large_id, row.placeholder, row.width, row.height),
        "width": row.width,
        "height": row.height,
    }


def _linked_recipe(ctx: Ctx, image: Image) -> Recipe | None:
    """The recipe, with every LoRA that the viewer may look up linked to its card, and no other."""
    if image.recipe is None:
        return None
    recipe = Recipe.model_validate(image.recipe)
    cards = cards_by_hash(ctx, {lora.sha256.lower() for lora in recipe.loras if lora.sha256})
    for lora in recipe.loras:
        card = cards.get(lora.sha256.lower()) if lora.sha256 else None
        lora.model_id, lora.title = (card.id, card.title) if card else (None, None)
    return recipe

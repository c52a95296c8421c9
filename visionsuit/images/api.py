"""/api/images: list, show, edit, delete. Pictures come in through /api/uploads."""

from pydantic import BaseModel

from visionsuit.images.out import ImageDetail, ImageTile, image_detail, image_tiles
from visionsuit.images.queries import get_image, list_images
from visionsuit.images.service import change_image, delete_image
from visionsuit.images.tables import Image
from visionsuit.router import CtxDep, ReadCtxDep, Router
from visionsuit.search.params import ListDep
from visionsuit.site.stats import public_counter, register_counter
from visionsuit.visibility import Visibility

router = Router(prefix="/api/images", tags=["images"])
register_counter("images", public_counter(Image))


class ImageList(BaseModel):
    """`notes` says in sentences what of the query was not understood."""

    items: list[ImageTile]
    next_cursor: str | None
    notes: list[str] = []


class ImageEdit(BaseModel):
    """Only the fields that are sent change."""

    title: str | None = None
    description: str | None = None
    tags: list[str] | None = None
    visibility: Visibility | None = None
    adult: bool | None = None


@router.get("")
def get_images(ctx: ReadCtxDep, request: ListDep) -> ImageList:
    """Images that you find, by words and filters."""
    found = list_images(ctx, request)
    return ImageList.model_construct(
        items=image_tiles(ctx, found.rows), next_cursor=found.next_cursor, notes=found.notes
    )


@router.get("/{image_id}")
def get_image_detail(image_id: str, ctx: ReadCtxDep) -> ImageDetail:
    """One image with its recipe; LoRAs of the recipe that are in the library carry `model_id`."""
    return image_detail(ctx, get_image(ctx, image_id))


@router.patch("/{image_id}")
def patch_image(image_id: str, edit: ImageEdit, ctx: CtxDep) -> ImageDetail:
    """Change an image: its owner or an administrator."""
    return image_detail(ctx, change_image(ctx, get_image(ctx, image_id), edit.model_dump(exclude_unset=True)))


@router.delete("/{image_id}", status_code=204)
def delete_image_for_good(image_id: str, ctx: CtxDep) -> None:
    """Delete an image with its files: its owner or an administrator. This cannot be undone."""
    delete_image(ctx, get_image(ctx, image_id))

"""/api/galleries: list, show, make, edit, delete, and what is in them."""

from typing import Annotated

from fastapi import Query, Response
from pydantic import BaseModel, Field

from visionsuit.core.paging import DEFAULT_LIMIT, MAX_LIMIT
from visionsuit.galleries.out import GalleryDetail, GalleryTile, gallery_detail, gallery_tiles, item_tiles
from visionsuit.galleries.queries import get_gallery, list_galleries, list_items
from visionsuit.galleries.service import (
    add_by_id,
    change_gallery,
    create_gallery,
    delete_gallery,
    order_items,
    remove_item,
)
from visionsuit.galleries.tables import Gallery, ItemKind
from visionsuit.images.out import ImageTile
from visionsuit.modelcards.out import ModelTile
from visionsuit.router import CtxDep, ReadCtxDep, Router
from visionsuit.search.params import ListDep
from visionsuit.site.stats import public_counter, register_counter
from visionsuit.visibility import Visibility

router = Router(prefix="/api/galleries", tags=["galleries"])
register_counter("galleries", public_counter(Gallery))

PublicId = Annotated[str, Field(max_length=64)]


class GalleryList(BaseModel):
    """`notes` says in sentences what of the query was not understood."""

    items: list[GalleryTile]
    next_cursor: str | None
    notes: list[str] = []


class ItemList(BaseModel):
    items: list[ImageTile | ModelTile]
    next_cursor: str | None


class GalleryNew(BaseModel):
    title: str
    description: str = ""
    tags: list[str] = []
    visibility: Visibility = Visibility.PRIVATE
    adult: bool = False


class GalleryEdit(BaseModel):
    """Only the fields that are sent change. `cover_image_id` null: the first picture is the cover."""

    title: str | None = None
    description: str | None = None
    tags: list[str] | None = None
    visibility: Visibility | None = None
    adult: bool | None = None
    cover_image_id: str | None = None


class ItemsNew(BaseModel):
    image_ids: Annotated[list[PublicId], Field(max_length=MAX_LIMIT)] = []
    model_ids: Annotated[list[PublicId], Field(max_length=MAX_LIMIT)] = []


class ItemRef(BaseModel):
    kind: ItemKind
    id: PublicId


class Order(BaseModel):
    items: Annotated[list[ItemRef], Field(max_length=5000)]


@router.get("")
def get_galleries(ctx: ReadCtxDep, request: ListDep) -> GalleryList:
    """Galleries that you find, by words and filters."""
    found = list_galleries(ctx, request)
    return GalleryList.model_construct(
        items=gallery_tiles(ctx, found.rows), next_cursor=found.next_cursor, notes=found.notes
    )


@router.post("", status_code=201)
def post_gallery(new: GalleryNew, ctx: CtxDep, response: Response) -> GalleryDetail:
    """An empty gallery of yours."""
    gallery = create_gallery(
        ctx,
        title=new.title,
        description=new.description,
        tags=new.tags,
        visibility=new.visibility,
        is_adult=new.adult,
    )
    response.headers["Location"] = f"/api/galleries/{gallery.public_id}"
    return gallery_detail(ctx, gallery)


@router.get("/{gallery_id}")
def get_gallery_detail(gallery_id: str, ctx: ReadCtxDep) -> GalleryDetail:
    """One gallery; its items have an address of their own."""
    return gallery_detail(ctx, get_gallery(ctx, gallery_id))


@router.patch("/{gallery_id}")
def patch_gallery(gallery_id: str, edit: GalleryEdit, ctx: CtxDep) -> GalleryDetail:
    """Change a gallery: its owner or an administrator."""
    gallery = change_gallery(ctx, get_gallery(ctx, gallery_id), edit.model_dump(exclude_unset=True))
    return gallery_detail(ctx, gallery)


@router.delete("/{gallery_id}", status_code=204)
def delete_gallery_for_good(gallery_id: str, ctx: CtxDep) -> None:
    """Delete a gallery; what is in it stays. This cannot be undone."""
    delete_gallery(ctx, get_gallery(ctx, gallery_id))


@router.get("/{gallery_id}/items")
def get_items(
    gallery_id: str,
    ctx: ReadCtxDep,
    cursor: Annotated[str | None, Query(max_length=2000)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
) -> ItemList:
    """What you see in the gallery, in its order."""
    page = list_items(ctx, get_gallery(ctx, gallery_id), cursor=cursor, limit=limit)
    return ItemList.model_construct(items=item_tiles(ctx, page.items), next_cursor=page.next_cursor)


@router.post("/{gallery_id}/items")
def post_items(gallery_id: str, new: ItemsNew, ctx: CtxDep) -> GalleryDetail:
    """Put images and models at the end; what is in already stays where it is."""
    gallery = get_gallery(ctx, gallery_id)
    add_by_id(ctx, gallery, image_ids=new.image_ids, model_ids=new.model_ids)
    return gallery_detail(ctx, gallery)


@router.delete("/{gallery_id}/items/{kind}/{item_id}", status_code=204)
def delete_item(gallery_id: str, kind: ItemKind, item_id: str, ctx: CtxDep) -> None:
    """Take one thing out of the gallery; the thing itself stays."""
    remove_item(ctx, get_gallery(ctx, gallery_id), kind, item_id)


@router.put("/{gallery_id}/order", status_code=204)
def put_order(gallery_id: str, order: Order, ctx: CtxDep) -> None:
    """The named things come first, in this order; the others follow in the order they had."""
    order_items(ctx, get_gallery(ctx, gallery_id), [(ref.kind, ref.id) for ref in order.items])

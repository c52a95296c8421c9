"""What can be done with galleries. Every change of a row goes through here, so that the search index follows."""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlmodel import col

from visionsuit.core.errors import Conflict, NotFound, NotSignedIn
from visionsuit.core.ids import row_id
from visionsuit.core.permissions import Permission, require
from visionsuit.core.text import clean_description, clean_tags, clean_title
from visionsuit.galleries.queries import Entry, list_entries, lock_gallery
from visionsuit.galleries.tables import Gallery, GalleryItem, ItemKind
from visionsuit.images.queries import find_images
from visionsuit.images.tables import Image
from visionsuit.modelcards.queries import find_cards
from visionsuit.modelcards.tables import ModelCard
from visionsuit.objects import service as objects
from visionsuit.objects.service import Subject
from visionsuit.runtime import Ctx
from visionsuit.search import service as search
from visionsuit.search.document import Document, Kind, make_document
from visionsuit.search.edits import apply_edits
from visionsuit.visibility import Visibility, touch

MAX_ITEMS = 5000


class GalleryFull(Conflict):
    code = "gallery_full"


class ItemNotFound(NotFound):
    code = "item_not_found"


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
    reindex(ctx, gallery)
    return gallery


def change_gallery(ctx: Ctx, gallery: Gallery, edits: dict[str, Any]) -> Gallery:
    """Set the named fields: title, description, tags, visibility, adult, cover_image_id (None: the first picture).

    Raises:
        NotPermitted: neither owner nor administrator.
        InvalidInput: a text is out of bounds.
        ItemNotFound: the cover is no image of the gallery.
    """
    require(ctx.actor, Permission.ASSETS_EDIT, gallery)
    more: dict[str, Any] = {}
    if "cover_image_id" in edits:
        chosen = edits["cover_image_id"]
        entries = list_entries(ctx, gallery) if chosen else []
        more["cover_image_id"] = _entry(entries, ItemKind.IMAGE, chosen).asset_id if chosen else None
    apply_edits(ctx, gallery, edits, **more)
    reindex(ctx, gallery)
    return gallery


def delete_gallery(ctx: Ctx, gallery: Gallery) -> None:
    """Remove the gallery for good. What was in it stays.

    Raises:
        NotPermitted: neither owner nor administrator.
    """
    require(ctx.actor, Permission.ASSETS_EDIT, gallery)
    objects.delete_of(ctx, Subject(Kind.GALLERY, gallery.public_id))
    search.remove(ctx, Kind.GALLERY, row_id(gallery))
    ctx.session.delete(gallery)
    ctx.session.flush()


def add_items(ctx: Ctx, gallery: Gallery, *, images: Iterable[Image] = (), cards: Iterable[ModelCard] = ()) -> None:
    """Put images and cards, which the caller has found visible, at the end. What is in already stays where it is.

    Raises:
        NotPermitted: the gallery is somebody else's.
        GalleryFull: it would hold more than MAX_ITEMS.
    """
    require(ctx.actor, Permission.ASSETS_SAVE, gallery)
    lock_gallery(ctx, gallery)
    entries = list_entries(ctx, gallery)
    held = {(entry.kind, entry.asset_id) for entry in entries}
    wanted = [(ItemKind.IMAGE, row_id(image)) for image in images]
    wanted += [(ItemKind.MODEL, row_id(card)) for card in cards]
    fresh = [thing for thing in dict.fromkeys(wanted) if thing not in held]
    if not fresh:
        return
    if len(entries) + len(fresh) > MAX_ITEMS:
        raise GalleryFull(f"A gallery holds at most {MAX_ITEMS} items; this one has {len(entries)}.")
    end = entries[-1].position if entries else 0
    for position, (kind, asset_id) in enumerate(fresh, start=end + 1):
        ctx.session.add(
            GalleryItem(
                gallery_id=row_id(gallery),
                kind=kind,
                image_id=asset_id if kind is ItemKind.IMAGE else None,
                card_id=asset_id if kind is ItemKind.MODEL else None,
                position=position,
            )
        )
    touch(gallery)
    ctx.session.flush()


def add_by_id(ctx: Ctx, gallery: Gallery, *, image_ids: Iterable[str], model_ids: Iterable[str]) -> None:
    """`add_items` by public ids.

    Raises:
        ItemNotFound: something is not there, or not shared with the actor; nothing is added then.
        NotPermitted, GalleryFull
    """
    images, cards = find_images(ctx, image_ids), find_cards(ctx, model_ids)
    missing = {*image_ids, *model_ids} - {thing.public_id for thing in (*images, *cards)}
    if missing:
        names = ", ".join(sorted(missing))[:300]
        raise ItemNotFound(f"There is no such image or model here, or it is not shared with you: {names}")
    add_items(ctx, gallery, images=images, cards=cards)


def remove_item(ctx: Ctx, gallery: Gallery, kind: ItemKind, public_id: str) -> None:
    """Take one thing out of the gallery; the thing itself stays.

    Raises:
        NotPermitted: the gallery is somebody else's.
        ItemNotFound: it is not in the gallery.
    """
    require(ctx.actor, Permission.ASSETS_SAVE, gallery)
    entry = _entry(list_entries(ctx, gallery), kind, public_id)
    ctx.session.execute(sa.delete(GalleryItem).where(col(GalleryItem.id) == entry.id))
    if kind is ItemKind.IMAGE and gallery.cover_image_id == entry.asset_id:
        gallery.cover_image_id = None
    touch(gallery)
    ctx.session.flush()


def order_items(ctx: Ctx, gallery: Gallery, things: Iterable[tuple[ItemKind, str]]) -> None:
    """Put the named things (kind, public id) first, in this order; the others follow in the order they had.

    Raises:
        NotPermitted: the gallery is somebody else's.
        ItemNotFound: something is not in the gallery.
    """
    require(ctx.actor, Permission.ASSETS_SAVE, gallery)
    lock_gallery(ctx, gallery)
    entries = list_entries(ctx, gallery)
    places = {(entry.kind, entry.public_id): entry for entry in entries}
    named = list(dict.fromkeys(things))
    if any(thing not in places for thing in named):
        raise ItemNotFound("Something in this order is not in the gallery.", field="items")
    first = [places[thing] for thing in named]
    ordered = [*first, *(entry for entry in entries if (entry.kind, entry.public_id) not in set(named))]
    moved = [
        {"id": entry.id, "position": position}
        for position, entry in enumerate(ordered, start=1)
        if entry.position != position
    ]
    if moved:
        ctx.session.execute(sa.update(GalleryItem), moved)
    touch(gallery)
    ctx.session.flush()


def reindex(ctx: Ctx, gallery: Gallery) -> None:
    """Bring the search index up to the row. Whoever changes a row by another way than these functions calls it."""
    search.index(ctx, document_of(gallery))


def document_of(gallery: Gallery) -> Document:
    return make_document(Kind.GALLERY, gallery)


def _entry(entries: Iterable[Entry], kind: ItemKind, public_id: str) -> Entry:
    for entry in entries:
        if entry.kind is kind and entry.public_id == public_id:
            return entry
    raise ItemNotFound("This is not in the gallery.")

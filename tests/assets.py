"""Rows to test with, made by the services that make real ones."""

import io
from typing import Any

import PIL.Image

from visionsuit.core.actor import Actor
from visionsuit.core.ids import new_id
from visionsuit.galleries.service import create_gallery
from visionsuit.galleries.tables import Gallery
from visionsuit.images.service import create_image
from visionsuit.images.tables import Image
from visionsuit.modelcards.service import create_card
from visionsuit.modelcards.tables import ModelCard
from visionsuit.objects.service import Subject, store
from visionsuit.runtime import Ctx, Runtime
from visionsuit.storage.base import Bucket
from visionsuit.visibility import Asset, Visibility


def picture_file(size: tuple[int, int] = (8, 8), colour: str = "#8b5cf6", kind: str = "PNG", **options: Any) -> bytes:
    """A picture of one colour as a file; `options` are those of Pillow's `save`."""
    out = io.BytesIO()
    PIL.Image.new("RGB", size, colour).save(out, kind, **options)
    return out.getvalue()


def new_image(ctx: Ctx, **fields: Any) -> Image:
    """A public image without stored bytes, unless `fields` say otherwise."""
    given = {
        "title": "Untitled",
        "object_id": new_id(),
        "file_name": "picture.png",
        "mime": "image/png",
        "size_bytes": 10,
        "sha256": new_id().encode().hex(),
        "width": 64,
        "height": 48,
        "thumb_small_id": new_id(),
        "thumb_large_id": new_id(),
        "visibility": Visibility.PUBLIC,
    }
    return create_image(ctx, **(given | fields))


def new_card(ctx: Ctx, **fields: Any) -> ModelCard:
    """A public LoRA card without stored bytes, unless `fields` say otherwise."""
    given = {
        "title": "Untitled",
        "object_id": new_id(),
        "file_name": "weights.safetensors",
        "size_bytes": 1000,
        "sha256": new_id().encode().hex(),
        "visibility": Visibility.PUBLIC,
    }
    return create_card(ctx, **(given | fields))


def new_gallery(ctx: Ctx, **fields: Any) -> Gallery:
    """An empty public gallery, unless `fields` say otherwise."""
    return create_gallery(ctx, **({"title": "Untitled", "visibility": Visibility.PUBLIC} | fields))


def stored_image(runtime: Runtime, actor: Actor, **fields: Any) -> str:
    """A public image with three files in the storage; its public id."""
    with runtime.open_ctx(actor) as ctx:
        image = new_image(ctx, **fields)
        subject = Subject("image", image.public_id)
        image.object_id = store(ctx, Bucket.IMAGES, b"picture", subject, mime="image/png").id
        image.thumb_small_id = store(ctx, Bucket.PREVIEWS, b"small", subject, mime="image/webp").id
        image.thumb_large_id = store(ctx, Bucket.PREVIEWS, b"large", subject, mime="image/webp").id
        return image.public_id


MAKERS = {"images": new_image, "models": new_card, "galleries": new_gallery}


def made(runtime: Runtime, actor: Actor, where: str, **fields: Any) -> Asset:
    """An asset of the list `where` (images, models, galleries), in a transaction of its own."""
    with runtime.open_ctx(actor) as ctx:
        return MAKERS[where](ctx, **fields)

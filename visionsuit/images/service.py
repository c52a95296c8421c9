"""What can be done with images. Every change of a row goes through here, so that the search index follows."""

from collections.abc import Iterable
from typing import Any

from visionsuit.core.errors import NotSignedIn
from visionsuit.core.ids import row_id
from visionsuit.core.permissions import Permission, require
from visionsuit.core.text import clean_description, clean_line, clean_tags, clean_title
from visionsuit.images.tables import Image
from visionsuit.objects import service as objects
from visionsuit.objects.service import Subject
from visionsuit.runtime import Ctx
from visionsuit.search import service as search
from visionsuit.search.document import Document, Kind, make_document
from visionsuit.search.edits import apply_edits
from visionsuit.visibility import Visibility


def create_image(
    ctx: Ctx,
    *,
    title: str,
    object_id: str,
    file_name: str,
    mime: str,
    size_bytes: int,
    sha256: str,
    width: int,
    height: int,
    thumb_small_id: str | None,
    thumb_large_id: str | None,
    placeholder: str | None = None,
    dhash: str | None = None,
    description: str = "",
    tags: Iterable[str] = (),
    visibility: Visibility = Visibility.PRIVATE,
    is_adult: bool = False,
    recipe: dict[str, Any] | None = None,
    generation_id: str | None = None,
    permission: Permission = Permission.ASSETS_UPLOAD,
) -> Image:
    """Row for a picture whose bytes are stored already; the actor owns it.

    Args:
        object_id: file in bucket `images`. thumb_small_id, thumb_large_id: WebP in bucket `previews`.
        recipe: in the shape of `images.recipe.Recipe`.
        permission: ASSETS_UPLOAD for files that come from outside, ASSETS_SAVE for renders made here.

    Raises:
        NotSignedIn, NotPermitted: the actor lacks `permission`.
        InvalidInput: title, description or tags are out of bounds.
    """
    require(ctx.actor, permission)
    if ctx.actor.user_id is None:
        raise NotSignedIn("An image needs an owner.")
    image = Image(
        owner_id=ctx.actor.user_id,
        title=clean_title(title),
        description=clean_description(description),
        tags=clean_tags(tags),
        visibility=Visibility(visibility),
        is_adult=is_adult,
        object_id=object_id,
        file_name=clean_line(file_name)[-255:],
        mime=mime,
        size_bytes=size_bytes,
        sha256=sha256,
        width=width,
        height=height,
        thumb_small_id=thumb_small_id,
        thumb_large_id=thumb_large_id,
        placeholder=placeholder,
        dhash=dhash,
        recipe=recipe,
        generation_id=generation_id,
    )
    ctx.session.add(image)
    ctx.session.flush()
    reindex(ctx, image)
    return image


def change_image(ctx: Ctx, image: Image, edits: dict[str, Any]) -> Image:
    """Set the named fields: title, description, tags, visibility, adult.

    Raises:
        NotPermitted: neither owner nor administrator.
        InvalidInput: a text is out of bounds.
    """
    apply_edits(ctx, image, edits)
    reindex(ctx, image)
    return image


def delete_image(ctx: Ctx, image: Image) -> None:
    """Remove the image for good: row, index, places in galleries, and its files once that is durable.

    Raises:
        NotPermitted: neither owner nor administrator.
    """
    require(ctx.actor, Permission.ASSETS_EDIT, image)
    objects.delete_of(ctx, Subject(Kind.IMAGE, image.public_id))
    search.remove(ctx, Kind.IMAGE, row_id(image))
    ctx.session.delete(image)
    ctx.session.flush()


def reindex(ctx: Ctx, image: Image) -> None:
    """Bring the search index up to the row. Whoever changes a row by another way than these functions calls it."""
    search.index(ctx, document_of(image))


def document_of(image: Image) -> Document:
    recipe = image.recipe or {}
    loras = [str(lora.get("name", "")) for lora in recipe.get("loras", ())]
    texts = [str(recipe.get("prompt") or ""), *loras, image.file_name]
    return make_document(Kind.IMAGE, image, texts, base_models=[recipe.get("base_model")])

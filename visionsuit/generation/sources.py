"""The picture that a request begins with: an image page, a result, or an upload, as far as the actor sees it."""

from dataclasses import dataclass

from sqlmodel import col, select

from visionsuit.core.errors import AppError, NotFound
from visionsuit.core.ids import is_id
from visionsuit.generation.inputs import get_input, use_input
from visionsuit.generation.order import BadOrder, InitOrder
from visionsuit.generation.queries import visible
from visionsuit.generation.tables import Generation, GenerationImage
from visionsuit.images.queries import get_image
from visionsuit.runtime import Ctx
from visionsuit.storage.base import Bucket

KINDS = ("image_id", "generation_image_id", "input_id")


class GenerationImageNotFound(NotFound):
    code = "generation_image_not_found"


@dataclass(frozen=True, slots=True)
class Source:
    """A stored picture; its size as shown, in pixels."""

    bucket: Bucket
    object_id: str
    width: int
    height: int


def find_source(ctx: Ctx, init: InitOrder, *, keep: bool = False) -> Source:
    """What `init` names. `keep`: an upload is needed from now on.

    Raises:
        BadOrder: it names none, or several.
        ImageNotFound, GenerationImageNotFound, InputNotFound: there is none, or the actor may not know of it.
    """
    named = [kind for kind in KINDS if getattr(init, kind) is not None]
    if len(named) != 1:
        raise BadOrder(
            "Name one picture to begin with: " + ("none is named." if not named else f"{' and '.join(named)} are two."),
            field="init" if not named else f"init.{named[1]}",
            hint="Send one of image_id, generation_image_id and input_id.",
        )
    field = f"init.{named[0]}"
    try:
        if init.image_id is not None:
            image = get_image(ctx, init.image_id)
            return Source(Bucket.IMAGES, image.object_id, image.width, image.height)
        if init.generation_image_id is not None:
            result = get_result(ctx, init.generation_image_id)
            return Source(Bucket.OUTPUTS, result.object_id, result.width, result.height)
        return _upload(ctx, init.input_id or "", keep)
    except AppError as error:
        error.field = field
        raise


def find_mask(ctx: Ctx, init: InitOrder, *, keep: bool = False) -> Source | None:
    """
    Raises:
        InputNotFound
    """
    if init.mask_input_id is None:
        return None
    try:
        return _upload(ctx, init.mask_input_id, keep)
    except AppError as error:
        error.field = "init.mask_input_id"
        raise


def get_result(ctx: Ctx, public_id: str) -> GenerationImage:
    """
    Raises:
        GenerationImageNotFound: there is none, or its render is not the actor's to see.
    """
    found = None
    if is_id(public_id):
        query = (
            select(GenerationImage)
            .join(Generation, col(Generation.id) == col(GenerationImage.generation_id))
            .where(col(GenerationImage.public_id) == public_id, visible(ctx))
        )
        found = ctx.session.exec(query).first()
    if found is None:
        raise GenerationImageNotFound("There is no such picture of a render, or it is not yours.")
    return found


def _upload(ctx: Ctx, public_id: str, keep: bool) -> Source:
    row = use_input(ctx, public_id) if keep else get_input(ctx, public_id)
    return Source(Bucket.OUTPUTS, row.object_id, row.width, row.height)

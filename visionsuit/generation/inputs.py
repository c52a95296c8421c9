"""Pictures that people send to work from, and masks: private, few a person, and gone when nobody needs them."""

from collections.abc import Iterator
from datetime import timedelta

import sqlalchemy as sa
import structlog
from sqlmodel import col, select

from visionsuit.core.actor import SYSTEM, Actor
from visionsuit.core.clock import utcnow
from visionsuit.core.errors import Conflict, NotFound, TooMany
from visionsuit.core.ids import is_id
from visionsuit.core.permissions import Permission, require
from visionsuit.generation.tables import Generation, GenerationInput
from visionsuit.jobs.tables import ACTIVE, Job
from visionsuit.media.errors import short_name
from visionsuit.media.pictures import SUFFIXES, read_picture
from visionsuit.objects import service as objects
from visionsuit.objects.service import Subject
from visionsuit.runtime import Ctx, Runtime
from visionsuit.site.live import require_may_generate
from visionsuit.storage.base import Bucket
from visionsuit.uploads.errors import MissingFile
from visionsuit.uploads.multipart import read_parts
from visionsuit.uploads.writing import collect

log = structlog.get_logger()

SUBJECT = "generation_input"
#: After its last use; what a waiting render needs stays for as long as that waits.
KEEP_FOR = timedelta(days=1)
#: Fields of a request's `init` that name inputs.
FIELDS = ("input_id", "mask_input_id")


class InputNotFound(NotFound):
    code = "input_not_found"


class InputInUse(Conflict):
    code = "input_in_use"


class TooManyInputs(TooMany):
    code = "too_many_inputs"


def receive_input(
    runtime: Runtime, actor: Actor, blocks: Iterator[bytes], *, boundary: bytes | None, name: str = ""
) -> GenerationInput:
    """Verify and keep a picture: the form's `file` with a `boundary`, else the body itself.

    Raises:
        NotSignedIn, NotPermitted, GeneratorClosed: the actor may not render.
        MissingFile, FileTooLarge, UnsupportedPicture, PictureTooLarge, BadPicture
        TooManyInputs: all that are kept for the actor are needed.
    """
    with runtime.open_ctx(actor, read_only=True) as ctx:
        require_may_generate(ctx)
    limits = runtime.settings.limits
    if boundary is None:
        data = collect(blocks, most=limits.image_bytes, label=short_name(name))
    else:
        data, name = b"", ""
        for part in read_parts(blocks, boundary):
            if part.name == "file" and part.file_name is not None:
                name = part.file_name
                data = collect(part.data, most=limits.image_bytes, label=short_name(name))
                break
    if not data:
        raise MissingFile("Send the picture as the form field 'file', or as the body.", field="file")
    picture = read_picture(data, name, max_pixels=limits.image_pixels)
    stored = objects.write(
        runtime, Bucket.OUTPUTS, picture.data, mime=picture.mime, file_name=f"input{SUFFIXES[picture.kind]}"
    )
    with runtime.open_ctx(actor) as ctx:
        # First, so that the file goes again whatever happens below.
        ctx.after_rollback(lambda: runtime.storage.delete(Bucket.OUTPUTS, stored.object_id))
        require_may_generate(ctx)
        assert actor.user_id is not None
        _make_room(ctx, actor.user_id, limits.generation_inputs)
        row = GenerationInput(
            owner_id=actor.user_id, object_id=stored.object_id, width=picture.width, height=picture.height
        )
        objects.adopt(ctx, stored, Subject(SUBJECT, row.public_id), keeps_file=True)
        ctx.session.add(row)
        ctx.session.flush()
        return row


def get_input(ctx: Ctx, public_id: str, *, lock: bool = False) -> GenerationInput:
    """
    Raises:
        InputNotFound: there is none, or it is somebody else's.
    """
    found = None
    if is_id(public_id) and ctx.actor.user_id is not None:
        query = select(GenerationInput).where(
            col(GenerationInput.public_id) == public_id, col(GenerationInput.owner_id) == ctx.actor.user_id
        )
        found = ctx.session.exec(query.with_for_update() if lock else query).first()
    if found is None:
        raise InputNotFound(
            "There is no such uploaded picture, or it is not yours.",
            hint="Uploads are kept for a day after their last use; send it again.",
        )
    return found


def use_input(ctx: Ctx, public_id: str) -> GenerationInput:
    """For a request that is being submitted: from now on it stays.

    Raises:
        InputNotFound
    """
    row = get_input(ctx, public_id, lock=True)
    row.used_at = utcnow()
    ctx.session.add(row)
    return row


def delete_input(ctx: Ctx, public_id: str) -> None:
    """
    Raises:
        InputNotFound, NotPermitted
        InputInUse: a render that waits or runs needs it.
    """
    row = get_input(ctx, public_id, lock=True)
    require(ctx.actor, Permission.GENERATIONS_EDIT, row)
    if row.public_id in _needed(ctx, row.owner_id):
        raise InputInUse("A render that is not done yet needs this picture.", hint="Cancel it, or wait for it.")
    _remove(ctx, row)


def sweep_inputs(runtime: Runtime, *, keep_for: timedelta = KEEP_FOR) -> int:
    """Remove what was not used for `keep_for` and no waiting render needs. Returns how many."""
    before = utcnow() - keep_for
    removed = 0
    with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        owners = set(
            ctx.session.scalars(sa.select(col(GenerationInput.owner_id)).where(col(GenerationInput.used_at) < before))
        )
    for owner_id in owners:
        with runtime.open_ctx(SYSTEM) as ctx:
            # Locked before it is known who needs them: a request that is being submitted has locked what it names.
            rows = _of_owner(ctx, owner_id, before=before)
            needed = _needed(ctx, owner_id)
            for row in rows:
                if row.public_id not in needed:
                    _remove(ctx, row)
                    removed += 1
    if removed:
        log.info("inputs_swept", files=removed)
    return removed


def _make_room(ctx: Ctx, owner_id: int, most: int) -> None:
    rows = _of_owner(ctx, owner_id)
    excess = len(rows) + 1 - most
    if excess <= 0:
        return
    needed = _needed(ctx, owner_id)
    unneeded = [row for row in rows if row.public_id not in needed]
    if len(unneeded) < excess:
        raise TooManyInputs(
            f"You have {len(rows)} uploaded pictures that waiting renders need; {most} is the most.", retry_after_s=30
        )
    for row in unneeded[:excess]:
        _remove(ctx, row)


def _of_owner(ctx: Ctx, owner_id: int, *, before: object = None) -> list[GenerationInput]:
    """Longest unused first, locked."""
    query = select(GenerationInput).where(col(GenerationInput.owner_id) == owner_id)
    if before is not None:
        query = query.where(col(GenerationInput.used_at) < before)
    return list(
        ctx.session.exec(query.order_by(col(GenerationInput.used_at), col(GenerationInput.id)).with_for_update())
    )


def _needed(ctx: Ctx, owner_id: int) -> set[str]:
    """Public ids that the owner's waiting and running renders name."""
    query = (
        select(Generation)
        .join(Job, col(Job.id) == col(Generation.job_id))
        .where(col(Generation.owner_id) == owner_id, col(Job.state).in_(ACTIVE))
    )
    return {
        init[field]
        for generation in ctx.session.exec(query)
        if (init := generation.request.get("init"))
        for field in FIELDS
        if init[field]
    }


def _remove(ctx: Ctx, row: GenerationInput) -> None:
    objects.delete(ctx, Bucket.OUTPUTS, row.object_id)
    ctx.session.delete(row)
    ctx.session.flush()

"""Uploads as use cases. Start reading here: one multipart request, or a draft, its files and `publish`.

Bytes travel with no transaction open; each function opens short ones of its own, so it takes the runtime.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

from visionsuit.core.actor import Actor
from visionsuit.core.clock import utcnow
from visionsuit.core.errors import InvalidInput
from visionsuit.core.ids import row_id
from visionsuit.galleries.tables import Gallery
from visionsuit.images.tables import Image
from visionsuit.modelcards.tables import ModelCard
from visionsuit.runtime import Ctx, Runtime
from visionsuit.uploads import drafts
from visionsuit.uploads.drafts import Announced
from visionsuit.uploads.errors import DraftNotFound, TooManyFiles
from visionsuit.uploads.multipart import FormTexts, Part, read_parts
from visionsuit.uploads.publish import (
    ImagesMetadata,
    ModelMetadata,
    check_duplicate,
    parse_metadata,
    publish_images,
    publish_model,
)
from visionsuit.uploads.receive import Blocks
from visionsuit.uploads.tables import DraftKind, FileRole, UploadDraft, UploadFile

T = TypeVar("T")
U = TypeVar("U")

_MODEL_FIELDS = {"file": FileRole.WEIGHTS, "cover": FileRole.COVER}
_IMAGE_FIELDS = {"files": FileRole.IMAGE}


def upload_model(
    runtime: Runtime, actor: Actor, blocks: Iterator[bytes], boundary: bytes, show: Callable[[Ctx, ModelCard], T]
) -> T:
    """A multipart form with `file`, `cover` and the fields of ModelMetadata -> a card, as `show` presents it.

    Raises:
        NotSignedIn, NotPermitted: before a byte is read.
        AppError: whatever else is refused; nothing is left behind then.
    """
    with drafts.direct_draft(runtime, actor, DraftKind.MODEL) as draft_id:
        texts = _receive_form(runtime, actor, draft_id, read_parts(blocks, boundary), _MODEL_FIELDS, single=True)
        metadata = parse_metadata(ModelMetadata, texts.as_values(lists=("tags",)))
        with runtime.open_ctx(actor) as ctx:
            return show(ctx, publish_model(ctx, _take_files(ctx, draft_id), metadata))


def upload_images(
    runtime: Runtime,
    actor: Actor,
    blocks: Iterator[bytes],
    boundary: bytes,
    show: Callable[[Ctx, list[Image], Gallery | None], T],
) -> T:
    """A multipart form with `files` and the fields of ImagesMetadata -> image pages, as `show` presents them.

    Raises:
        as `upload_model`
    """
    with drafts.direct_draft(runtime, actor, DraftKind.IMAGES) as draft_id:
        texts = _receive_form(runtime, actor, draft_id, read_parts(blocks, boundary), _IMAGE_FIELDS, single=False)
        metadata = parse_metadata(ImagesMetadata, texts.as_values(lists=("tags",)))
        with runtime.open_ctx(actor) as ctx:
            return show(ctx, *publish_images(ctx, _take_files(ctx, draft_id), metadata))


def receive_draft_file(
    runtime: Runtime, actor: Actor, public_id: str, number: int, blocks: Blocks
) -> tuple[UploadDraft, UploadFile]:
    """One file of a draft as a raw stream.

    Raises:
        DraftNotFound, DuplicateFile, Superseded; whatever `uploads.receive` refuses.
    """
    with runtime.open_ctx(actor, read_only=True) as ctx:
        draft = drafts.get_draft(ctx, public_id)
        roles = [FileRole(file.role) for file in drafts.list_files(ctx, draft)]
    if not 0 <= number < len(roles):
        raise DraftNotFound(f"This upload has no file {number}.")
    file = drafts.receive_file(
        runtime, actor, public_id, number, blocks, lambda ctx, received: check_duplicate(ctx, roles[number], received)
    )
    return draft, file


def publish_draft(
    runtime: Runtime,
    actor: Actor,
    public_id: str,
    values: dict[str, object],
    show_model: Callable[[Ctx, ModelCard], T],
    show_images: Callable[[Ctx, list[Image], Gallery | None], U],
) -> T | U:
    """A draft whose files have all arrived becomes a card or image pages. A refusal keeps the draft and its files.

    Raises:
        DraftNotFound, DraftIncomplete, MissingFile, DuplicateFile, InvalidInput, ...
    """
    with runtime.open_ctx(actor) as ctx:
        draft = drafts.get_draft(ctx, public_id, lock=True)
        draft_id = row_id(draft)
        draft.touched_at = utcnow()
        files = _take_files(ctx, draft_id)
        shown: T | U
        if draft.kind == DraftKind.MODEL:
            shown = show_model(ctx, publish_model(ctx, files, parse_metadata(ModelMetadata, values)))
        else:
            shown = show_images(ctx, *publish_images(ctx, files, parse_metadata(ImagesMetadata, values)))
    drafts.discard(runtime, draft_id)
    return shown


def discard_draft(runtime: Runtime, actor: Actor, public_id: str) -> None:
    """Give a draft up, with everything sent so far.

    Raises:
        DraftNotFound
    """
    with runtime.open_ctx(actor) as ctx:
        draft = drafts.get_draft(ctx, public_id, lock=True)
        draft.is_closed = True
        ctx.session.add(draft)
        draft_id = row_id(draft)
    drafts.discard(runtime, draft_id)


def _take_files(ctx: Ctx, draft_id: int) -> list[UploadFile]:
    """The files of a draft that is closed with this transaction: nothing publishes it twice."""
    draft = ctx.session.get(UploadDraft, draft_id)
    if draft is None or draft.is_closed:
        raise DraftNotFound("This upload was published or given up.")
    draft.is_closed = True
    ctx.session.add(draft)
    return drafts.list_files(ctx, draft)


def _receive_form(
    runtime: Runtime, actor: Actor, draft_id: int, parts: Iterator[Part], roles: dict[str, FileRole], *, single: bool
) -> FormTexts:
    texts = FormTexts()
    count = 0
    seen: set[str] = set()
    for part in parts:
        if part.file_name is None:
            if part.name in roles:
                raise InvalidInput(f"The field {part.name} must be a file.", field=part.name)
            texts.add(part)
            continue
        if not part.file_name:
            continue  # an input of a form in which nothing was chosen
        role = roles.get(part.name)
        if role is None:
            raise InvalidInput(f"There is no file field '{part.name[:80]}' here; files go into {', '.join(roles)}.")
        if single and part.name in seen:
            raise InvalidInput(f"Send exactly one file as {part.name}.", field=part.name)
        if count >= runtime.settings.limits.files_per_upload:
            raise TooManyFiles(
                f"One upload has at most {runtime.settings.limits.files_per_upload} files.", field=part.name
            )
        drafts.receive_direct(runtime, actor, draft_id, count, Announced(part.file_name, role), part.data)
        seen.add(part.name)
        count += 1
    return texts

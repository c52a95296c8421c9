"""Drafts: what is written down before bytes flow, so that nothing is left behind whatever happens to the process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import structlog
from pydantic import TypeAdapter
from sqlmodel import col, select

from visionsuit.core.actor import SYSTEM, Actor
from visionsuit.core.clock import utcnow
from visionsuit.core.errors import InvalidInput, NotSignedIn, Unavailable
from visionsuit.core.ids import is_id, new_id, row_id
from visionsuit.core.permissions import Permission, require
from visionsuit.core.text import clean_line
from visionsuit.media.errors import short_name
from visionsuit.objects.tables import StorageObject
from visionsuit.runtime import Ctx, Runtime
from visionsuit.storage.base import Bucket
from visionsuit.uploads.errors import DraftNotFound, FileTooLarge, Superseded, TooManyDrafts, TooManyFiles
from visionsuit.uploads.locks import UploadLock
from visionsuit.uploads.receive import (
    Blocks,
    Received,
    ReceivedPicture,
    ReceivedWeights,
    receive_picture,
    receive_weights,
)
from visionsuit.uploads.tables import DraftKind, FileRole, UploadDraft, UploadFile
from visionsuit.uploads.writing import in_words

log = structlog.get_logger()

#: A draft that nothing has happened to for this long is given up.
KEPT_FOR = timedelta(hours=24)
MAX_OPEN_DRAFTS = 20
_ROLES = {DraftKind.MODEL: (FileRole.WEIGHTS, FileRole.COVER), DraftKind.IMAGES: (FileRole.IMAGE,)}
_BUCKETS = {FileRole.WEIGHTS: Bucket.MODELS, FileRole.COVER: Bucket.PREVIEWS, FileRole.IMAGE: Bucket.IMAGES}
#: May refuse a file once it is known, within the transaction that accepts it.
Check = Callable[[Ctx, ReceivedWeights | ReceivedPicture], None]
_received: TypeAdapter[ReceivedWeights | ReceivedPicture] = TypeAdapter(Received)


@dataclass(frozen=True, slots=True)
class Announced:
    """A file that a draft expects."""

    name: str
    role: FileRole
    size_bytes: int | None = None


def received_of(file: UploadFile) -> ReceivedWeights | ReceivedPicture | None:
    return None if file.received is None else _received.validate_python(file.received)


def open_draft(ctx: Ctx, kind: DraftKind, files: list[Announced]) -> UploadDraft:
    """A draft that waits for `files`, refused now rather than after the bytes have travelled.

    Raises:
        NotSignedIn, NotPermitted: the actor may not upload.
        FileTooLarge, TooManyFiles, TooManyDrafts, InvalidInput
    """
    draft = _add_draft(ctx, kind, is_direct=False)
    limits = ctx.settings.limits
    if not files:
        raise InvalidInput("Name the files that will be sent.", field="files")
    if len(files) > limits.files_per_upload:
        raise TooManyFiles(f"One upload has at most {limits.files_per_upload} files.", field="files")
    roles = [file.role for file in files]
    if any(role not in _ROLES[kind] for role in roles):
        raise InvalidInput(f"Files of this upload are: {', '.join(_ROLES[kind])}.", field="files")
    if kind is DraftKind.MODEL and len(set(roles)) != len(roles):
        raise InvalidInput("A model is uploaded with exactly one weights file and one cover.", field="files")
    for number, file in enumerate(files):
        most = most_bytes(ctx, file.role)
        if file.size_bytes is not None and file.size_bytes > most:
            raise FileTooLarge(f"{short_name(file.name)} is larger than the limit of {in_words(most)}.", field="files")
        _add_file(ctx, draft, number, file)
    return draft


def get_draft(ctx: Ctx, public_id: str, *, lock: bool = False) -> UploadDraft:
    """
    Raises:
        DraftNotFound: there is none, it has been published or given up, or it is somebody else's.
    """
    query = select(UploadDraft).where(
        col(UploadDraft.public_id) == public_id,
        col(UploadDraft.owner_id) == ctx.actor.user_id,
        col(UploadDraft.is_direct).is_(False),
        col(UploadDraft.is_closed).is_(False),
    )
    draft = ctx.session.exec(query.with_for_update() if lock else query).one_or_none() if is_id(public_id) else None
    if draft is None:
        raise DraftNotFound("There is no such upload: it was published, given up, or never begun.")
    return draft


def list_files(ctx: Ctx, draft: UploadDraft) -> list[UploadFile]:
    query = select(UploadFile).where(col(UploadFile.draft_id) == draft.id).order_by(col(UploadFile.number))
    return list(ctx.session.exec(query))


def most_bytes(ctx: Ctx, role: FileRole) -> int:
    limits = ctx.settings.limits
    return limits.weights_bytes if role is FileRole.WEIGHTS else limits.image_bytes


@contextmanager
def direct_draft(runtime: Runtime, actor: Actor, kind: DraftKind) -> Iterator[int]:
    """Primary key of a draft that lives as long as the block; what the block has not published goes with it.

    Raises:
        NotSignedIn, NotPermitted: the actor may not upload. Known before a byte is read.
    """
    lock_id = new_id()
    lock = UploadLock(runtime.settings.data_dir, lock_id)
    try:
        with runtime.open_ctx(actor) as ctx:
            draft = _add_draft(ctx, kind, is_direct=True, public_id=lock_id)
        draft_id = row_id(draft)
        try:
            yield draft_id
        finally:
            discard(runtime, draft_id)
    finally:
        lock.release()


def receive_direct(runtime: Runtime, actor: Actor, draft_id: int, number: int, file: Announced, blocks: Blocks) -> None:
    """The next file of a multipart request."""
    with runtime.open_ctx(actor) as ctx:
        draft = ctx.session.get(UploadDraft, draft_id)
        if draft is None:
            raise DraftNotFound("This upload has been given up.")
        row = _add_file(ctx, draft, number, file)
    _receive(runtime, actor, row_id(row), blocks)


def receive_file(
    runtime: Runtime,
    actor: Actor,
    public_id: str,
    number: int,
    blocks: Blocks,
    check: Check,
) -> UploadFile:
    """One file of a draft, in place of what was sent as this file before. `check` may refuse it once it is known.

    Raises:
        DraftNotFound; whatever `uploads.receive` refuses; Superseded: it was sent again meanwhile.
    """
    require(actor, Permission.ASSETS_UPLOAD)
    with runtime.open_ctx(actor) as ctx:
        draft = get_draft(ctx, public_id)
        files = list_files(ctx, draft)
        if not 0 <= number < len(files):
            raise DraftNotFound(f"This upload has no file {number}.")
        draft.touched_at = utcnow()
        file_id = row_id(files[number])
    return _receive(runtime, actor, file_id, blocks, check)


def discard(runtime: Runtime, draft_id: int) -> None:
    """Remove what a draft has stored and nobody adopted, then the draft. Safe to repeat."""
    with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        files = list(ctx.session.exec(select(UploadFile).where(col(UploadFile.draft_id) == draft_id)))
        written = [pair for file in files for pair in file.objects]
        adopted = _adopted(ctx, [object_id for _, object_id in written])
    if _abandon(runtime, [pair for pair in written if pair[1] not in adopted]):
        with runtime.open_ctx(SYSTEM) as ctx:
            _remove_rows(ctx, draft_id)


def _remove_rows(ctx: Ctx, draft_id: int) -> None:
    for file in ctx.session.exec(select(UploadFile).where(col(UploadFile.draft_id) == draft_id)):
        ctx.session.delete(file)
    ctx.session.flush()
    draft = ctx.session.get(UploadDraft, draft_id)
    if draft is not None:
        ctx.session.delete(draft)
        ctx.session.flush()


def _add_draft(ctx: Ctx, kind: DraftKind, *, is_direct: bool, public_id: str | None = None) -> UploadDraft:
    require(ctx.actor, Permission.ASSETS_UPLOAD)
    if ctx.actor.user_id is None:
        raise NotSignedIn("An upload needs an owner.")
    query = select(UploadDraft.id).where(
        col(UploadDraft.owner_id) == ctx.actor.user_id,
        col(UploadDraft.is_direct).is_(is_direct),
        col(UploadDraft.is_closed).is_(False),
    )
    if len(ctx.session.exec(query.limit(MAX_OPEN_DRAFTS)).all()) >= MAX_OPEN_DRAFTS:
        raise TooManyDrafts(f"You have {MAX_OPEN_DRAFTS} uploads under way; finish or discard one first.")
    draft = UploadDraft(owner_id=ctx.actor.user_id, kind=kind, is_direct=is_direct, public_id=public_id or new_id())
    ctx.session.add(draft)
    ctx.session.flush()
    return draft


def _add_file(ctx: Ctx, draft: UploadDraft, number: int, file: Announced) -> UploadFile:
    row = UploadFile(
        draft_id=row_id(draft),
        number=number,
        role=file.role,
        name=clean_line(file.name)[-255:] or "file",
        size_bytes=file.size_bytes,
    )
    ctx.session.add(row)
    ctx.session.flush()
    return row


def _receive(runtime: Runtime, actor: Actor, file_id: int, blocks: Blocks, check: Check | None = None) -> UploadFile:
    """Write the ids down, take the bytes, write down what they are."""
    lock = UploadLock(runtime.settings.data_dir)
    try:
        object_ids = (new_id(), new_id(), new_id())
        with runtime.open_ctx(actor) as ctx:
            file = _get_file(ctx, file_id)
            role, name = FileRole(file.role), file.name
            bucket = _BUCKETS[role]
            written = [[bucket.value, object_ids[0]]]
            if role is not FileRole.WEIGHTS:
                written += [[Bucket.PREVIEWS.value, id_] for id_ in object_ids[1:]]
            earlier = file.objects
            file.attempt = lock.id
            file.objects = earlier + written
            ctx.session.add(file)
        try:
            received: ReceivedWeights | ReceivedPicture
            if role is FileRole.WEIGHTS:
                received = receive_weights(runtime, blocks, object_ids[0], name)
            else:
                received = receive_picture(runtime, blocks, bucket, object_ids, name)
            with runtime.open_ctx(actor) as ctx:
                file = _get_file(ctx, file_id)
                if file.attempt != lock.id:
                    raise Superseded("This file was sent again meanwhile; the later one counts.")
                if check is not None:
                    check(ctx, received)
                file.attempt = None
                file.received = received.model_dump(mode="json")
                ctx.session.add(file)
        except BaseException:
            drop_attempt(runtime, file_id, lock.id, written)
            raise
    finally:
        lock.release()
    _abandon(runtime, earlier)  # what was sent as this file before
    return file


def drop_attempt(runtime: Runtime, file_id: int, attempt: str, objects: list[list[str]]) -> None:
    """Remove what an attempt that came to nothing has written."""
    if not _abandon(runtime, objects):
        return  # the row still names them, the sweeper comes back
    with runtime.open_ctx(SYSTEM) as ctx:
        query = select(UploadFile).where(col(UploadFile.id) == file_id).with_for_update()
        file = ctx.session.exec(query).one_or_none()
        if file is not None:
            file.objects = [pair for pair in file.objects if pair not in objects]
            if file.attempt == attempt:
                file.attempt = None
            ctx.session.add(file)


def unreceived_objects(file: UploadFile) -> list[list[str]]:
    """What was written for a file and is not what it is made of now."""
    received = received_of(file)
    kept = {entry.object_id for entry in received.files} if received else set()
    return [pair for pair in file.objects if pair[1] not in kept]


def _abandon(runtime: Runtime, objects: list[list[str]]) -> bool:
    """Whether all are gone."""
    try:
        for bucket, object_id in objects:
            runtime.storage.abandon(Bucket(bucket), object_id)
    except Unavailable:
        log.warning("upload_left_behind", objects=objects)
        return False
    return True


def _get_file(ctx: Ctx, file_id: int) -> UploadFile:
    file = ctx.session.exec(select(UploadFile).where(col(UploadFile.id) == file_id).with_for_update()).one_or_none()
    if file is None:
        raise DraftNotFound("This upload has been given up.")
    return file


def _adopted(ctx: Ctx, object_ids: list[str]) -> set[str]:
    return set(ctx.session.exec(select(StorageObject.id).where(col(StorageObject.id).in_(object_ids))))

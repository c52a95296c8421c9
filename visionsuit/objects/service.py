"""Keep rows and stored files in step: bytes first, then the row; row away first, then the bytes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256

import sqlalchemy as sa
from sqlmodel import col

from visionsuit.core.clock import utcnow
from visionsuit.core.ids import is_id, new_id
from visionsuit.core.text import clean_line
from visionsuit.objects.tables import StorageObject
from visionsuit.runtime import Ctx, Runtime
from visionsuit.storage.base import Bucket, ObjectMissing

__all__ = [
    "StoredFile",
    "Subject",
    "adopt",
    "adopt_all",
    "assign",
    "delete",
    "delete_of",
    "find",
    "find_by_sha256",
    "get",
    "store",
    "url_of",
    "write",
]

WEBP = "image/webp"
_INSERT = sa.insert(StorageObject.__table__)  # type: ignore[attr-defined]
_ADDRESSES: dict[str, str] = {bucket: f"/api/storage/{bucket}/" for bucket in Bucket}


@dataclass(frozen=True, slots=True)
class Subject:
    """What a file belongs to: a kind that `downloads` knows (`image`, `model`, `gallery`, `generation`,
    `avatar`, ...) and the public id of the thing."""

    kind: str
    id: str


@dataclass(frozen=True, slots=True)
class StoredFile:
    """Bytes that are in the storage already."""

    object_id: str
    bucket: Bucket
    size_bytes: int
    sha256: str
    mime: str
    file_name: str = ""


def url_of(bucket: Bucket | str, object_id: str | None) -> str | None:
    """Address on this server. The content under it never changes, so browsers may keep it for ever."""
    return _ADDRESSES[bucket] + object_id if object_id else None


def write(runtime: Runtime, bucket: Bucket, data: bytes, *, mime: str, file_name: str = "") -> StoredFile:
    """Store `data` under a new id, with no row yet and no transaction open; `adopt` it in one, or delete it."""
    stored = StoredFile(new_id(), bucket, len(data), sha256(data).hexdigest(), mime, file_name)
    runtime.storage.put(bucket, stored.object_id, [data])
    return stored


def adopt(
    ctx: Ctx, file: StoredFile, subject: Subject, *, owner_id: int | None = None, keeps_file: bool = False
) -> None:
    """Row for a file that lies in the storage already. If the transaction fails, the file goes too, unless it has
    another keeper (`keeps_file`)."""
    adopt_all(ctx, [file], subject, owner_id=owner_id, keeps_file=keeps_file)


def adopt_all(
    ctx: Ctx, files: Sequence[StoredFile], subject: Subject, *, owner_id: int | None = None, keeps_file: bool = False
) -> None:
    """The same for several files at once."""
    storage = ctx.storage
    if not keeps_file:
        for file in files:
            ctx.after_rollback(partial(storage.delete, file.bucket, file.object_id))
    # Past the session, as every render comes by here: as objects they would cost three times as much.
    ctx.flush()
    if files:
        owner_id, now = owner_id if owner_id is not None else ctx.actor.user_id, utcnow()
        rows = [
            {
                "id": file.object_id,
                "bucket": file.bucket,
                "size_bytes": file.size_bytes,
                "sha256": file.sha256,
                "mime": file.mime,
                "file_name": clean_line(file.file_name)[-255:],
                "owner_id": owner_id,
                "subject_kind": subject.kind,
                "subject_id": subject.id,
                "created_at": now,
            }
            for file in files
        ]
        ctx.connection.execute(_INSERT, rows)


def store(
    ctx: Ctx,
    bucket: Bucket,
    data: bytes,
    subject: Subject,
    *,
    mime: str,
    file_name: str = "",
    owner_id: int | None = None,
) -> StorageObject:
    """Store `data` and its row together; for small files, since the transaction waits for the storage."""
    file = write(ctx.runtime, bucket, data, mime=mime, file_name=file_name)
    adopt(ctx, file, subject, owner_id=owner_id)
    return get(ctx, bucket, file.object_id)


def assign(ctx: Ctx, object_ids: Iterable[str], subject: Subject) -> None:
    """Say that these files belong to `subject` now."""
    ctx.session.execute(
        sa.update(StorageObject)
        .where(col(StorageObject.id).in_(list(object_ids)))
        .values(subject_kind=subject.kind, subject_id=subject.id)
    )


def find(ctx: Ctx, bucket: Bucket, object_id: str) -> StorageObject | None:
    row = ctx.session.get(StorageObject, object_id) if is_id(object_id) else None
    return row if row is not None and row.bucket == bucket else None


def get(ctx: Ctx, bucket: Bucket, object_id: str) -> StorageObject:
    """
    Raises:
        ObjectMissing: no such file in this bucket.
    """
    row = find(ctx, bucket, object_id)
    if row is None:
        raise ObjectMissing("There is no file with this id.")
    return row


def find_by_sha256(ctx: Ctx, bucket: Bucket, digest: str) -> Sequence[StorageObject]:
    """Every stored file in `bucket` with these bytes, whoever owns it; permission is the caller's to check."""
    return ctx.session.scalars(
        sa.select(StorageObject).where(col(StorageObject.sha256) == digest, col(StorageObject.bucket) == bucket)
    ).all()


def delete(ctx: Ctx, bucket: Bucket, object_id: str) -> None:
    """Remove row and file; the file only once the transaction is durable. Nothing there is no error."""
    ctx.session.execute(sa.delete(StorageObject).where(col(StorageObject.id) == object_id))
    storage = ctx.storage
    ctx.after_commit(lambda: storage.delete(bucket, object_id))


def delete_of(ctx: Ctx, subject: Subject) -> int:
    """Remove every file that belongs to `subject`. Returns how many."""
    rows = ctx.session.scalars(
        sa.select(StorageObject).where(
            col(StorageObject.subject_kind) == subject.kind, col(StorageObject.subject_id) == subject.id
        )
    ).all()
    for row in rows:
        delete(ctx, Bucket(row.bucket), row.id)
    return len(rows)

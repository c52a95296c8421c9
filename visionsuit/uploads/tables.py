"""Uploads that are under way: every object id is written here before its first byte goes to the storage."""

from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from visionsuit.core.clock import utcnow
from visionsuit.core.ids import new_id
from visionsuit.db import UtcDateTime


class DraftKind(StrEnum):
    MODEL = "model"
    IMAGES = "images"


class FileRole(StrEnum):
    WEIGHTS = "weights"
    COVER = "cover"
    IMAGE = "image"


class UploadDraft(SQLModel, table=True):
    """Files on their way to becoming a card or image pages; gone once they are.

    `is_direct`: lives as long as one multipart request. Others wait for their files and for `publish`, until they
    are left alone for too long. `is_closed`: published or given up; what it stored and nobody adopted is to be removed.
    """

    __tablename__ = "upload_draft"

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(default_factory=new_id, unique=True, max_length=32)
    owner_id: int = Field(foreign_key="account.id", ondelete="CASCADE", index=True)
    kind: DraftKind = Field(sa_type=sa.String(16))
    is_direct: bool = False
    is_closed: bool = False
    created_at: datetime = Field(default_factory=utcnow, sa_type=UtcDateTime)
    touched_at: datetime = Field(default_factory=utcnow, sa_type=UtcDateTime, index=True)


class UploadFile(SQLModel, table=True):
    """One file of a draft.

    Attributes:
        size_bytes: as announced, None where it was not.
        attempt: id of the try to send it that is under way; an older one that finishes late is thrown away.
        objects: [bucket, object id] of everything that any try may have written.
        received: what `receive` found out once all bytes are stored and verified; None before.
    """

    __tablename__ = "upload_file"
    __table_args__ = (sa.UniqueConstraint("draft_id", "number"),)

    id: int | None = Field(default=None, primary_key=True)
    draft_id: int = Field(foreign_key="upload_draft.id", ondelete="CASCADE")
    number: int
    role: FileRole = Field(sa_type=sa.String(16))
    name: str = Field(max_length=255)
    size_bytes: int | None = Field(default=None, sa_type=sa.BigInteger)
    attempt: str | None = Field(default=None, max_length=32)
    objects: list[list[str]] = Field(default_factory=list, sa_type=sa.JSON)
    received: dict[str, Any] | None = Field(default=None, sa_type=sa.JSON(none_as_null=True))

"""The row behind every stored file."""

from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from visionsuit.core.clock import utcnow
from visionsuit.core.ids import new_id
from visionsuit.db import UtcDateTime
from visionsuit.storage.base import Bucket


class StorageObject(SQLModel, table=True):
    """A stored file. `id` is its name in the storage and in addresses, `file_name` only text for people.

    `subject_kind` and `subject_id` (a public id) name what the file belongs to; who may see that may fetch this.
    """

    __tablename__ = "storage_object"

    id: str = Field(default_factory=new_id, primary_key=True, max_length=64)
    bucket: Bucket = Field(sa_type=sa.String(16))
    size_bytes: int = Field(sa_type=sa.BigInteger)
    sha256: str = Field(max_length=64, index=True)
    mime: str = Field(max_length=100)
    file_name: str = Field(default="", max_length=255)
    owner_id: int | None = Field(default=None, foreign_key="account.id", ondelete="SET NULL", index=True)
    subject_kind: str = Field(max_length=16)
    subject_id: str = Field(max_length=64)
    created_at: datetime = Field(default_factory=utcnow, sa_type=UtcDateTime)

    __table_args__ = (sa.Index("ix_storage_object_subject", "subject_kind", "subject_id"),)

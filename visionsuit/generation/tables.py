"""Base models, render requests and their pictures."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from visionsuit.core.clock import utcnow
from visionsuit.core.ids import new_id
from visionsuit.db import UtcDateTime


class BaseModel(SQLModel, table=True):
    """A checkpoint that administrators let people render with: a folder in the models folder.

    Attributes:
        folder: name in the models folder.
        key: identifies the folder's content, for caches and measured speeds.
        default: width, height, steps, guidance, sampler, schedule.
        sizes: suggested [width, height] pairs. Every size in pixels.
        allowed_roles: who may choose it; empty: everybody who may render.
        is_enabled: the administrator's switch. trouble: why it cannot be used now, whatever the switch says.
    """

    __tablename__ = "base_model"

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(default_factory=new_id, unique=True, max_length=32)
    folder: str = Field(unique=True, max_length=255)
    key: str = Field(max_length=64)
    label: str = Field(max_length=180)
    family: str = Field(max_length=16)
    description: str = ""
    default: dict[str, Any] = Field(default_factory=dict, sa_type=sa.JSON)
    sizes: list[list[int]] = Field(default_factory=list, sa_type=sa.JSON)
    min_size: int = 256
    max_size: int = 2048
    size_step: int = 64
    prompt_tokens: int = 77
    suggestions: list[str] = Field(default_factory=list, sa_type=sa.JSON)
    allowed_roles: list[str] = Field(default_factory=list, sa_type=sa.JSON)
    is_enabled: bool = True
    is_default: bool = False
    position: int = 0
    trouble: str | None = None
    created_at: datetime = Field(default_factory=utcnow, sa_type=UtcDateTime)
    updated_at: datetime = Field(default_factory=utcnow, sa_type=UtcDateTime)


class Generation(SQLModel, table=True):
    """One render request. `request` is complete: defaults filled in, seed chosen, LoRA files named by SHA-256."""

    __tablename__ = "generation"

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(default_factory=new_id, unique=True, max_length=32)
    owner_id: int = Field(foreign_key="account.id", index=True)
    job_id: int = Field(foreign_key="job.id", unique=True)
    base_model_id: int | None = Field(default=None, foreign_key="base_model.id")
    request: dict[str, Any] = Field(default_factory=dict, sa_type=sa.JSON)
    created_at: datetime = Field(default_factory=utcnow, sa_type=UtcDateTime)
    viewed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class GenerationImage(SQLModel, table=True):
    """One finished picture. File and both thumbnails in bucket `outputs`; sizes in pixels and bytes."""

    __tablename__ = "generation_image"
    __table_args__ = (sa.UniqueConstraint("generation_id", "index"),)

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(default_factory=new_id, unique=True, max_length=32)
    generation_id: int = Field(foreign_key="generation.id", ondelete="CASCADE")
    index: int
    seed: int = Field(sa_type=sa.BigInteger)
    object_id: str = Field(unique=True, max_length=64)
    thumb_small_id: str = Field(max_length=64, unique=True)
    thumb_large_id: str = Field(max_length=64, unique=True)
    placeholder: str | None = Field(default=None, sa_type=sa.Text)
    dhash: str | None = Field(default=None, max_length=16)
    width: int
    height: int
    size_bytes: int = Field(sa_type=sa.BigInteger)
    sha256: str = Field(max_length=64)
    #: The image page it was saved to, so that saving twice makes one.
    saved_image_id: int | None = Field(default=None, foreign_key="image.id", ondelete="SET NULL", index=True)

"""Base models, render requests and their pictures."""

from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from visionsuit.core.clock import utcnow
from visionsuit.core.ids import new_id
from visionsuit.db import UtcDateTime
from visionsuit.engine.base import AUTO_DTYPE, Ability


class Origin(StrEnum):
    """How a base model came into the list."""

    FOUND = "found"  #: It lies in the models folder.
    PATH = "path"  #: An administrator named its path.
    HUB = "hub"  #: It was downloaded from a model hub into the models folder.
    STORAGE = "storage"  #: The same, from the storage's bucket of base models.


#: Of what is downloaded into the models folder.
FETCHED = (Origin.HUB, Origin.STORAGE)


class BaseModel(SQLModel, table=True):
    """What administrators let people render with: a diffusers folder, or a checkpoint in one file.

    Attributes:
        folder: name in the models folder, or a whole path.
        origin, repo_id, revision, repo_file: where it came from; `repo_id` is its name there, `repo_file` the one file
            that is wanted, None for all that a diffusers folder needs. fetch_job: id of the latest download.
        overrides: what an administrator says instead of what its files say: label, description, default, sizes.
        key: identifies the folder's content, for caches and measured speeds.
        default: width, height, steps, guidance, sampler, schedule.
        sizes: suggested [width, height] pairs. Every size in pixels.
        abilities: those of the engine's Ability that it has.
        dtype: number format it is calculated in, one of the engine's DTYPES.
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
    abilities: list[str] = Field(default_factory=lambda: [one.value for one in Ability], sa_type=sa.JSON)
    dtype: str = Field(default=AUTO_DTYPE, max_length=8)
    allowed_roles: list[str] = Field(default_factory=list, sa_type=sa.JSON)
    is_enabled: bool = True
    is_default: bool = False
    position: int = 0
    trouble: str | None = None
    origin: Origin = Field(default=Origin.FOUND, sa_type=sa.String(16))
    repo_id: str | None = Field(default=None, max_length=200)
    revision: str | None = Field(default=None, max_length=200)
    repo_file: str | None = Field(default=None, max_length=255)
    fetch_job: str | None = Field(default=None, max_length=32)
    overrides: dict[str, Any] = Field(default_factory=dict, sa_type=sa.JSON)
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


class LoraSheet(SQLModel, table=True):
    """A request whose sheet is shown on a card's page: how the card's file acts."""

    __tablename__ = "lora_sheet"

    generation_id: int = Field(primary_key=True, foreign_key="generation.id", ondelete="CASCADE")
    card_id: int = Field(foreign_key="model_card.id", ondelete="CASCADE", index=True)
    version_id: int = Field(foreign_key="model_version.id", ondelete="CASCADE", index=True)


class GenerationBlock(SQLModel, table=True):
    """A person who may not render, until a time or for good."""

    __tablename__ = "generation_block"

    account_id: int = Field(primary_key=True, foreign_key="account.id", ondelete="CASCADE")
    reason: str = Field(max_length=500)
    until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    created_by: int | None = Field(default=None, foreign_key="account.id", ondelete="SET NULL")
    created_at: datetime = Field(default_factory=utcnow, sa_type=UtcDateTime)


class GenerationInput(SQLModel, table=True):
    """A picture that its owner sent to work from, or a mask. File in bucket `outputs`; size as shown, in pixels."""

    __tablename__ = "generation_input"

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(default_factory=new_id, unique=True, max_length=32)
    owner_id: int = Field(foreign_key="account.id", ondelete="CASCADE", index=True)
    object_id: str = Field(unique=True, max_length=64)
    width: int
    height: int
    created_at: datetime = Field(default_factory=utcnow, sa_type=UtcDateTime)
    used_at: datetime = Field(default_factory=utcnow, sa_type=UtcDateTime, index=True)


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
    #: All pictures of a sheet request on one, with labels; `index` follows theirs.
    is_sheet: bool = Field(default=False, sa_column_kwargs={"server_default": sa.false()})
    #: The image page it was saved to, so that saving twice makes one.
    saved_image_id: int | None = Field(default=None, foreign_key="image.id", ondelete="SET NULL", index=True)

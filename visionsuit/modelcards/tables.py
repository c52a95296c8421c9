"""Model cards, their versions, and who downloaded what on which day."""

from datetime import date, datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from visionsuit.core.clock import utcnow
from visionsuit.core.ids import new_id
from visionsuit.db import UtcDateTime
from visionsuit.visibility import Asset


class ModelType(StrEnum):
    LORA = "LORA"
    LYCORIS = "LYCORIS"
    CHECKPOINT = "CHECKPOINT"
    TEXTUAL_INVERSION = "TEXTUAL_INVERSION"
    DREAMBOOTH = "DREAMBOOTH"


class ModelCard(Asset, table=True):
    """A card for a LoRA, checkpoint or embedding. Cover file and thumbnails in bucket `previews`."""

    __tablename__ = "model_card"
    __table_args__ = (
        sa.Index("ix_model_card_lower_title", sa.text("lower(title)"), "id"),
        sa.Index("ix_model_card_downloads", "downloads", "id"),
        {"sqlite_autoincrement": True},
    )

    type: ModelType = Field(default=ModelType.LORA, sa_type=sa.String(32))
    #: As people say it ("SD 1.5"); `family` is what the engine compares ("sd1").
    base_model: str | None = Field(default=None, max_length=80)
    family: str | None = Field(default=None, max_length=32)
    trigger: str = Field(default="", max_length=180)
    cover_object_id: str | None = Field(default=None, max_length=64, index=True)
    cover_small_id: str | None = Field(default=None, max_length=64, index=True)
    cover_large_id: str | None = Field(default=None, max_length=64, index=True)
    cover_placeholder: str | None = Field(default=None, sa_type=sa.Text)
    cover_width: int | None = None
    cover_height: int | None = None
    downloads: int = 0


class ModelVersion(SQLModel, table=True):
    """One file of a card, in bucket `models`. Exactly one version of a card is primary."""

    __tablename__ = "model_version"
    __table_args__ = (
        sa.UniqueConstraint("card_id", "label"),
        # LoRA tags in prompts name files.
        sa.Index("ix_model_version_lower_file_name", sa.text("lower(file_name)")),
    )

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(default_factory=new_id, unique=True, max_length=32)
    card_id: int = Field(foreign_key="model_card.id", ondelete="CASCADE", index=True)
    label: str = Field(max_length=80)
    object_id: str = Field(max_length=64, unique=True)
    file_name: str = Field(max_length=255)
    size_bytes: int = Field(sa_type=sa.BigInteger)
    sha256: str = Field(max_length=64, index=True)
    #: What the file says about itself: rank, alpha, training tags, format, ...
    facts: dict[str, Any] = Field(default_factory=dict, sa_type=sa.JSON)
    is_primary: bool = False
    created_at: datetime = Field(default_factory=utcnow, sa_type=UtcDateTime)


class DownloadCount(SQLModel, table=True):
    """A person's download of a version counts once a day."""

    __tablename__ = "download_count"

    account_id: int = Field(foreign_key="account.id", ondelete="CASCADE", primary_key=True)
    version_id: int = Field(foreign_key="model_version.id", ondelete="CASCADE", primary_key=True)
    day: date = Field(primary_key=True)

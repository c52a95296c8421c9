"""Galleries and what is in them."""

from enum import StrEnum

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from visionsuit.visibility import Asset


class ItemKind(StrEnum):
    IMAGE = "image"
    MODEL = "model"


class Gallery(Asset, table=True):
    """An ordered collection. The cover is the chosen image, or the first that the viewer sees."""

    __tablename__ = "gallery"
    __table_args__ = (
        sa.Index("ix_gallery_lower_title", sa.text("lower(title)"), "id"),
        {"sqlite_autoincrement": True},
    )

    cover_image_id: int | None = Field(default=None, foreign_key="image.id", ondelete="SET NULL")


class GalleryItem(SQLModel, table=True):
    """One image or card in a gallery; `position` grows, gaps are fine."""

    __tablename__ = "gallery_item"
    __table_args__ = (
        sa.UniqueConstraint("gallery_id", "image_id"),
        sa.UniqueConstraint("gallery_id", "card_id"),
        sa.Index("ix_gallery_item_order", "gallery_id", "position", "id"),
        sa.CheckConstraint("(image_id IS NULL) <> (card_id IS NULL)", name="one_thing"),
    )

    id: int | None = Field(default=None, primary_key=True)
    gallery_id: int = Field(foreign_key="gallery.id", ondelete="CASCADE")
    kind: ItemKind = Field(sa_type=sa.String(16))
    image_id: int | None = Field(default=None, foreign_key="image.id", ondelete="CASCADE", index=True)
    card_id: int | None = Field(default=None, foreign_key="model_card.id", ondelete="CASCADE", index=True)
    position: int

"""Images: the row behind a picture on the site."""

from typing import Any

import sqlalchemy as sa
from sqlmodel import Field

from visionsuit.visibility import Asset


class Image(Asset, table=True):
    """A picture. File in bucket `images`, both thumbnails in bucket `previews`; sizes in pixels and bytes."""

    __tablename__ = "image"
    __table_args__ = (
        sa.Index("ix_image_lower_title", sa.text("lower(title)"), "id"),
        # An id is never given out twice: cursors, index rows and links stay true after a deletion.
        {"sqlite_autoincrement": True},
    )

    object_id: str = Field(max_length=64, unique=True)
    file_name: str = Field(max_length=255)
    mime: str = Field(max_length=64)
    size_bytes: int = Field(sa_type=sa.BigInteger)
    sha256: str = Field(max_length=64, index=True)
    width: int
    height: int
    thumb_small_id: str | None = Field(default=None, max_length=64, index=True)
    thumb_large_id: str | None = Field(default=None, max_length=64, index=True)
    placeholder: str | None = Field(default=None, sa_type=sa.Text)
    #: Perceptual hash, 16 hexadecimal digits.
    dhash: str | None = Field(default=None, max_length=16)
    #: How it was made, in the shape of `Recipe`; None when nobody knows.
    recipe: dict[str, Any] | None = Field(default=None, sa_type=sa.JSON(none_as_null=True))
    #: Public id of the render it comes from, if it was made here.
    generation_id: str | None = Field(default=None, max_length=32, index=True)

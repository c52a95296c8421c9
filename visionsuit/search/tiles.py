"""What every list answers with: the fields that images, models and galleries share."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from visionsuit.accounts.refs import OwnerRef
from visionsuit.core.actor import Actor
from visionsuit.core.permissions import Permission, may
from visionsuit.objects.service import url_of
from visionsuit.storage.base import Bucket
from visionsuit.visibility import Visibility


class Thumb(BaseModel):
    """WebP in two sizes (long side at most 320 and 1024 px) and a blurred stand-in; size of the whole picture."""

    small: str
    large: str
    placeholder: str | None
    width: int
    height: int


class Tile(BaseModel):
    """Fields of everything that has an audience."""

    id: str
    title: str
    tags: list[str]
    visibility: Visibility
    adult: bool
    reported: bool
    owner: OwnerRef | None
    created_at: datetime
    can_edit: bool


class CardRef(BaseModel):
    """A model card that holds a file."""

    id: str
    title: str


class GalleryRef(BaseModel):
    id: str
    title: str


def tile_fields(actor: Actor, row: Any, owners: dict[int, OwnerRef]) -> dict[str, Any]:
    """Shared fields of `row` for `actor`. An owner that is gone is None."""
    return {
        "id": row.public_id,
        "title": row.title,
        "tags": row.tags,
        "visibility": row.visibility,
        "adult": row.is_adult,
        "reported": row.is_reported,
        "owner": owners.get(row.owner_id),
        "created_at": row.created_at,
        "can_edit": may(actor, Permission.ASSETS_EDIT, row),
    }


def make_thumb(
    small_id: str | None, large_id: str | None, placeholder: str | None, width: int | None, height: int | None
) -> dict[str, Any] | None:
    """Fields of a Thumb; None where there is no thumbnail: the page shows a stand-in."""
    small, large = small_id or large_id, large_id or small_id
    if small is None or large is None:
        return None
    return {
        "small": url_of(Bucket.PREVIEWS, small),
        "large": url_of(Bucket.PREVIEWS, large),
        "placeholder": placeholder,
        "width": width or 0,
        "height": height or 0,
    }

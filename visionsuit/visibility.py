"""Who sees which asset: the one place that decides, for lists, pages, files, counts and the search index.

The same rule stands here three times, in the three forms it is needed in, side by side so that they cannot
drift unseen (a property test compares them): as SQL (`visible_to`), as a predicate on one row (`sees`), and as
index tokens (`visibility_tokens` + `token_filter`).

Rule: owner and administrators see everything but what follows; others see public and unlisted assets that are not
under review; lists leave out unlisted ones of others; adult assets need the viewer's own switch, for administrators
too, but an owner always sees their own.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, and_, false, or_, true
from sqlmodel import Field, SQLModel, col

from visionsuit.core.actor import Actor
from visionsuit.core.clock import utcnow
from visionsuit.core.ids import new_id
from visionsuit.db import UtcDateTime


class Visibility(StrEnum):
    PRIVATE = "private"
    UNLISTED = "unlisted"
    PUBLIC = "public"


class Asset(SQLModel):
    """Columns that everything with an audience has. `id` grows with time and never leaves the process."""

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(default_factory=new_id, unique=True, max_length=32)
    owner_id: int = Field(foreign_key="account.id", index=True)
    title: str = Field(max_length=180)
    description: str = Field(default="", max_length=1500)
    tags: list[str] = Field(default_factory=list, sa_type=sa.JSON)
    visibility: Visibility = Field(default=Visibility.PRIVATE, sa_type=sa.String(16), index=True)
    is_adult: bool = False
    is_reported: bool = False
    created_at: datetime = Field(default_factory=utcnow, sa_type=UtcDateTime)
    updated_at: datetime = Field(default_factory=utcnow, sa_type=UtcDateTime)


def visible_to(actor: Actor, table: type[Asset], *, listed: bool = False) -> ColumnElement[bool]:
    """SQL condition on `table`. `listed` leaves out what is to be found by address only."""
    own = col(table.owner_id) == actor.user_id if actor.user_id is not None else false()
    safe = true() if actor.shows_adult else col(table.is_adult).is_(False)
    if actor.is_admin:
        return or_(own, safe)
    shown = [Visibility.PUBLIC] if listed else [Visibility.PUBLIC, Visibility.UNLISTED]
    return or_(own, and_(col(table.visibility).in_(shown), col(table.is_reported).is_(False), safe))


def sees(actor: Actor, asset: Asset, *, listed: bool = False) -> bool:
    """`visible_to` for one row already in hand."""
    if actor.user_id is not None and asset.owner_id == actor.user_id:
        return True
    if asset.is_adult and not actor.shows_adult:
        return False
    if actor.is_admin:
        return True
    if asset.is_reported:
        return False
    return asset.visibility == Visibility.PUBLIC or (asset.visibility == Visibility.UNLISTED and not listed)


def visibility_tokens(asset: Asset) -> list[str]:
    """Index tokens of a row: whose it is, whether it is safe, and whether strangers find it in lists."""
    tokens = [f"xu{asset.owner_id}"]
    if not asset.is_adult:
        tokens.append("xsafe")
    if asset.visibility == Visibility.PUBLIC and not asset.is_reported:
        tokens.append("xpubadult" if asset.is_adult else "xpub")
    return tokens


def token_filter(actor: Actor) -> list[str] | None:
    """Tokens of which a row must have at least one to be listed for `actor`; None: everything is."""
    own = [f"xu{actor.user_id}"] if actor.user_id is not None else []
    if actor.is_admin:
        return None if actor.shows_adult else ["xsafe", *own]
    return ["xpub", *(["xpubadult"] if actor.shows_adult else []), *own]


def touch(asset: Asset, **changes: Any) -> None:
    """Set columns and the time of change together."""
    for name, value in changes.items():
        setattr(asset, name, value)
    asset.updated_at = utcnow()

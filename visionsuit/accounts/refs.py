"""How an account looks to others: the short reference beside everything that has an owner."""

from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field

from visionsuit.accounts.tables import Account
from visionsuit.storage.base import Bucket


class OwnerRef(BaseModel):
    """Who something belongs to. `id` is the account's public id."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(examples=["Zk3vQ0h8m1TgYw2x"])
    name: str = Field(examples=["Mira"])
    avatar_url: str | None = Field(None, examples=["/api/storage/avatars/9hJx2mQkT0vYbC4d"])


def avatar_url(account: Account | sa.Row[Any]) -> str | None:
    """Address of the avatar on this server; its content never changes under one address."""
    return f"/api/storage/{Bucket.AVATARS}/{account.avatar_object_id}" if account.avatar_object_id else None


def owner_ref(account: Account | sa.Row[Any]) -> OwnerRef:
    return OwnerRef(id=account.public_id, name=account.name, avatar_url=avatar_url(account))

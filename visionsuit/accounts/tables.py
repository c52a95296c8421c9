"""Accounts, API tokens, and what throttles logins."""

from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from visionsuit.core.actor import Role
from visionsuit.core.clock import utcnow
from visionsuit.core.ids import new_id
from visionsuit.db import UtcDateTime


class Account(SQLModel, table=True):
    """A person. `token_version` goes up to end every session at once."""

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(default_factory=new_id, unique=True, max_length=32)
    email: str = Field(unique=True, max_length=320)
    name: str = Field(max_length=160)
    bio: str = Field(default="", max_length=600)
    role: Role = Field(default=Role.USER, sa_type=sa.String(16))  # type: ignore[call-overload]
    password_hash: str
    token_version: int = 0
    is_active: bool = True
    shows_adult: bool = False
    avatar_object_id: str | None = None
    created_at: datetime = Field(default_factory=utcnow, sa_type=UtcDateTime)
    last_login_at: datetime | None = Field(default=None, sa_type=UtcDateTime)

"""Accounts, their sessions and API tokens, and what throttles logins."""

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
    role: Role = Field(default=Role.USER, sa_type=sa.String(16))
    password_hash: str
    token_version: int = 0
    is_active: bool = True
    shows_adult: bool = False
    avatar_object_id: str | None = None
    created_at: datetime = Field(default_factory=utcnow, sa_type=UtcDateTime)
    last_login_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class AccountSession(SQLModel, table=True):
    """A browser or program that logged in. Its token is good only while this row stands."""

    __tablename__ = "account_session"

    id: str = Field(primary_key=True, max_length=32)
    account_id: int = Field(foreign_key="account.id", ondelete="CASCADE", index=True)
    address: str = Field(default="", max_length=64)
    user_agent: str = Field(default="", max_length=300)
    created_at: datetime = Field(default_factory=utcnow, sa_type=UtcDateTime)
    last_seen_at: datetime = Field(default_factory=utcnow, sa_type=UtcDateTime)
    expires_at: datetime = Field(sa_type=UtcDateTime, index=True)


class ApiToken(SQLModel, table=True):
    """A personal token for programs. Only its SHA-256 is kept."""

    __tablename__ = "api_token"

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(default_factory=new_id, unique=True, max_length=32)
    account_id: int = Field(foreign_key="account.id", ondelete="CASCADE", index=True)
    name: str = Field(max_length=80)
    token_hash: str = Field(unique=True, max_length=64)
    scopes: list[str] = Field(default_factory=list, sa_type=sa.JSON)
    created_at: datetime = Field(default_factory=utcnow, sa_type=UtcDateTime)
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    last_used_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class Attempts(SQLModel, table=True):
    """Recent attempts under one key (an e-mail address or a network address), also of accounts that do not exist."""

    __tablename__ = "login_attempts"

    key: str = Field(primary_key=True, max_length=80)
    count: int = 0
    last_at: datetime = Field(default_factory=utcnow, sa_type=UtcDateTime, index=True)
    locked_until: datetime | None = Field(default=None, sa_type=UtcDateTime)


class SetupInvitation(SQLModel, table=True):
    """The one-time setup link. `nonce` alone is worthless: the link's token is made from it and the server's secret."""

    __tablename__ = "setup_invitation"

    id: int = Field(default=1, primary_key=True)
    nonce: str = Field(max_length=64)
    created_at: datetime = Field(default_factory=utcnow, sa_type=UtcDateTime)

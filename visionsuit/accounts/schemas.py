"""What goes in and out over REST about accounts. Fields that a request has too many are ignored."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from visionsuit.accounts.passwords import MAX_CHARACTERS, MIN_CHARACTERS
from visionsuit.accounts.refs import avatar_url
from visionsuit.accounts.tables import Account, AccountSession, ApiToken
from visionsuit.core.actor import Actor, Role, Scope
from visionsuit.core.config import GeneratorAccess, Limits, RegistrationPolicy
from visionsuit.core.permissions import Permission, may


def _example(**values: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [values]})


class RegisterIn(BaseModel):
    model_config = _example(email="mira@example.org", password="correct horse battery", name="Mira")

    email: str = Field(max_length=320)
    password: str = Field(description=f"{MIN_CHARACTERS} to {MAX_CHARACTERS} characters; never cut.")
    name: str = Field(max_length=1000, description="Display name, 2 to 160 characters.")


class LoginIn(BaseModel):
    model_config = _example(email="mira@example.org", password="correct horse battery")

    email: str = Field(max_length=320)
    password: str = Field(max_length=MAX_CHARACTERS)


class SetupIn(RegisterIn):
    model_config = _example(token="9f2c...", email="admin@example.org", password="correct horse battery", name="Ada")

    token: str = Field(max_length=200, description="From the setup link that the server printed at its first start.")


class PasswordIn(BaseModel):
    model_config = _example(current_password="correct horse battery", new_password="staple of another kind")

    current_password: str = Field(max_length=MAX_CHARACTERS)
    new_password: str


class ProfileIn(BaseModel):
    model_config = _example(bio="I draw foxes.", shows_adult=False)

    name: str | None = Field(None, max_length=1000)
    bio: str | None = Field(None, max_length=5000)
    shows_adult: bool | None = Field(None, description="Whether adult assets are shown to this account.")


class TokenIn(BaseModel):
    model_config = _example(name="Nightly upload", scopes=["read", "upload"], expires_in_days=90)

    name: str = Field(max_length=500)
    scopes: list[Scope] = Field(max_length=20)
    expires_in_days: int | None = Field(None, description="1 to 3650; without, the token lives until it is revoked.")


class MemberIn(BaseModel):
    model_config = _example(email="kai@example.org", password="a first password", name="Kai", role="CURATOR")

    email: str = Field(max_length=320)
    password: str
    name: str = Field(max_length=1000)
    role: Role = Role.USER
    bio: str = Field("", max_length=5000)


class MemberPatchIn(BaseModel):
    model_config = _example(role="CURATOR")

    role: Role | None = None
    is_active: bool | None = None
    name: str | None = Field(None, max_length=1000)
    bio: str | None = Field(None, max_length=5000)
    password: str | None = Field(None, description="A new password; ends the member's sessions.")


class UserOut(BaseModel):
    """The signed-in account, to itself."""

    id: str = Field(examples=["Zk3vQ0h8m1TgYw2x"])
    email: str = Field(examples=["mira@example.org"])
    name: str = Field(examples=["Mira"])
    bio: str
    role: Role
    shows_adult: bool
    avatar_url: str | None
    created_at: datetime
    permissions: list[Permission] = Field(description="What this account may do with the token in use.")


class ProfileOut(BaseModel):
    """An account, to everybody."""

    id: str = Field(examples=["Zk3vQ0h8m1TgYw2x"])
    name: str = Field(examples=["Mira"])
    bio: str
    avatar_url: str | None
    role: Role


class MemberOut(BaseModel):
    """An account, to administrators."""

    id: str
    email: str
    name: str
    bio: str
    role: Role
    is_active: bool
    avatar_url: str | None
    created_at: datetime
    last_login_at: datetime | None


class MemberListOut(BaseModel):
    items: list[MemberOut]
    next_cursor: str | None


class SignedInOut(BaseModel):
    user: UserOut
    token: str = Field(description="Send as `Authorization: Bearer <token>`; browsers have it as a cookie already.")


class TokenOut(BaseModel):
    id: str
    name: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class NewTokenOut(TokenOut):
    token: str = Field(description="Shown this once; only its hash is kept.", examples=["vs_..."])


class TokenListOut(BaseModel):
    items: list[TokenOut]
    next_cursor: None = None


class SessionOut(BaseModel):
    id: str
    address: str
    user_agent: str
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    current: bool = Field(description="The session that asks.")


class SessionListOut(BaseModel):
    items: list[SessionOut]
    next_cursor: None = None


class MetaSessionOut(BaseModel):
    """All that a page needs to know before it draws itself."""

    user: UserOut | None
    site_title: str
    registration: RegistrationPolicy
    generator_access: GeneratorAccess
    may_generate: bool
    limits: Limits


def user_out(account: Account, actor: Actor) -> UserOut:
    """`actor` acts for `account`; the token in use bounds the permissions."""
    return UserOut(
        id=account.public_id,
        email=account.email,
        name=account.name,
        bio=account.bio,
        role=Role(account.role),
        shows_adult=account.shows_adult,
        avatar_url=avatar_url(account),
        created_at=account.created_at,
        permissions=[permission for permission in Permission if may(actor, permission)],
    )


def profile_out(account: Account) -> ProfileOut:
    return ProfileOut(
        id=account.public_id,
        name=account.name,
        bio=account.bio,
        avatar_url=avatar_url(account),
        role=Role(account.role),
    )


def member_out(account: Account) -> MemberOut:
    return MemberOut(
        id=account.public_id,
        email=account.email,
        name=account.name,
        bio=account.bio,
        role=Role(account.role),
        is_active=account.is_active,
        avatar_url=avatar_url(account),
        created_at=account.created_at,
        last_login_at=account.last_login_at,
    )


def token_out(row: ApiToken) -> TokenOut:
    return TokenOut(
        id=row.public_id,
        name=row.name,
        scopes=[scope for scope in Scope if scope in row.scopes],
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
    )


def session_out(row: AccountSession, current_id: str | None) -> SessionOut:
    return SessionOut(
        id=row.id,
        address=row.address,
        user_agent=row.user_agent,
        created_at=row.created_at,
        last_seen_at=row.last_seen_at,
        expires_at=row.expires_at,
        current=row.id == current_id,
    )

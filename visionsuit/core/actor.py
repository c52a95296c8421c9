"""Who is asking. Made once, at the edge, and passed down as `ctx.actor`."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """Roles from lowest to highest."""

    GUEST = "GUEST"
    USER = "USER"
    CURATOR = "CURATOR"
    ADMIN = "ADMIN"
    SUPERADMIN = "SUPERADMIN"

    @property
    def rank(self) -> int:
        return _RANKS[self]


_RANKS = {role: rank for rank, role in enumerate(Role)}


class Scope(StrEnum):
    """What an API token may be used for."""

    READ = "read"
    GENERATE = "generate"
    UPLOAD = "upload"
    ADMIN = "admin"


ALL_SCOPES = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody, or GUEST; never None.

    Attributes:
        user_id: primary key of the account, None for guests.
        public_id: the account's id as programs see it, "" for guests.
        shows_adult: the account's own switch; off for guests.
        scopes: what the token in use allows; everything for a browser session.
    """

    user_id: int | None
    role: Role
    name: str = ""
    public_id: str = ""
    shows_adult: bool = False
    scopes: frozenset[Scope] = ALL_SCOPES

    @property
    def is_guest(self) -> bool:
        return self.user_id is None

    @property
    def is_admin(self) -> bool:
        return self.role.rank >= Role.ADMIN.rank

    @property
    def is_superadmin(self) -> bool:
        return self.role is Role.SUPERADMIN


GUEST = Actor(user_id=None, role=Role.GUEST, name="guest")
#: The process itself: first start, scheduler, command line. Never made from a request.
SYSTEM = Actor(user_id=None, role=Role.SUPERADMIN, name="system", shows_adult=True)

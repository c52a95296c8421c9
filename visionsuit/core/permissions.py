"""Which role may do what: one table, read by every service."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from visionsuit.core.actor import Actor, Role, Scope
from visionsuit.core.errors import NotPermitted, NotSignedIn


class Permission(StrEnum):
    ASSETS_DOWNLOAD = "assets:download"
    ASSETS_UPLOAD = "assets:upload"
    ASSETS_EDIT = "assets:edit"
    ASSETS_SAVE = "assets:save"
    GENERATIONS_CREATE = "generations:create"
    GENERATIONS_EDIT = "generations:edit"
    PROFILE_EDIT = "profile:edit"
    TOKENS_MANAGE = "tokens:manage"
    USERS_MANAGE = "users:manage"
    ADMINS_MANAGE = "admins:manage"
    BASE_MODELS_MANAGE = "base_models:manage"
    SETTINGS_MANAGE = "settings:manage"
    QUEUE_MANAGE = "queue:manage"


class Owned(Protocol):
    """Anything with an owner: the owner's column decides, whatever the table."""

    @property
    def owner_id(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Rule:
    """`lowest`: role that may do it to its own things (or at all, where nothing is owned);
    `any_from`: role that may do it to anybody's; `scope`: what an API token needs."""

    lowest: Role
    scope: Scope
    any_from: Role | None = Role.ADMIN


RULES: dict[Permission, Rule] = {
    Permission.ASSETS_DOWNLOAD: Rule(Role.USER, Scope.READ, any_from=Role.USER),
    Permission.ASSETS_UPLOAD: Rule(Role.CURATOR, Scope.UPLOAD),
    Permission.ASSETS_EDIT: Rule(Role.USER, Scope.UPLOAD),
    # Whoever may render may keep the renders: a member's saved pictures need no curator.
    Permission.ASSETS_SAVE: Rule(Role.USER, Scope.GENERATE),
    Permission.GENERATIONS_CREATE: Rule(Role.USER, Scope.GENERATE),
    Permission.GENERATIONS_EDIT: Rule(Role.USER, Scope.GENERATE),
    Permission.PROFILE_EDIT: Rule(Role.USER, Scope.ADMIN),
    Permission.TOKENS_MANAGE: Rule(Role.USER, Scope.ADMIN, any_from=None),
    Permission.USERS_MANAGE: Rule(Role.ADMIN, Scope.ADMIN),
    Permission.ADMINS_MANAGE: Rule(Role.SUPERADMIN, Scope.ADMIN, any_from=Role.SUPERADMIN),
    Permission.BASE_MODELS_MANAGE: Rule(Role.ADMIN, Scope.ADMIN),
    Permission.SETTINGS_MANAGE: Rule(Role.ADMIN, Scope.ADMIN),
    Permission.QUEUE_MANAGE: Rule(Role.ADMIN, Scope.ADMIN),
}


def may(actor: Actor, permission: Permission, thing: Owned | None = None) -> bool:
    """Whether the table grants `permission` to `actor`, on `thing` if one is given."""
    rule = RULES[permission]
    if rule.scope not in actor.scopes or actor.role.rank < rule.lowest.rank:
        return False
    if thing is None:
        return True
    if actor.user_id is not None and thing.owner_id == actor.user_id:
        return True
    return rule.any_from is not None and actor.role.rank >= rule.any_from.rank


def require(actor: Actor, permission: Permission, thing: Owned | None = None) -> None:
    """Raise unless `actor` may do `permission` (to `thing`).

    Raises:
        NotSignedIn: a guest asks for what needs an account.
        NotPermitted: role or token scope is too low, or the thing is somebody else's.
    """
    if may(actor, permission, thing):
        return
    if actor.is_guest:
        raise NotSignedIn("Sign in to do this.", hint="POST /api/auth/login, or send a bearer token.")
    rule = RULES[permission]
    if rule.scope not in actor.scopes:
        raise NotPermitted(f"This token lacks the scope '{rule.scope}'.")
    if actor.role.rank < rule.lowest.rank:
        raise NotPermitted(f"This needs the role {rule.lowest}; yours is {actor.role}.")
    raise NotPermitted("Only its owner or an administrator may do this.")

"""Administrators looking after accounts.

ADMIN looks after USER and CURATOR; ADMIN and SUPERADMIN accounts are SUPERADMIN's alone. Nobody deactivates
themself, and one active SUPERADMIN always remains.
"""

from dataclasses import dataclass
from typing import Any

from visionsuit.accounts.passwords import check_new_password, hash_password
from visionsuit.accounts.profile_fields import clean_bio, clean_email, clean_name
from visionsuit.accounts.queries import AccountNotFound, find_account, list_accounts
from visionsuit.accounts.roles import check_assignable, keep_one_superadmin, lock_superadmins
from visionsuit.accounts.service import add_account
from visionsuit.accounts.sessions import end_all_sessions
from visionsuit.accounts.tables import Account
from visionsuit.audit.service import record
from visionsuit.core.actor import Actor, Role
from visionsuit.core.errors import Conflict, NotPermitted
from visionsuit.core.paging import Page
from visionsuit.core.permissions import Permission, require
from visionsuit.runtime import Ctx, Runtime


class OwnAccount(Conflict):
    code = "own_account"


@dataclass(frozen=True, slots=True)
class MemberChanges:
    """What to change; None leaves as it is."""

    role: Role | None = None
    is_active: bool | None = None
    name: str | None = None
    bio: str | None = None
    password: str | None = None


def list_members(
    ctx: Ctx, *, text: str = "", role: Role | None = None, cursor: str | None = None, limit: int = 24
) -> Page[Account]:
    """Accounts for administrators, newest first; `text` is looked for in names and addresses.

    Raises:
        NotPermitted: the asker is no administrator.
    """
    require(ctx.actor, Permission.USERS_MANAGE)
    return list_accounts(ctx, text=text, role=role, cursor=cursor, limit=limit)


def create_member(
    runtime: Runtime, actor: Actor, *, email: str, password: str, name: str, role: Role = Role.USER, bio: str = ""
) -> Account:
    """Make an account for somebody else.

    Raises:
        NotPermitted: the asker is no administrator, or makes an administrator without being SUPERADMIN.
        EmailTaken, BadEmail, BadPassword, BadText, BadRole
    """
    require(actor, Permission.USERS_MANAGE)
    _require_rank_over(actor, role)
    email, name, bio = clean_email(email), clean_name(name), clean_bio(bio)
    check_new_password(password)
    password_hash = hash_password(password)
    with runtime.open_ctx(actor) as ctx:
        _require_still(ctx, actor)
        account = add_account(ctx, email=email, name=name, bio=bio, role=role, password_hash=password_hash)
        record(ctx, "account.created", account.public_id, {"role": role.value, "email": email})
        return account


def change_member(runtime: Runtime, actor: Actor, public_id: str, changes: MemberChanges) -> Account:
    """Change somebody's role, state, name, bio or password.

    Another role, a deactivation and a new password end the account's sessions at once.

    Raises:
        NotPermitted: the asker may not look after this account, or not grant this role.
        AccountNotFound, BadRole, BadText, BadPassword
        OwnAccount: the asker would deactivate themself.
        LastSuperadmin: no active SUPERADMIN would remain.
    """
    require(actor, Permission.USERS_MANAGE)
    password_hash = None
    if changes.password is not None:
        check_new_password(changes.password)
        password_hash = hash_password(changes.password)
    with runtime.open_ctx(actor) as ctx:
        account = _lock(ctx, actor, public_id)
        if account.id != actor.user_id or changes.role is not None:
            _require_rank_over(actor, Role(account.role))
        written: dict[str, Any] = {}
        if changes.name is not None:
            written["name"] = account.name = clean_name(changes.name)
        if changes.bio is not None:
            account.bio = clean_bio(changes.bio)
            written["bio"] = True
        if password_hash is not None:
            _refuse_own(actor, account, "Change your own password in your account settings.")
            account.password_hash = password_hash
            written["password"] = True
        if written:
            record(ctx, "account.edited", account.public_id, written)
        if changes.role is not None and changes.role != account.role:
            _require_rank_over(actor, changes.role)
            keep_one_superadmin(ctx, account)
            record(ctx, "role.changed", account.public_id, {"from": str(account.role), "to": changes.role.value})
            account.role = changes.role
            written["role"] = True
        if changes.is_active is not None and changes.is_active != account.is_active:
            if not changes.is_active:
                _refuse_own(actor, account, "You can't deactivate your own account.")
                keep_one_superadmin(ctx, account)
            record(ctx, "account.activated" if changes.is_active else "account.deactivated", account.public_id)
            account.is_active = changes.is_active
            written["is_active"] = True
        if written.keys() & {"role", "is_active", "password"}:
            end_all_sessions(ctx, account)
        return account


def _lock(ctx: Ctx, actor: Actor, public_id: str) -> Account:
    """The account to change, with every row that the rules look at locked in one order."""
    target = find_account(ctx.session, public_id)
    if target is None:
        raise AccountNotFound("There is no such member.")
    lock_superadmins(ctx, target.id, actor.user_id)
    _require_still(ctx, actor)
    return target


def _require_still(ctx: Ctx, actor: Actor) -> None:
    """The asker may have lost the role between the request's arrival and now."""
    if actor.user_id is None:
        return  # the server itself
    row = ctx.session.get(Account, actor.user_id)
    if row is None or not row.is_active or Role(row.role) is not actor.role:
        raise NotPermitted("Your role changed a moment ago. Sign in again.")


def _require_rank_over(actor: Actor, role: Role) -> None:
    check_assignable(role)
    if role.rank >= Role.ADMIN.rank:
        require(actor, Permission.ADMINS_MANAGE)


def _refuse_own(actor: Actor, account: Account, message: str) -> None:
    if account.id == actor.user_id:
        raise OwnAccount(message)

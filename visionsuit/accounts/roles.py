"""Which roles an account can have, and the one rule over all of them: a SUPERADMIN always remains."""

from sqlmodel import col, select

from visionsuit.accounts.tables import Account
from visionsuit.core.actor import Role
from visionsuit.core.errors import Conflict, InvalidInput
from visionsuit.runtime import Ctx

ASSIGNABLE = (Role.USER, Role.CURATOR, Role.ADMIN, Role.SUPERADMIN)


class BadRole(InvalidInput):
    code = "bad_role"


class LastSuperadmin(Conflict):
    code = "last_superadmin"


def check_assignable(role: Role) -> None:
    """
    Raises:
        BadRole: guests have no account.
    """
    if role not in ASSIGNABLE:
        raise BadRole(f"An account can't have the role {role}.", field="role", hint=", ".join(ASSIGNABLE))


def has_superadmin(ctx: Ctx) -> bool:
    query = select(Account.id).where(col(Account.role) == Role.SUPERADMIN, col(Account.is_active).is_(True))
    return ctx.session.exec(query).first() is not None


def lock_superadmins(ctx: Ctx, *more: int | None) -> None:
    """Keep every SUPERADMIN's row, and the accounts `more`, from changing until the transaction ends.

    All at once and in one order, so that two who demote each other wait for one another instead of both succeeding.
    """
    ids = [id_ for id_ in more if id_ is not None]
    query = (
        select(Account)
        .where((col(Account.role) == Role.SUPERADMIN) | col(Account.id).in_(ids))
        .order_by(col(Account.id))
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    ctx.session.exec(query).all()


def keep_one_superadmin(ctx: Ctx, account: Account) -> None:
    """Refuse to take role or access of the only active SUPERADMIN; call `lock_superadmins` first.

    Raises:
        LastSuperadmin
    """
    if Role(account.role) is not Role.SUPERADMIN or not account.is_active:
        return
    query = select(Account.id).where(
        col(Account.role) == Role.SUPERADMIN, col(Account.is_active).is_(True), col(Account.id) != account.id
    )
    if ctx.session.exec(query).first() is None:
        raise LastSuperadmin("This is the last active SUPERADMIN; make another one first.")

"""Every SELECT over accounts that is not part of signing in."""

import re
from collections.abc import Iterable

import sqlalchemy as sa
from sqlmodel import Session, col, select

from visionsuit.accounts.refs import OwnerRef, owner_ref
from visionsuit.accounts.tables import Account, AccountSession, ApiToken
from visionsuit.core.actor import Role
from visionsuit.core.errors import NotFound
from visionsuit.core.paging import Page, decode_cursor, encode_cursor
from visionsuit.core.text import clean_line
from visionsuit.runtime import Ctx

#: Most bound values in one statement that every database takes.
_BATCH = 500
_PUBLIC_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")


class AccountNotFound(NotFound):
    code = "user_not_found"


def owners_of(ctx: Ctx, ids: Iterable[int | None]) -> dict[int, OwnerRef]:
    """References of many accounts in one query: account primary key -> OwnerRef."""
    wanted = sorted({id_ for id_ in ids if id_ is not None})
    found: dict[int, OwnerRef] = {}
    for start in range(0, len(wanted), _BATCH):
        batch = wanted[start : start + _BATCH]
        # Columns, not whole rows: this stands on the path of every list.
        columns = sa.select(col(Account.id), col(Account.public_id), col(Account.name), col(Account.avatar_object_id))
        for row in ctx.session.execute(columns.where(col(Account.id).in_(batch))):
            found[row.id] = owner_ref(row)
    return found


def find_account(session: Session, public_id: str, *, lock: bool = False) -> Account | None:
    """By public id. `lock` keeps others from changing the row until the transaction ends."""
    # What no id looks like never reaches the database: PostgreSQL refuses text with NUL.
    if not _PUBLIC_ID.fullmatch(public_id):
        return None
    query = select(Account).where(col(Account.public_id) == public_id)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    return session.exec(query).first()


def find_by_email(session: Session, email: str) -> Account | None:
    """By normalised e-mail address."""
    return session.exec(select(Account).where(col(Account.email) == email)).first()


def find_user_id(ctx: Ctx, public_id: str) -> int | None:
    """Primary key of an account, for filters such as `owner=`; `me` is the asker."""
    if public_id == "me":
        return ctx.actor.user_id
    account = find_account(ctx.session, public_id)
    return account.id if account else None


def get_account(ctx: Ctx, public_id: str) -> Account:
    """An account as others may see it: deactivated ones only by administrators.

    Raises:
        AccountNotFound
    """
    account = find_account(ctx.session, public_id)
    if account is None or not (account.is_active or ctx.actor.is_admin):
        raise AccountNotFound("There is no such member.")
    return account


def list_accounts(
    ctx: Ctx, *, text: str = "", role: Role | None = None, cursor: str | None = None, limit: int = 24
) -> Page[Account]:
    """Newest first; `text` is looked for in names and e-mail addresses, without regard to case."""
    query = select(Account).order_by(col(Account.id).desc()).limit(limit + 1)
    words = clean_line(text)
    if words:
        pattern = "%" + re.sub(r"([\\%_])", r"\\\1", words) + "%"
        query = query.where(
            sa.or_(
                # The first for accents and other scripts, which SQLite's lower() leaves alone.
                col(Account.name).like(pattern, escape="\\"),
                sa.func.lower(col(Account.name)).like(pattern.lower(), escape="\\"),
                col(Account.email).like(pattern.lower(), escape="\\"),
            )
        )
    if role is not None:
        query = query.where(col(Account.role) == role)
    if cursor:
        last = find_account(ctx.session, *decode_cursor(cursor, str))
        query = query.where(col(Account.id) < (last.id if last and last.id else 0))
    rows = list(ctx.session.exec(query))
    more = len(rows) > limit
    rows = rows[:limit]
    return Page(rows, encode_cursor(rows[-1].public_id) if more else None)


def list_sessions(ctx: Ctx) -> list[AccountSession]:
    """The asker's own sessions, the most recently used first."""
    query = select(AccountSession).where(col(AccountSession.account_id) == ctx.actor.user_id)
    return list(ctx.session.exec(query.order_by(col(AccountSession.last_seen_at).desc())))


def list_tokens(ctx: Ctx) -> list[ApiToken]:
    """The asker's own API tokens, newest first."""
    query = select(ApiToken).where(col(ApiToken.account_id) == ctx.actor.user_id)
    return list(ctx.session.exec(query.order_by(col(ApiToken.id).desc())))


def count_members(session: Session) -> int:
    """Active accounts, for the public numbers."""
    return session.execute(select(sa.func.count(col(Account.id))).where(col(Account.is_active).is_(True))).scalar_one()


def find_named_ids(ctx: Ctx, name: str, most: int = 50) -> list[int]:
    """Primary keys of accounts of this name, whatever its case, or with this public id; `me` is the asker."""
    if name == "me":
        return [ctx.actor.user_id] if ctx.actor.user_id is not None else []
    wanted = clean_line(name).lower()
    query = select(Account.id).where(
        sa.or_(sa.func.lower(col(Account.name)) == wanted, col(Account.public_id) == clean_line(name))
    )
    return [id_ for id_ in ctx.session.exec(query.limit(most)) if id_ is not None]

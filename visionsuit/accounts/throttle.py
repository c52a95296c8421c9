"""Slows down guessing: every attempt is charged to an e-mail address and to a network address before it is tried.

Charging first means that a hundred attempts at once are a hundred attempts. The counters are rows, so they hold
for every process and over a restart, and they exist for addresses without an account too.
"""

import hashlib
import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select

from visionsuit.accounts.tables import Attempts
from visionsuit.core.errors import TooMany
from visionsuit.runtime import Ctx

#: Attempts are forgotten after this long without another.
FORGET_AFTER = timedelta(hours=1)


class TooManyAttempts(TooMany):
    code = "too_many_attempts"


@dataclass(frozen=True, slots=True)
class Allowance:
    """`free` attempts without delay, then 1, 2, 4 ... seconds after each, up to `longest`."""

    free: int
    longest: timedelta

    def delay_after(self, count: int) -> timedelta:
        if count < self.free:
            return timedelta(0)
        # 2**20 s is far over any `longest`; more would overflow.
        return min(timedelta(seconds=2 ** min(count - self.free, 20)), self.longest)


#: Short enough that a stranger who guesses at an account doesn't keep its owner out for long.
PER_ACCOUNT = Allowance(free=5, longest=timedelta(minutes=5))
#: A household or school has one address.
PER_ADDRESS = Allowance(free=20, longest=timedelta(minutes=15))


def account_key(email: str) -> str:
    """Key of a (normalised) e-mail address; hashed, so that the table lists no addresses."""
    return "email:" + hashlib.sha256(email.encode(errors="surrogatepass")).hexdigest()


def address_key(address: str, purpose: str = "address") -> str:
    """Key of a network address; of the /64 for IPv6, since a subscriber has all of one."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return f"{purpose}:{hashlib.sha256(address.encode(errors='surrogatepass')).hexdigest()[:32]}"
    if ip.version == 6:
        return f"{purpose}:{ipaddress.ip_network((ip, 64), strict=False).network_address}"
    return f"{purpose}:{ip}"


def charge(ctx: Ctx, allowances: dict[str, Allowance], now: datetime) -> None:
    """Count one attempt under every key, or refuse it if any is locked.

    Raises:
        TooManyAttempts: nothing was counted; `retry_after_s` says when the longest lock ends.
    """
    # Sorted: two attempts that share keys take the row locks in the same order.
    rows = {key: _get_row(ctx, key, now) for key in sorted(allowances)}
    locks = [row.locked_until for row in rows.values() if row.locked_until and row.locked_until > now]
    if locks:
        seconds = max(1, -int(-(max(locks) - now).total_seconds() // 1))
        raise TooManyAttempts(f"Too many attempts. Try again in {_spoken(seconds)}.", retry_after_s=seconds)
    for key, row in rows.items():
        row.count = 1 if now - row.last_at > FORGET_AFTER else row.count + 1
        row.last_at = now
        delay = allowances[key].delay_after(row.count)
        row.locked_until = now + delay if delay else None
        ctx.session.add(row)


def refund(ctx: Ctx, key: str, allowance: Allowance) -> None:
    """Take one attempt back: it was a right one."""
    row = ctx.session.get(Attempts, key, with_for_update=True, populate_existing=True)
    if row is not None and row.count > 0:
        row.count -= 1
        if not allowance.delay_after(row.count):
            row.locked_until = None


def forget(ctx: Ctx, key: str) -> None:
    """Start anew under `key`."""
    ctx.session.execute(sa.delete(Attempts).where(col(Attempts.key) == key))


def delete_old_attempts(ctx: Ctx, now: datetime) -> int:
    """Rows that no longer matter. Returns how many; for the scheduler."""
    result = ctx.session.execute(sa.delete(Attempts).where(col(Attempts.last_at) < now - FORGET_AFTER))
    return int(getattr(result, "rowcount", 0))


def _get_row(ctx: Ctx, key: str, now: datetime) -> Attempts:
    query = select(Attempts).where(col(Attempts.key) == key).with_for_update()
    query = query.execution_options(populate_existing=True)
    row = ctx.session.exec(query).first()
    if row is not None:
        return row
    try:
        with ctx.session.begin_nested():
            row = Attempts(key=key, count=0, last_at=now)
            ctx.session.add(row)
        return row
    except IntegrityError:
        return ctx.session.exec(query).one()  # somebody else's first attempt was a moment earlier


def _spoken(seconds: int) -> str:
    return f"{seconds} s" if seconds < 90 else f"{-(-seconds // 60)} minutes"

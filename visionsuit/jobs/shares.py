"""What each person used of the device lately, which decides whose turn it is."""

from datetime import datetime

from visionsuit.core.clock import utcnow
from visionsuit.jobs import statements
from visionsuit.jobs.fairness import faded
from visionsuit.jobs.sql import upsert
from visionsuit.jobs.statements import ask
from visionsuit.jobs.tables import OwnerShare
from visionsuit.runtime import Ctx


def lock_share(ctx: Ctx, owner_id: int) -> tuple[float, datetime]:
    """(device seconds, as of when); nobody else may change them until the transaction ends."""
    share = ask(ctx, statements.SHARE_FOR_UPDATE, owner_id=owner_id).first()
    if share is None:
        new = upsert(ctx, OwnerShare).values(owner_id=owner_id, used_s=0, used_at=utcnow())
        ctx.connection.execute(new.on_conflict_do_nothing())
        share = ask(ctx, statements.SHARE_FOR_UPDATE, owner_id=owner_id).one()
    return share.used_s, share.used_at


def charge(ctx: Ctx, owner_id: int | None, seconds: float, *, served: bool = False) -> None:
    """Add device seconds, or give some back. `served`: it was this person's turn just now."""
    if owner_id is None:
        return
    now = utcnow()
    used_s, used_at = lock_share(ctx, owner_id)
    statement = statements.CHARGE_AND_SERVE if served else statements.CHARGE
    ask(ctx, statement, whose=owner_id, now=now, new_s=max(0.0, faded(used_s, used_at, now) + seconds))

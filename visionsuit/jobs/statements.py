"""What is asked of the database at every job, built once: putting a statement together takes longer than running it.

Most are on tables rather than classes, and run on the connection: that is half the cost of a row as an object.
Parameters by name: `queue`, `now`, `job_id`, `token`, `owner_id`.
"""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from visionsuit.db import UtcDateTime
from visionsuit.jobs.tables import ACTIVE, IDLE_PRIORITY, WAITING, Job, JobState, OwnerShare, QueueState
from visionsuit.runtime import Ctx


def ask(ctx: Ctx, statement: sa.Executable, **parameters: Any) -> sa.CursorResult[*tuple[Any, ...]]:
    """Run one of these on the transaction's connection. What the session holds unwritten is not seen."""
    return ctx.connection.execute(statement, parameters)


_queue = sa.bindparam("queue", type_=sa.String())
_now = sa.bindparam("now", type_=UtcDateTime())
_job_id = sa.bindparam("job_id", type_=sa.Integer())
_token = sa.bindparam("token", type_=sa.String())
_owner_id = sa.bindparam("owner_id", type_=sa.Integer())

_jobs: sa.Table = Job.__table__  # type: ignore[attr-defined]
_shares: sa.Table = OwnerShare.__table__  # type: ignore[attr-defined]
_states: sa.Table = QueueState.__table__  # type: ignore[attr-defined]
_job, _share = _jobs.c, _shares.c


def _is_any(column: sa.Column[Any], states: Iterable[JobState]) -> sa.ColumnElement[bool]:
    """`in_` spelled out: a list of values would be put into the statement anew at every execution."""
    return column.in_([sa.literal_column(f"'{state}'", sa.String()) for state in states])


def _busy() -> sa.ColumnElement[bool]:
    """Whether there is something that idle work steps back for."""
    other = _jobs.alias("other").c
    waits = sa.and_(_is_any(other.state, WAITING), other.priority > IDLE_PRIORITY)
    return sa.exists().where(other.queue == _queue, sa.or_(other.state == JobState.RUNNING, waits))


_ready = (
    _job.queue == _queue,
    _is_any(_job.state, WAITING),
    sa.or_(_job.run_after.is_(None), _job.run_after <= _now),
    sa.or_(_job.priority > IDLE_PRIORITY, ~_busy()),
)
_mine = (_job.id == _job_id, _job.claim_token == _token, _job.state == JobState.RUNNING)

#: A row if a claim could succeed.
HAS_WAITING = (
    sa.select(sa.literal(1))
    .select_from(_jobs)
    .where(*_ready, ~sa.exists().where(_states.c.name == _queue, _states.c.is_paused))
    .limit(1)
)

#: (is_paused, is_draining)
STATE = sa.select(_states.c.is_paused, _states.c.is_draining).where(_states.c.name == _queue)

#: (is_paused,) from the row that claims lock.
QUEUE_FOR_UPDATE = sa.select(_states.c.is_paused).where(_states.c.name == _queue).with_for_update()


def _next_of_each() -> sa.Select[Any]:
    waiting = (
        sa.select(sa.func.count())
        .select_from(_jobs)
        .where(_job.queue == _queue, _is_any(_job.state, WAITING))
        .scalar_subquery()
    )
    place = sa.func.row_number().over(partition_by=_job.owner_id, order_by=(_job.priority.desc(), _job.id))
    ranked = sa.select(_job.id, place.label("place")).where(*_ready).subquery()
    first = _jobs.alias("first")
    job = first.c
    return (
        sa.select(
            job.id, job.priority, job.affinity, job.created_at, _share.used_s, _share.used_at, _share.served_at,
            waiting.label("waiting"),
        )
        .join_from(first, ranked, ranked.c.id == job.id)
        .outerjoin(_shares, _share.owner_id == job.owner_id)
        .where(ranked.c.place == 1)
    )  # fmt: skip


#: Each person's first job that may begin, with what they used so far, and how many of all wait, for whatever.
NEXT_OF_EACH = _next_of_each()

#: Everything that waits or runs, with what its owner used so far; what goes first comes first.
ACTIVE_WITH_SHARES = (
    sa.select(
        _job.id, _job.state, _job.owner_id, _job.priority, _job.affinity, _job.created_at, _job.run_after,
        _job.started_at, _job.pace_key, _job.pace_size, _job.units, _job.step, _job.steps,
        _share.used_s, _share.used_at, _share.served_at,
    )
    .select_from(_jobs.outerjoin(_shares, _share.owner_id == _job.owner_id))
    .where(_job.queue == _queue, _is_any(_job.state, ACTIVE))
    .order_by(_job.priority.desc(), _job.id)
)  # fmt: skip

#: How many jobs of one person wait or run.
ACTIVE_OF = (
    sa.select(sa.func.count())
    .select_from(_jobs)
    .where(_job.owner_id == _owner_id, _job.queue == _queue, _is_any(_job.state, ACTIVE))
)

#: What a claim needs of one waiting job, unless somebody else holds its row.
READY_FOR_UPDATE = (
    sa.select(
        _job.id, _job.public_id, _job.queue, _job.kind, _job.payload, _job.owner_id, _job.attempts, _job.affinity,
        _job.pace_key, _job.pace_size, _job.units, _job.run_after,
    )
    .where(_job.id == _job_id, *_ready)
    .with_for_update(skip_locked=True)
)  # fmt: skip

#: Takes `new_token`, `worker` and `charged` too.
TAKE = (
    sa.update(_jobs)
    .where(_job.id == _job_id)
    .values(
        state=JobState.RUNNING, claim_token=sa.bindparam("new_token"), claimed_by=sa.bindparam("worker"),
        claimed_at=_now, heartbeat_at=_now, started_at=_now, attempts=_job.attempts + 1,
        charged_s=sa.bindparam("charged"), phase=None, step=0, steps=_job.units,
    )
)  # fmt: skip

#: (owner_id, charged_s, public_id, queue), if the claim was still good. Takes `new_state`, `device_s` and
#: `new_error_code`, `new_error_message`, `new_error_trace` too.
FINISH = (
    sa.update(_jobs)
    .where(*_mine)
    .values(
        state=sa.bindparam("new_state"), claim_token=None, finished_at=_now, device_seconds=sa.bindparam("device_s"),
        error_code=sa.bindparam("new_error_code"), error_message=sa.bindparam("new_error_message"),
        error_trace=sa.bindparam("new_error_trace"),
    )
    .returning(_job.owner_id, _job.charged_s, _job.public_id, _job.queue)
)  # fmt: skip

#: The job as an object, if the claim with this token is still good.
HELD_FOR_UPDATE = sa.select(Job).where(*_mine).with_for_update().execution_options(populate_existing=True)

#: Takes `new_phase`, `new_step`, `new_steps` too.
REPORT = (
    sa.update(_jobs)
    .where(*_mine)
    .values(
        phase=sa.bindparam("new_phase"), step=sa.bindparam("new_step"), steps=sa.bindparam("new_steps"),
        heartbeat_at=_now,
    )
)  # fmt: skip

#: (claim token, whether the owner asked to stop)
STOPPED = sa.select(_job.claim_token, _job.cancel_requested).where(_job.id == _job_id)

#: (used_s, used_at)
SHARE_FOR_UPDATE = sa.select(_share.used_s, _share.used_at).where(_share.owner_id == _owner_id).with_for_update()

#: Takes `whose` and `new_s`; the time is `now`.
CHARGE = (
    sa.update(_shares)
    .where(_share.owner_id == sa.bindparam("whose"))
    .values(used_s=sa.bindparam("new_s"), used_at=_now)
)
#: The same, of somebody whose turn it was.
CHARGE_AND_SERVE = CHARGE.values(served_at=_now)

"""What workers ask the database at every job, built once: putting a statement together takes longer than running it.

Parameters by name: `queue`, `now`, `job_id`, `token`, `owner_id`.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased
from sqlmodel import col

from visionsuit.db import UtcDateTime
from visionsuit.jobs.tables import IDLE_PRIORITY, WAITING, Job, JobState, OwnerShare, QueueState

_queue = sa.bindparam("queue", type_=sa.String())
_now = sa.bindparam("now", type_=UtcDateTime())
_job_id = sa.bindparam("job_id", type_=sa.Integer())
_token = sa.bindparam("token", type_=sa.String())
_owner_id = sa.bindparam("owner_id", type_=sa.Integer())

_other: Any = aliased(Job)
#: Something that idle work steps back for.
_busy = sa.exists().where(
    _other.queue == _queue,
    sa.or_(
        _other.state == JobState.RUNNING,
        sa.and_(_other.state.in_(WAITING), _other.priority > IDLE_PRIORITY),
    ),
)
_ready = (
    col(Job.queue) == _queue,
    col(Job.state).in_(WAITING),
    sa.or_(col(Job.run_after).is_(None), col(Job.run_after) <= _now),
    sa.or_(col(Job.priority) > IDLE_PRIORITY, ~_busy),
)
_mine = (col(Job.id) == _job_id, col(Job.claim_token) == _token, col(Job.state) == JobState.RUNNING)

#: A row if a claim could succeed.
HAS_WAITING = (
    sa.select(sa.literal(1))
    .select_from(Job)
    .where(*_ready, ~sa.exists().where(col(QueueState.name) == _queue, col(QueueState.is_paused)))
    .limit(1)
)

#: The row that claims lock.
QUEUE_FOR_UPDATE = sa.select(QueueState).where(col(QueueState.name) == _queue).with_for_update()


def _next_of_each() -> sa.Select[Any]:
    place = sa.func.row_number().over(partition_by=col(Job.owner_id), order_by=(col(Job.priority).desc(), col(Job.id)))
    ranked = sa.select(col(Job.id), place.label("place")).where(*_ready).subquery()
    job, share = aliased(Job), aliased(OwnerShare)
    columns: tuple[Any, ...] = (
        job.id, job.priority, job.affinity, job.created_at, share.used_s, share.used_at, share.served_at,
    )  # fmt: skip
    return (
        sa.select(*columns)
        .join(ranked, ranked.c.id == job.id)
        .outerjoin(share, share.owner_id == job.owner_id)  # type: ignore[arg-type]
        .where(ranked.c.place == 1)
    )


#: Each person's first waiting job, with what they used so far.
NEXT_OF_EACH = _next_of_each()

#: One waiting job, unless somebody else holds its row.
READY_FOR_UPDATE = (
    sa.select(Job)
    .where(col(Job.id) == _job_id, *_ready)
    .with_for_update(skip_locked=True)
    .execution_options(populate_existing=True)
)

#: The job, if the claim with this token is still good.
HELD_FOR_UPDATE = sa.select(Job).where(*_mine).with_for_update().execution_options(populate_existing=True)

#: Takes `new_phase`, `new_step`, `new_steps` too.
REPORT = (
    sa.update(Job)
    .where(*_mine)
    .values(
        phase=sa.bindparam("new_phase"), step=sa.bindparam("new_step"), steps=sa.bindparam("new_steps"),
        heartbeat_at=_now,
    )
    .execution_options(synchronize_session=False)
)  # fmt: skip

#: (claim token, whether the owner asked to stop)
STOPPED = sa.select(col(Job.claim_token), col(Job.cancel_requested)).where(col(Job.id) == _job_id)

SHARE_FOR_UPDATE = (
    sa.select(OwnerShare)
    .where(col(OwnerShare.owner_id) == _owner_id)
    .with_for_update()
    .execution_options(populate_existing=True)
)

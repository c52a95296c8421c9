"""Rows of the queue: jobs, what each person used, how long work takes, and which workers live."""

from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from visionsuit.core.clock import utcnow
from visionsuit.core.ids import new_id
from visionsuit.db import UtcDateTime

#: The queue of everything that needs the device.
RENDER_QUEUE = "render"
#: Work of this priority begins only when nothing of a higher one waits and nothing runs: nobody waits for it.
IDLE_PRIORITY = -1000


class JobState(StrEnum):
    PENDING = "pending"  #: Admitted, but its time has not come (`run_after`).
    QUEUED = "queued"  #: Waits for a worker.
    RUNNING = "running"  #: A worker has claimed it.
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


WAITING = (JobState.PENDING, JobState.QUEUED)
ACTIVE = (*WAITING, JobState.RUNNING)
FINISHED = (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)


class Job(SQLModel, table=True):
    """One piece of work. Times in UTC, durations in seconds.

    Attributes:
        run_after: it is not begun before, as the last try was disturbed; None again once a worker is lost with it.
        claim_token: made anew at every claim; whoever holds the current one may report on the job, nobody else.
        pace_key, pace_size, units: what the estimate is looked up by (for a render: base model, pixels, steps).
        charged_s: device seconds that the owner's share was charged at the claim, corrected at the end.
        affinity: jobs with equal text share something that is slow to load.
    """

    __tablename__ = "job"
    __table_args__ = (sa.Index("ix_job_waiting", "queue", "state", "owner_id"),)

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(default_factory=new_id, unique=True, max_length=32)
    queue: str = Field(default=RENDER_QUEUE, max_length=32)
    kind: str = Field(max_length=64)
    payload: dict[str, Any] = Field(default_factory=dict, sa_type=sa.JSON)
    owner_id: int | None = Field(default=None, foreign_key="account.id", index=True)
    state: JobState = Field(default=JobState.QUEUED, sa_type=sa.String(16))
    priority: int = 0
    run_after: datetime | None = Field(default=None, sa_type=UtcDateTime)
    phase: str | None = Field(default=None, max_length=32)
    step: int = 0
    steps: int = 0
    attempts: int = 0
    claim_token: str | None = Field(default=None, max_length=32)
    claimed_by: str | None = Field(default=None, max_length=64, index=True)
    claimed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    heartbeat_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    cancel_requested: bool = False
    error_code: str | None = Field(default=None, max_length=64)
    error_message: str | None = None
    error_trace: str | None = None
    pace_key: str = Field(default="", max_length=200)
    pace_size: int = 0
    units: int = 0
    affinity: str = Field(default="", max_length=200)
    charged_s: float = 0.0
    device_seconds: float = 0.0
    created_at: datetime = Field(default_factory=utcnow, sa_type=UtcDateTime)
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    finished_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class OwnerShare(SQLModel, table=True):
    """What a person used of the device: `used_s` seconds as of `used_at`, fading from then on. Also the row that is
    locked while this person's active jobs are counted."""

    __tablename__ = "owner_share"

    owner_id: int = Field(primary_key=True, foreign_key="account.id")
    used_s: float = 0.0
    used_at: datetime = Field(default_factory=utcnow, sa_type=UtcDateTime)
    served_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class Pace(SQLModel, table=True):
    """Measured speed of one kind of work: seconds a unit, and seconds that every job takes besides its units."""

    __tablename__ = "pace"

    key: str = Field(primary_key=True, max_length=200)
    size: int = Field(primary_key=True)
    seconds_per_unit: float
    overhead_s: float = 0.0
    samples: int = 0
    updated_at: datetime = Field(default_factory=utcnow, sa_type=UtcDateTime)


class QueueState(SQLModel, table=True):
    """One row a queue: whether anything begins (`is_paused`) or is admitted (`is_draining`). Claims lock it: two
    workers never weigh shares at once."""

    __tablename__ = "queue_state"

    name: str = Field(primary_key=True, max_length=32)
    is_paused: bool = False
    is_draining: bool = Field(default=False, sa_column_kwargs={"server_default": sa.false()})


class WorkerPresence(SQLModel, table=True):
    """A worker process that lives, or lived: `slots` jobs at once; `engine` is its own word on its state."""

    __tablename__ = "worker_presence"

    id: str = Field(primary_key=True, max_length=64)
    queue: str = Field(max_length=32)
    host: str = Field(max_length=255)
    pid: int
    slots: int = 0
    engine: dict[str, Any] = Field(default_factory=dict, sa_type=sa.JSON)
    started_at: datetime = Field(default_factory=utcnow, sa_type=UtcDateTime)
    heartbeat_at: datetime = Field(default_factory=utcnow, sa_type=UtcDateTime)

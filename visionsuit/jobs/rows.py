"""A job as a plain row: what answers and forecasts need of it, at a fraction of an object's cost."""

from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from visionsuit.jobs.tables import Job

_jobs: sa.Table = Job.__table__  # type: ignore[attr-defined]


class JobRow(NamedTuple):
    """As it was when it was read. The fields are columns of `Job`, where they are explained."""

    id: int
    public_id: str
    queue: str
    kind: str
    owner_id: int | None
    state: str
    priority: int
    phase: str | None
    step: int
    steps: int
    units: int
    pace_key: str
    pace_size: int
    error_code: str | None
    error_message: str | None
    error_trace: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


#: For a SELECT, in the order of the fields.
JOB_COLUMNS = tuple(_jobs.c[name] for name in JobRow._fields)

"""What renders left behind: files whose process died before it wrote their rows, jobs whose request was deleted."""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import islice

import sqlalchemy as sa
import structlog
from sqlmodel import col

from visionsuit.core.actor import SYSTEM
from visionsuit.core.clock import utcnow
from visionsuit.generation.service import KIND
from visionsuit.generation.tables import Generation
from visionsuit.jobs.tables import FINISHED, Job
from visionsuit.objects.tables import StorageObject
from visionsuit.runtime import Runtime
from visionsuit.storage.base import Bucket, ObjectInfo

log = structlog.get_logger()

#: Results of a living worker have their rows long before.
KEEP_FOR = timedelta(hours=6)
_BATCH = 500


def sweep_outputs(runtime: Runtime, *, keep_for: timedelta = KEEP_FOR) -> int:
    """Remove what lies in `outputs` without a row for longer than `keep_for`. Returns how many files."""
    before = utcnow() - keep_for
    old = (found for found in runtime.storage.list_objects(Bucket.OUTPUTS) if found.modified_at < before)
    removed = 0
    for batch in _batches(old):
        ids = [found.object_id for found in batch]
        with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
            known = set(ctx.session.scalars(sa.select(col(StorageObject.id)).where(col(StorageObject.id).in_(ids))))
        for object_id in ids:
            if object_id not in known:
                runtime.storage.delete(Bucket.OUTPUTS, object_id)
                removed += 1
    if removed:
        log.info("outputs_swept", files=removed)
    return removed


def sweep_jobs(runtime: Runtime) -> int:
    """Remove jobs that ended after their request was deleted, which a running one outlives. Returns how many."""
    has_request = sa.exists().where(col(Generation.job_id) == col(Job.id))
    over = (col(Job.kind) == KIND, col(Job.state).in_(FINISHED), ~has_request)
    with runtime.open_ctx(SYSTEM) as ctx:
        removed = ctx.connection.execute(sa.delete(Job).where(*over)).rowcount
    if removed:
        log.info("jobs_swept", jobs=removed)
    return removed


def _batches(objects: Iterable[ObjectInfo]) -> Iterator[list[ObjectInfo]]:
    iterator = iter(objects)
    while batch := list(islice(iterator, _BATCH)):
        yield batch

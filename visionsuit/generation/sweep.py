"""Files of renders whose process died between writing them and writing their rows."""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import islice

import sqlalchemy as sa
import structlog
from sqlmodel import col

from visionsuit.core.actor import SYSTEM
from visionsuit.core.clock import utcnow
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


def _batches(objects: Iterable[ObjectInfo]) -> Iterator[list[ObjectInfo]]:
    iterator = iter(objects)
    while batch := list(islice(iterator, _BATCH)):
        yield batch

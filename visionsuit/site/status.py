"""Is everything there that the site needs? Real checks, none of which writes to the database."""

import threading
import time
from collections.abc import Callable
from enum import StrEnum

import sqlalchemy as sa
import structlog
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError

from visionsuit.core.errors import AppError
from visionsuit.core.ids import new_id
from visionsuit.db import open_session
from visionsuit.runtime import Runtime
from visionsuit.storage.base import Bucket

log = structlog.get_logger()

#: Checks are shared by everybody who asks within this time.
KEPT_SECONDS = 3.0


class State(StrEnum):
    OK = "ok"
    STARTING = "starting"
    DEGRADED = "degraded"
    DOWN = "down"


class PartStatus(BaseModel):
    state: State = Field(examples=["ok"])
    detail: str = Field("", examples=["SQLite"])


class SiteStatus(BaseModel):
    web: PartStatus
    database: PartStatus
    storage: PartStatus
    engine: PartStatus

    @property
    def is_ready(self) -> bool:
        return {self.database.state, self.storage.state, self.engine.state} <= {State.OK, State.DEGRADED}


def check_database(runtime: Runtime) -> PartStatus:
    """One statement over a pooled connection."""
    try:
        with open_session(runtime.database, read_only=True) as session:
            session.execute(sa.text("SELECT 1"))
    except SQLAlchemyError:
        # The driver's text may name hosts and users: it belongs in the log.
        log.warning("database_check_failed", exc_info=True)
        return PartStatus(state=State.DOWN, detail="The database does not answer.")
    return PartStatus(state=State.OK, detail={"sqlite": "SQLite"}.get(runtime.database.dialect.name, "PostgreSQL"))


def check_storage(runtime: Runtime) -> PartStatus:
    """A few bytes written, read and deleted: also tells a full disk and a lost right."""
    object_id, content = new_id(), b"visionsuit"
    try:
        runtime.storage.put(Bucket.EXPORTS, object_id, [content])
        whole = runtime.storage.read_bytes(Bucket.EXPORTS, object_id) == content
        runtime.storage.delete(Bucket.EXPORTS, object_id)
    except AppError as error:
        log.warning("storage_check_failed", exc_info=True)
        return PartStatus(state=State.DOWN, detail=error.message)
    if not whole:
        return PartStatus(state=State.DOWN, detail="The storage gives back other bytes than were written.")
    return PartStatus(state=State.OK, detail=runtime.settings.storage.kind.value)


def check_engine(runtime: Runtime) -> PartStatus:
    """What the engine says of itself. It is down only where it should run: pages without renders are worth serving."""
    status = runtime.engine.status()
    if status.ready:
        return PartStatus(state=State.OK, detail=status.detail or f"{status.name} on {status.device}")
    if not runtime.settings.worker:
        return PartStatus(state=State.DEGRADED, detail=status.detail or "This process does not render.")
    state = State.STARTING if status.starting else State.DOWN
    return PartStatus(state=state, detail=status.detail or "The engine is not ready.")


def check_site(runtime: Runtime) -> SiteStatus:
    return SiteStatus(
        web=PartStatus(state=State.OK, detail=""),
        database=check_database(runtime),
        storage=check_storage(runtime),
        engine=check_engine(runtime),
    )


class StatusCache:
    """The last check. One a process, kept by the application: health probes must not become load."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._status: SiteStatus | None = None
        self._good_until = float("-inf")

    def read(self, runtime: Runtime) -> SiteStatus:
        # The lock is held while checking, so that a crowd that asks at once causes one check.
        with self._lock:
            if self._status is None or self._clock() >= self._good_until:
                self._status = check_site(runtime)
                self._good_until = self._clock() + KEPT_SECONDS
            return self._status

"""The process (Runtime) and one transaction in it (Ctx)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Engine as Database
from sqlmodel import Session

from visionsuit.bus import Bus
from visionsuit.core.actor import Actor
from visionsuit.core.config import Settings
from visionsuit.db import open_session
from visionsuit.engine.base import Engine
from visionsuit.storage.base import Storage

log = structlog.get_logger()


@dataclass(slots=True)
class Ctx:
    """First argument of every service function: who asks, in which transaction.

    Services are imported, never carried here; that keeps this at a handful of fields.
    """

    actor: Actor
    session: Session
    runtime: "Runtime"
    _after_commit: list[Callable[[], None]] = field(default_factory=list)
    _after_rollback: list[Callable[[], None]] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        return self.runtime.settings

    @property
    def storage(self) -> Storage:
        return self.runtime.storage

    @property
    def bus(self) -> Bus:
        return self.runtime.bus

    def after_commit(self, action: Callable[[], None]) -> None:
        """Run `action` once the transaction is durable; never when it is rolled back."""
        self._after_commit.append(action)

    def after_rollback(self, action: Callable[[], None]) -> None:
        """Run `action` if the transaction fails: bytes written for a row that never came to be."""
        self._after_rollback.append(action)


@dataclass(frozen=True, slots=True)
class Runtime:
    """What lives as long as the process. Built in app.py, never a module global."""

    settings: Settings
    database: Database
    storage: Storage
    engine: Engine
    secret: bytes
    bus: Bus = field(default_factory=Bus)

    @contextmanager
    def open_ctx(self, actor: Actor, *, read_only: bool = False) -> Iterator[Ctx]:
        """One transaction: committed when the block ends, rolled back when it raises.

        `read_only` takes no write lock; a write inside fails in SQLite under contention, so only GETs ask for it.
        """
        with open_session(self.database, read_only=read_only) as session:
            ctx = Ctx(actor=actor, session=session, runtime=self)
            try:
                yield ctx
                session.commit()
            except BaseException:
                session.rollback()
                _run(ctx._after_rollback)
                raise
        _run(ctx._after_commit)


def _run(actions: list[Callable[[], None]]) -> None:
    # The outcome is decided; a hook that fails must not change the answer nor keep the next from running.
    for action in actions:
        try:
            action()
        except Exception:  # the transaction is over; the other hooks still have to run
            log.exception("transaction_hook_failed", hook=getattr(action, "__qualname__", repr(action)))

"""The process (Runtime) and one transaction in it (Ctx)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Connection
from sqlalchemy import Engine as Database
from sqlmodel import Session

from visionsuit.bus import Bus
from visionsuit.core.actor import Actor
from visionsuit.core.config import Settings
from visionsuit.db import reading
from visionsuit.engine.base import Engine
from visionsuit.storage.base import Storage

log = structlog.get_logger()


class Transaction:
    """Begins with the first statement. The session comes when somebody asks for objects: it costs as much again as
    the connection, and most of what happens often needs none."""

    __slots__ = ("_connection", "_database", "_session")

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None
        self._session: Session | None = None

    @property
    def connection(self) -> Connection:
        if self._connection is None:
            self._connection = self._database.connect()
        return self._connection

    @property
    def session(self) -> Session:
        if self._session is None:
            self._session = Session(self.connection, expire_on_commit=False)
        return self._session

    def flush(self) -> None:
        if self._session is not None:
            self._session.flush()

    @property
    def _parts(self) -> list[Session | Connection]:
        # A session ends what it began itself; where a statement came first, the connection has to.
        return [part for part in (self._session, self._connection) if part is not None]

    def commit(self) -> None:
        for part in self._parts:
            part.commit()

    def rollback(self) -> None:
        for part in self._parts:
            part.rollback()

    def close(self) -> None:
        for part in self._parts:
            part.close()


@dataclass(slots=True)
class Ctx:
    """First argument of every service function: who asks, in which transaction.

    Services are imported, never carried here; that keeps this at a handful of fields.
    """

    actor: Actor
    runtime: "Runtime"
    transaction: Transaction
    _after_commit: list[Callable[[], None]] = field(default_factory=list)
    _after_rollback: list[Callable[[], None]] = field(default_factory=list)

    @property
    def session(self) -> Session:
        """For objects."""
        return self.transaction.session

    @property
    def connection(self) -> Connection:
        """For statements on tables. What the session holds unwritten is not seen by them; `flush` comes before."""
        return self.transaction.connection

    def flush(self) -> None:
        """Write what the session holds, if there is one."""
        self.transaction.flush()

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
        transaction = Transaction(reading(self.database) if read_only else self.database)
        ctx = Ctx(actor, self, transaction)
        try:
            try:
                yield ctx
                transaction.commit()
            except BaseException:
                transaction.rollback()
                _run(ctx._after_rollback)
                raise
        finally:
            transaction.close()
        _run(ctx._after_commit)


def _run(actions: list[Callable[[], None]]) -> None:
    # The outcome is decided; a hook that fails must not change the answer nor keep the next from running.
    for action in actions:
        try:
            action()
        except Exception:  # the transaction is over; the other hooks still have to run
            log.exception("transaction_hook_failed", hook=getattr(action, "__qualname__", repr(action)))

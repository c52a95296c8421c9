"""The database: engine, pragmas, sessions. Anything that only one database can do sits behind `search/`."""

import sqlite3
from copy import copy
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Engine, event
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlmodel import Session, SQLModel

#: Constraint names that Alembic can find again, also in SQLite.
SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


#: Of PostgreSQL: no such lock just now, deadlock, lost against another transaction, too many connections.
_BUSY_STATES = ("55P03", "40P01", "40001", "53300")
#: What the database raises when it cannot serve now, among others.
DATABASE_ERRORS = (sa.exc.OperationalError, sa.exc.TimeoutError, sqlite3.OperationalError)


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """Aware UTC in Python, whatever the database keeps (SQLite keeps no zone)."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without zone cannot be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class LockingDialect(SQLiteDialect_pysqlite):
    """SQLite whose transactions say BEGIN themselves: Python's own handling begins too late and never IMMEDIATE.

    A reader that turns writer fails at once under contention; who may write takes the lock first and waits. It stands
    here and not in an event's listener: an engine with listeners looks for them at every turn of every statement.
    """

    supports_statement_cache = True
    begin_statement = "BEGIN IMMEDIATE"

    def do_begin(self, dbapi_connection: DBAPIConnection) -> None:
        driver: Any = dbapi_connection
        driver.dbapi_connection.execute(self.begin_statement)


registry.register("sqlite.locking", __name__, "LockingDialect")


def open_database(url: str) -> Engine:
    """Engine for SQLite or PostgreSQL. `postgresql://` means the psycopg 3 driver."""
    address = make_url(url)
    if address.drivername in ("postgresql", "postgres"):
        address = address.set(drivername="postgresql+psycopg")
    if address.get_backend_name() != "sqlite":
        return sa.create_engine(address, pool_size=10, max_overflow=40, pool_pre_ping=True)
    if address.database and address.database != ":memory:":
        Path(address.database).parent.mkdir(parents=True, exist_ok=True)
    address = address.set(drivername="sqlite+locking")
    engine = sa.create_engine(address, pool_size=10, max_overflow=60, connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def set_pragmas(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        for pragma in (
            "journal_mode=WAL",
            "synchronous=NORMAL",
            "foreign_keys=ON",
            "busy_timeout=30000",
            "cache_size=-65536",
        ):
            connection.execute(f"PRAGMA {pragma}")

    return engine


def open_session(engine: Engine, *, read_only: bool = False) -> Session:
    return Session(reading(engine) if read_only else engine, expire_on_commit=False, autoflush=True)


@lru_cache(maxsize=8)
def reading(engine: Engine) -> Engine:
    """The same connections, with transactions that take no lock."""
    if engine.dialect.name != "sqlite":
        return engine
    dialect = copy(engine.dialect)
    assert isinstance(dialect, LockingDialect)
    dialect.begin_statement = "BEGIN"
    return Engine(engine.pool, dialect, engine.url)


def is_busy(error: BaseException) -> bool:
    """Whether it was not our turn in time: others held the lock or all the connections. Trying again later helps."""
    if isinstance(error, sa.exc.TimeoutError):
        return True
    cause = error.orig if isinstance(error, sa.exc.OperationalError) else error
    if isinstance(cause, sqlite3.OperationalError):
        # The lower byte is the kind of error, those above it say more.
        return getattr(cause, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return getattr(cause, "sqlstate", None) in _BUSY_STATES


def create_schema(engine: Engine) -> None:
    """All tables straight from the code: for tests and benchmarks. A served database is migrated instead."""
    import visionsuit.tables  # noqa: F401  (fills the metadata)

    SQLModel.metadata.create_all(engine)


def migrate(engine: Engine) -> None:
    """Bring the schema to the newest revision."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

"""A PostgreSQL server of our own for the tests: Debian's binaries, a temporary folder, a free port on 127.0.0.1."""

import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from visionsuit.db import create_schema, open_database

#: Runs a test, or with `pytestmark` a module, on SQLite and on PostgreSQL: `runtime` is on that database.
both_databases = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


def find_binaries() -> Path | None:
    """The newest installed server's folder of programs."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    on_path = shutil.which("initdb")
    if on_path:
        found.append(Path(on_path).resolve().parent)
    return max(found, key=lambda path: [int(part) if part.isdecimal() else 0 for part in path.parts], default=None)


@contextmanager
def running_server(binaries: Path) -> Iterator[str]:
    """Address of a fresh server's `postgres` database; stopped and removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="visionsuit-pg-"))
    # The server refuses to run as root; Debian's package brings an account for it.
    as_server = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if as_server:
        shutil.chown(folder, "postgres", "postgres")
    data = folder / "data"

    def run(*command: str) -> None:
        done = subprocess.run([*as_server, *command], capture_output=True, text=True, cwd=folder, check=False)
        assert done.returncode == 0, f"{command[0]} failed: {done.stderr}{done.stdout}"

    try:
        how = ("-U", "tester", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        run(str(binaries / "initdb"), "-D", str(data), *how)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = f"-p {port} -h 127.0.0.1 -k {folder} -c fsync=off -c synchronous_commit=off -c full_page_writes=off"
        log = str(folder / "log")
        run(str(binaries / "pg_ctl"), "-D", str(data), "-w", "-t", "60", "-l", log, "-o", options, "start")
        try:
            yield f"postgresql://tester@127.0.0.1:{port}/postgres"
        finally:
            run(str(binaries / "pg_ctl"), "-D", str(data), "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def fresh_database(server: str) -> Iterator[str]:
    """Address of a database of its own, without a table."""
    name = _new_name()
    with _autocommit(server) as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
        try:
            yield _named(server, name)
        finally:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def reused_database(server: str) -> Iterator[Callable[[], str]]:
    """Each call answers the address of a database with the schema and no row: always the same one, emptied, which takes
    a fifth of the time of a fresh one and of what its first connection has to read. It has another name each time, so
    that nobody whom a test left behind writes into the next one."""
    with fresh_database(server) as address, _autocommit(server) as connection:
        database = open_database(address)
        create_schema(database)
        database.dispose()
        first = name = address.rpartition("/")[2]

        def rename(to: str) -> None:
            nonlocal name
            connection.exec_driver_sql(
                f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{name}'"
            )
            connection.exec_driver_sql(f"ALTER DATABASE {name} RENAME TO {to}")
            name = to

        def emptied() -> str:
            rename(_new_name())
            with _autocommit(_named(server, name)) as inside:
                _take_all_rows_out(inside)
            return _named(server, name)

        try:
            yield emptied
        finally:
            rename(first)


def _take_all_rows_out(connection: sa.Connection) -> None:
    # Only a table with a page has ever had a row, one that was rolled back included. DELETE is far faster than TRUNCATE
    # here, which makes new files for every table and index; as a replica, no foreign key asks for an order.
    written = connection.exec_driver_sql(
        "SELECT string_agg(format('DELETE FROM %%I', relname), ';') FROM pg_class "
        "WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND pg_relation_size(oid) > 0"
    ).scalar()
    if written:
        connection.exec_driver_sql(f"SET session_replication_role = replica; {written}")
    connection.exec_driver_sql(
        "SELECT setval(format('%%I', sequencename)::regclass, start_value, false) FROM pg_sequences "
        "WHERE schemaname = 'public' AND last_value IS NOT NULL"
    )


def _new_name() -> str:
    return f"test_{uuid.uuid4().hex}"


def _named(server: str, name: str) -> str:
    return server.rpartition("/")[0] + f"/{name}"


@contextmanager
def _autocommit(address: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(address.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()

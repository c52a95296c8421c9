"""A PostgreSQL server of our own for the tests: Debian's binaries, a temporary folder, a free port on 127.0.0.1."""

import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from visionsuit.db import create_schema, open_database

TEMPLATE = "with_schema"
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
        run(str(binaries / "initdb"), "-D", str(data), "-U", "tester", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
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


def make_template(server: str) -> None:
    """A database with the schema, to be copied for each test."""
    _statement(server, f"CREATE DATABASE {TEMPLATE}")
    database = open_database(_named(server, TEMPLATE))
    create_schema(database)
    database.dispose()


@contextmanager
def fresh_database(server: str) -> Iterator[str]:
    """Address of a database with the schema and no row."""
    name = f"test_{uuid.uuid4().hex}"
    _statement(server, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    try:
        yield _named(server, name)
    finally:
        _statement(server, f"DROP DATABASE {name} WITH (FORCE)")


def _named(server: str, name: str) -> str:
    return server.rsplit("/", 1)[0] + f"/{name}"


def _statement(server: str, sql: str) -> None:
    engine = sa.create_engine(server.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(sql)
    engine.dispose()

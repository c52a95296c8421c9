"""A migrated database is what the tables say, on both databases."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlmodel import SQLModel

import visionsuit.tables  # noqa: F401
from tests.postgres import fresh_database
from visionsuit.db import create_schema, migrate, open_database


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'migrated.db'}"
        return
    with fresh_database(request.getfixturevalue("postgres_server")) as url:
        yield url


def tables_of(database: sa.Engine) -> set[str]:
    return {name for name in sa.inspect(database).get_table_names() if name != "alembic_version"}


def test_migrated_is_what_the_code_says(address: str, tmp_path: Path) -> None:
    database = open_database(address)
    migrate(database)
    migrate(database)  # twice is no error
    with database.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        differences = [
            difference
            for difference in compare_metadata(context, SQLModel.metadata)
            # The index is made by its own SQL, which no metadata knows.
            if not (difference[0].startswith("remove_") and "search_" in difference[1].name)
        ]
    assert differences == []
    if database.dialect.name == "sqlite":
        straight = open_database(f"sqlite:///{tmp_path / 'straight.db'}")
        create_schema(straight)
        assert tables_of(database) == tables_of(straight)
        straight.dispose()
    database.dispose()

"""INSERTs that SQLAlchemy has no short word for."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import SQLModel

from visionsuit.runtime import Ctx


def upsert(ctx: Ctx, table: type[SQLModel]) -> postgresql.Insert | sqlite.Insert:
    """An INSERT of `table` that takes `.on_conflict_do_nothing()` and `.on_conflict_do_update()`, which SQLite and
    PostgreSQL spell alike and SQLAlchemy keeps in two places."""
    if ctx.connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def insert_row(ctx: Ctx, insert: sa.Insert, values: dict[str, Any]) -> int:
    """Write one row past the session and return its primary key: as an object it costs three times as much, which
    counts where every render comes by. `insert` is built once, and `values` has every column without a default of
    the database's."""
    key = ctx.connection.execute(insert, values).inserted_primary_key
    assert key is not None
    return int(key[0])

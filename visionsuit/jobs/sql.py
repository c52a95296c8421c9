"""INSERT .. ON CONFLICT, which SQLite and PostgreSQL spell alike and SQLAlchemy keeps in two places."""

from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import SQLModel

from visionsuit.runtime import Ctx


def upsert(ctx: Ctx, table: type[SQLModel]) -> postgresql.Insert | sqlite.Insert:
    """An INSERT of `table` that takes `.on_conflict_do_nothing()` and `.on_conflict_do_update()`."""
    if ctx.session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)

"""Alembic's entry: migrates the connection that `visionsuit.db.migrate` hands over."""

from alembic import context
from sqlalchemy import Connection
from sqlmodel import SQLModel

import visionsuit.tables  # noqa: F401  (fills the metadata)


def include_object(thing: object, name: str | None, kind: str, reflected: bool, compare_to: object) -> bool:
    # The search index is made by its own SQL (FTS5 tables have shadow tables that no metadata knows).
    return not (kind == "table" and reflected and compare_to is None and (name or "").startswith("search_"))


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        # SQLite cannot alter most of a table: batches copy it.
        render_as_batch=True,
        include_object=include_object,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


run(context.config.attributes["connection"])

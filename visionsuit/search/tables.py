"""Tag counts, and the index tables, which each database makes in its own way."""

from types import ModuleType
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlmodel import Field, SQLModel

from visionsuit.search import postgresql, sqlite
from visionsuit.search.document import Kind

DIALECTS: dict[str, ModuleType] = {"sqlite": sqlite, "postgresql": postgresql}


class TagCount(SQLModel, table=True):
    """How many assets that everybody finds carry a tag; `kind` "" counts all kinds together."""

    __tablename__ = "tag_count"
    __table_args__ = (sa.Index("ix_tag_count_order", "kind", "count"),)

    kind: str = Field(primary_key=True, max_length=16)
    #: Folded, so that spellings count as one; `name` is the first spelling seen.
    key: str = Field(primary_key=True, max_length=240)
    name: str = Field(max_length=60)
    count: int = 0


def index_table(kind: Kind) -> str:
    return f"search_{kind.value}"


def create_index_sql(dialect: str) -> list[str]:
    """Statements that make the index tables: for migrations. `dialect`: "sqlite" or "postgresql"."""
    return [statement for kind in Kind for statement in DIALECTS[dialect].create_sql(index_table(kind))]


def drop_index_sql(dialect: str) -> list[str]:
    return [statement for kind in Kind for statement in DIALECTS[dialect].drop_sql(index_table(kind))]


@event.listens_for(SQLModel.metadata, "after_create")
def create_index(target: Any, connection: sa.Connection, **_: Any) -> None:
    for statement in create_index_sql(connection.dialect.name):
        connection.exec_driver_sql(statement)


@event.listens_for(SQLModel.metadata, "before_drop")
def drop_index(target: Any, connection: sa.Connection, **_: Any) -> None:
    for statement in drop_index_sql(connection.dialect.name):
        connection.exec_driver_sql(statement)

"""Keep the index true, and ask it for ids. Who may see what is decided again by whoever loads the rows."""

import json
from enum import Enum, auto
from functools import cache
from types import ModuleType

import sqlalchemy as sa

from visionsuit.runtime import Ctx
from visionsuit.search.document import Document, Kind
from visionsuit.search.match import Match
from visionsuit.search.tables import DIALECTS, index_table
from visionsuit.search.tags import count_tags
from visionsuit.visibility import Asset


def index(ctx: Ctx, document: Document) -> None:
    """Write an asset's row, in place of the one it had. In the same transaction as the asset itself."""
    known = _take_out(ctx, document.kind, document.asset_id)
    dialect = _dialect(ctx)
    row = {
        "id": document.asset_id,
        "words": dialect.vector(document.words),
        "tags": json.dumps(document.tags, separators=(",", ":")) if document.tags else "",
    }
    ctx.session.execute(_sql(dialect, index_table(document.kind), "insert"), row)
    count_tags(ctx.session, document.kind, gone=known, come=document.tags)


def remove(ctx: Ctx, kind: Kind, asset_id: int) -> None:
    """Take an asset's row out; none is no error."""
    count_tags(ctx.session, kind, gone=_take_out(ctx, kind, asset_id), come={})


def find_ids(
    ctx: Ctx, kind: Kind, match: Match, *, limit: int, after: int | None = None, oldest: bool = False
) -> list[int]:
    """Ids that match, newest (or oldest) first, beyond `after`."""
    order = "oldest" if oldest else "newest"
    sql = _sql(_dialect(ctx), index_table(kind), order if after is None else f"{order}_after")
    values = {"match": _dialect(ctx).expression(match), "limit": limit}
    if after is not None:
        values["after"] = after
    return list(ctx.session.scalars(sql, values))


def matches(ctx: Ctx, kind: Kind, match: Match, *, most: int) -> int:
    """How many match, counted up to `most`."""
    values = {"match": _dialect(ctx).expression(match), "limit": most}
    return ctx.session.scalars(_sql(_dialect(ctx), index_table(kind), "count"), values).one()


class Lookup(Enum):
    """How a query over the assets' own table meets the index, by how many match."""

    #: All matches first, then their rows.
    MATCHES_FIRST = auto()
    #: All matches first, kept beside; rows in the table's order are looked up among them.
    MATCHES_BESIDE = auto()
    #: Rows in the table's order; each is looked up in the index.
    ROWS_FIRST = auto()


def id_condition(
    ctx: Ctx, kind: Kind, table: type[Asset], match: Match, lookup: Lookup
) -> sa.ColumnElement[bool] | sa.TextClause:
    """SQL condition "this row of `table` matches"."""
    dialect, index_name = _dialect(ctx), index_table(kind)
    key, id_ = f"{index_name}.{dialect.KEY}", f"{table.__tablename__}.id"
    found = f"SELECT {key} FROM {index_name} WHERE {dialect.condition(index_name)}"
    condition = {
        Lookup.MATCHES_FIRST: f"{id_} IN ({found})",
        # What stands in a function is no way in for a planner.
        Lookup.MATCHES_BESIDE: f"coalesce({id_} IN ({found}), false)",
        Lookup.ROWS_FIRST: f"EXISTS ({found} AND {key} = {id_})",
    }[lookup]
    return sa.text(condition).bindparams(match=dialect.expression(match))


def _take_out(ctx: Ctx, kind: Kind, asset_id: int) -> dict[str, str]:
    """Delete a row; returns the tags that were counted for it."""
    dialect, table = _dialect(ctx), index_table(kind)
    tags = ctx.session.scalars(_sql(dialect, table, "tags"), {"id": asset_id}).one_or_none()
    if tags is None:
        return {}
    ctx.session.execute(_sql(dialect, table, "delete"), {"id": asset_id})
    return json.loads(tags) if tags else {}


def _dialect(ctx: Ctx) -> ModuleType:
    return DIALECTS[ctx.runtime.database.dialect.name]


@cache
def _sql(dialect: ModuleType, table: str, what: str) -> sa.TextClause:
    key, condition = dialect.KEY, dialect.condition(table)
    found = f"SELECT {key} FROM {table} WHERE {condition}"
    return sa.text(
        {
            "insert": dialect.insert_sql(table),
            "delete": f"DELETE FROM {table} WHERE {key} = :id",
            "tags": f"SELECT tags FROM {table} WHERE {key} = :id",
            "newest": f"{found} ORDER BY {key} DESC LIMIT :limit",
            "newest_after": f"{found} AND {key} < :after ORDER BY {key} DESC LIMIT :limit",
            "oldest": f"{found} ORDER BY {key} LIMIT :limit",
            "oldest_after": f"{found} AND {key} > :after ORDER BY {key} LIMIT :limit",
            "count": f"SELECT count(*) FROM ({found} LIMIT :limit) AS found",
        }[what]
    )

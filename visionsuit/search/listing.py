"""Lists of assets: the index proposes ids, SQL decides who sees them, a cursor goes on. Never an offset or full count.

Newest and oldest walk the index; relevance walks it twice, rows with every word in the title first; title and
downloads are columns, so either the few matches are sorted, or the column's own order is walked until a page is full.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import sqlalchemy as sa
from sqlmodel import col

from visionsuit.core.actor import Actor
from visionsuit.core.paging import MAX_LIMIT, BadCursor, decode_cursor, encode_cursor
from visionsuit.runtime import Ctx
from visionsuit.search.document import Kind
from visionsuit.search.plan import ListRequest, Plan, Sort, make_plan
from visionsuit.search.service import Lookup, find_ids, id_condition, matches
from visionsuit.visibility import Asset, visible_to

#: With this many whole-word matches nobody misses the words that merely begin alike, and the index stays quick.
PLENTY = 100


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Numbers of matches at which a list in a column's order changes its way (measured at a million rows)."""

    #: Up to this many are sorted.
    few: int = 5000
    #: Up to this many are kept beside while the column's order is walked.
    some: int = 30_000


@dataclass(frozen=True, slots=True)
class Listing:
    """Rows of the asked columns in order, and how to go on."""

    rows: list[sa.Row[Any]] = field(default_factory=list)
    next_cursor: str | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Source:
    """What is listed. `columns` include `id`; `sorts` are the columns that can be sorted by, with their Python type."""

    kind: Kind
    table: type[Asset]
    columns: Sequence[Any]
    sorts: dict[Sort, tuple[Any, type]]
    thresholds: Thresholds = Thresholds()

    @cached_property
    def rows(self) -> sa.Select[Any]:
        return sa.select(*self.columns)


def list_assets(ctx: Ctx, source: Source, request: ListRequest) -> Listing:
    """One page.

    Raises:
        BadCursor: the cursor is not one of this list in this order.
    """
    plan = make_plan(ctx, source.kind, request)
    if plan is None:
        return Listing(notes=["Nothing matches."])
    sort = request.sort or (Sort.RELEVANCE if plan.match.terms else Sort.NEWEST)
    if sort is Sort.RELEVANCE and not plan.match.terms:
        sort = Sort.NEWEST
    limit = max(1, min(request.limit, MAX_LIMIT))
    if sort in source.sorts:
        return _by_column(ctx, source, plan, sort, request.cursor, limit)
    if sort in (Sort.DOWNLOADS, Sort.LIKES):
        plan.notes.append(f"These cannot be sorted by {sort.value}; newest first instead.")
        sort = Sort.NEWEST
    return _by_age(ctx, source, plan, sort, request.cursor, limit)


def _by_age(ctx: Ctx, source: Source, plan: Plan, sort: Sort, cursor: str | None, limit: int) -> Listing:
    tier, after, match = 0, None, plan.match
    if cursor is not None:
        asked, whole, tier, after = decode_cursor(cursor, str, int, int, int)
        if asked != sort.value or tier not in (0, 1):
            raise BadCursor("This cursor belongs to another sort order.", field="cursor")
        if whole:
            match = match.exact()
    elif match.has_prefix and matches(ctx, source.kind, match.exact(), most=PLENTY) >= PLENTY:
        match = match.exact()
    tiers = [match.in_title(), match.not_in_title()] if sort is Sort.RELEVANCE else [match]
    rows: list[sa.Row[Any]] = []
    places: list[tuple[int, int]] = []
    while tier < len(tiers) and len(rows) <= limit:
        ids = find_ids(
            ctx, source.kind, tiers[tier], limit=limit + 1 - len(rows), after=after, oldest=sort is Sort.OLDEST
        )
        if not ids:
            tier, after = tier + 1, None
            continue
        found = _load(ctx, source, ids)
        rows += found
        places += [(tier, row.id) for row in found]
        after = ids[-1]
    if len(rows) <= limit:
        return Listing(rows, None, plan.notes)
    tier, last = places[limit - 1]
    next_cursor = encode_cursor(sort.value, int(match == plan.match.exact()), tier, last)
    return Listing(rows[:limit], next_cursor, plan.notes)


def _by_column(ctx: Ctx, source: Source, plan: Plan, sort: Sort, cursor: str | None, limit: int) -> Listing:
    column, kind = source.sorts[sort]
    id_ = col(source.table.id)
    falling = sort is not Sort.TITLE
    query = source.rows.add_columns(column.label("sort_key")).where(*_conditions(ctx, source, plan))
    if cursor is not None:
        asked, value, last = decode_cursor(cursor, str, kind, int)
        # Neither a NUL nor half a character can come from a row, and no database takes them.
        if asked != sort.value or (kind is str and value != value.replace("\0", "").encode(errors="ignore").decode()):
            raise BadCursor("This cursor belongs to another sort order.", field="cursor")
        big = sa.BigInteger()
        there = sa.tuple_(sa.literal(value, sa.Text() if kind is str else big), sa.literal(last, big))
        here = sa.tuple_(column, id_)
        query = query.where(here < there if falling else here > there)
    order = (column.desc(), id_.desc()) if falling else (column, id_)
    rows = list(ctx.session.execute(query.order_by(*order).limit(limit + 1)))
    if len(rows) <= limit:
        return Listing(rows, None, plan.notes)
    last_row = rows[limit - 1]
    return Listing(rows[:limit], encode_cursor(sort.value, last_row.sort_key, last_row.id), plan.notes)


def _conditions(ctx: Ctx, source: Source, plan: Plan) -> list[Any]:
    """What the actor may see and asked for, in the form that is quick for as many as match."""
    visible = visible_to(ctx.actor, source.table, listed=True)
    few, some = source.thresholds.few, source.thresholds.some
    count = matches(ctx, source.kind, plan.match, most=some + 1)
    if count <= few:
        return [visible, id_condition(ctx, source.kind, source.table, plan.match, Lookup.MATCHES_FIRST)]
    # In a function, so that no planner comes in through an index of owners or visibilities and sorts what it finds.
    visible = sa.func.coalesce(visible, sa.false())
    if count <= some:
        return [visible, id_condition(ctx, source.kind, source.table, plan.match, Lookup.MATCHES_BESIDE)]
    if not plan.filtered:
        return [visible]
    return [visible, id_condition(ctx, source.kind, source.table, plan.match.exact(), Lookup.ROWS_FIRST)]


def _load(ctx: Ctx, source: Source, ids: list[int]) -> list[sa.Row[Any]]:
    """Rows of the ids that the actor may see in lists, in the order of `ids`."""
    # On the connection: no entities are asked for, and the session's own way with them costs as much as the query.
    found = ctx.connection.execute(_visible_rows(source, ctx.actor), {"ids": ids})
    rows = {row.id: row for row in found}
    return [rows[id_] for id_ in ids if id_ in rows]


@lru_cache(maxsize=1024)
def _visible_rows(source: Source, actor: Actor) -> sa.Select[Any]:
    """Building a statement costs more than running it."""
    wanted = col(source.table.id).in_(sa.bindparam("ids", expanding=True))
    return source.rows.where(wanted, visible_to(actor, source.table, listed=True))

"""Tag counts: kept as rows, because counting a million assets while somebody types is too slow."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col

from visionsuit.core.text import clean_line, fold
from visionsuit.runtime import Ctx
from visionsuit.search.document import Kind
from visionsuit.search.tables import TagCount

_PENDING = "tag_counts"


@dataclass(frozen=True, slots=True)
class Tag:
    name: str
    count: int


def list_tags(ctx: Ctx, start: str = "", *, kind: Kind | None = None, limit: int = 20) -> list[Tag]:
    """Tags that begin with `start`, the most used first. Counts what everybody finds, for every viewer alike."""
    key = fold(clean_line(start).lstrip("#"))
    query = (
        sa.select(col(TagCount.name), col(TagCount.count))
        .where(col(TagCount.kind) == (kind.value if kind else ""), col(TagCount.count) > 0)
        .order_by(col(TagCount.count).desc(), col(TagCount.key))
        .limit(limit)
    )
    if key:
        query = query.where(col(TagCount.key).startswith(key, autoescape=True))
    return [Tag(name, count) for name, count in ctx.session.execute(query)]


def count_tags(session: Session, kind: Kind, *, gone: Mapping[str, str], come: Mapping[str, str]) -> None:
    """Note a change of an asset's counted tags (folded -> as spelled); written when the transaction ends.

    At the end and in order, so that two transactions that touch the same tags never wait for each other in a circle.
    """
    if gone.keys() == come.keys():
        return
    if _PENDING not in session.info:
        session.info[_PENDING] = (Counter(), {})
        event.listen(session, "before_commit", _write_counts)
    changes, names = session.info[_PENDING]
    for key in come.keys() - gone.keys():
        changes[kind.value, key] += 1
        changes["", key] += 1
        names.setdefault(key, come[key])
    for key in gone.keys() - come.keys():
        changes[kind.value, key] -= 1
        changes["", key] -= 1
        names.setdefault(key, gone[key])


def _write_counts(session: Session) -> None:
    changes, names = session.info[_PENDING]
    rows = [
        {"kind": kind, "key": key, "name": names[key], "count": change}
        for (kind, key), change in sorted(changes.items())
        if change
    ]
    changes.clear()
    if not rows:
        return
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    added = insert(TagCount)
    session.execute(
        added.on_conflict_do_update(
            index_elements=["kind", "key"], set_={"count": col(TagCount.count) + added.excluded.count}
        ),
        rows,
    )

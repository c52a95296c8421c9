"""How long work takes: learnt from what was measured, per kind of work and size."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlmodel import col, select

from visionsuit.core.clock import utcnow
from visionsuit.jobs.events import recall, remember
from visionsuit.jobs.sql import upsert
from visionsuit.jobs.statements import ask
from visionsuit.jobs.tables import Pace
from visionsuit.runtime import Ctx

#: Weight of a new measurement; the machine's load changes, so old ones fade.
_NEW_WEIGHT = 0.3
#: The very first ones are slow, as everything is touched for the first time: they fade sooner.
_EARLY_WEIGHT, _EARLY_SAMPLES = 0.7, 3
_TOPIC = "paces"
#: What another process measured is known so much later.
_KEPT_S = 1.0
#: Columns, not rows: they outlive the transaction.
_ALL = select(col(Pace.key), col(Pace.size), col(Pace.seconds_per_unit), col(Pace.overhead_s))
_paces: sa.Table = Pace.__table__  # type: ignore[attr-defined]
_this = (_paces.c.key == sa.bindparam("pace_key"), _paces.c.size == sa.bindparam("pace_size"))
_ONE = sa.select(_paces.c.seconds_per_unit, _paces.c.overhead_s, _paces.c.samples).where(*_this)
_UPDATE = (
    sa.update(_paces)
    .where(*_this)
    .values(
        seconds_per_unit=sa.bindparam("seconds"), overhead_s=sa.bindparam("overhead"), samples=_paces.c.samples + 1,
        updated_at=sa.bindparam("now"),
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measured:
    """Wall seconds of one finished job, without waiting and without loading weights."""

    units: int
    units_s: float
    overhead_s: float


class Paces:
    """All known speeds at one moment; a handful of rows."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self._rows: dict[str, list[Any]] = {}
        for row in rows:
            self._rows.setdefault(row.key, []).append(row)

    def estimate_s(self, key: str, size: int, units: int) -> float | None:
        """Seconds that `units` will take at `size`; from the nearest measured size where this one is new."""
        known = self._rows.get(key)
        if not known or units <= 0:
            return None
        nearest = min(known, key=lambda row: abs(row.size - size))
        scale = size / nearest.size if nearest.size else 1.0
        return nearest.overhead_s + nearest.seconds_per_unit * units * scale

    def of(self, job: Any) -> float | None:
        """Of a Job, or selected columns of one."""
        return self.estimate_s(job.pace_key, job.pace_size, job.units)


def load_paces(ctx: Ctx) -> Paces:
    """Up to a second old."""
    paces: Paces | None = recall(ctx.bus, _TOPIC, _KEPT_S)
    if paces is None:
        paces = Paces(ask(ctx, _ALL).all())
        remember(ctx.bus, _TOPIC, paces)
    return paces


def learn(ctx: Ctx, key: str, size: int, measured: Measured) -> None:
    """Take one measurement in. Two workers at once may lose one of two: an average bears that."""
    if not key or measured.units <= 0:
        return
    per_unit = measured.units_s / measured.units
    ctx.bus.forget(_TOPIC)
    ctx.after_commit(lambda: ctx.bus.forget(_TOPIC))
    now = utcnow()
    row = ask(ctx, _ONE, pace_key=key, pace_size=size).first()
    if row is None:
        insert = upsert(ctx, Pace).values(
            key=key,
            size=size,
            seconds_per_unit=per_unit,
            overhead_s=measured.overhead_s,
            samples=1,
            updated_at=now,
        )
        ctx.connection.execute(insert.on_conflict_do_nothing())
        return
    weight = _EARLY_WEIGHT if row.samples < _EARLY_SAMPLES else _NEW_WEIGHT
    ask(
        ctx,
        _UPDATE,
        pace_key=key,
        pace_size=size,
        seconds=row.seconds_per_unit + weight * (per_unit - row.seconds_per_unit),
        overhead=row.overhead_s + weight * (measured.overhead_s - row.overhead_s),
        now=now,
    )

"""B7: a fixed mix of twelve explorer queries, each ending in 60 tiles as JSON, against looking 60 images up by id."""

import json
import os
import statistics
import time
from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa

from benchmarks.explorer_fixture import build
from benchmarks.harness import NOISE, Figure
from benchmarks.site import open_site
from visionsuit.core.actor import GUEST
from visionsuit.db import open_database
from visionsuit.images.out import image_tiles
from visionsuit.images.queries import list_images
from visionsuit.images.tables import Image
from visionsuit.search.plan import ListRequest, Sort

ROWS = int(os.environ.get("VISIONSUIT_BENCH_ROWS", "100000"))
#: Built once; outside the working tree.
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "visionsuit-bench"
ROUNDS = 30
LIMIT = 60

QUERIES = [
    ListRequest(limit=LIMIT),
    ListRequest(q="masterpiece", limit=LIMIT),
    ListRequest(q="detailed portrait", limit=LIMIT),
    ListRequest(q="cine", limit=LIMIT),
    ListRequest(q="forest light -city", limit=LIMIT),
    ListRequest(q='"masterpiece detailed"', limit=LIMIT),
    ListRequest(tags=("portrait",), limit=LIMIT),
    ListRequest(q="sky", tags=("landscape",), limit=LIMIT),
    ListRequest(sort=Sort.TITLE, limit=LIMIT),
    ListRequest(sort=Sort.OLDEST, limit=LIMIT),
    ListRequest(q="woman", sort=Sort.RELEVANCE, limit=LIMIT),
    ListRequest(q="nothinghasthisword", limit=LIMIT),
]


def fixture(rows: int) -> Path:
    path = CACHE / f"explorer-{rows}.db"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".building")
        draft.unlink(missing_ok=True)
        build(draft, rows)
        draft.rename(path)
    return path


def p95(times: list[float]) -> float:
    return statistics.quantiles(times, n=20)[-1]


def run() -> list[Figure]:
    database = open_database(f"sqlite:///{fixture(ROWS)}")
    with (
        open_site(engine="mock") as (runtime, _),
        replace(runtime, database=database).open_ctx(GUEST, read_only=True) as ctx,
    ):
        session = ctx.session
        ids = list(session.execute(sa.select(sa.column("id")).select_from(sa.table("image")).limit(LIMIT)).scalars())

        def ours(query: ListRequest) -> int:
            found = list_images(ctx, query)
            return len(json.dumps([tile.model_dump(mode="json") for tile in image_tiles(ctx, found.rows)]))

        def look_up() -> int:
            rows = session.execute(sa.select(Image).where(Image.id.in_(ids))).scalars().all()  # type: ignore[union-attr]
            return len(rows)

        times: dict[int, list[float]] = {number: [] for number in range(len(QUERIES))}
        reference: list[float] = []
        sizes = [ours(query) for query in QUERIES]
        for _ in range(ROUNDS):
            for number, query in enumerate(QUERIES):
                session.expunge_all()
                began = time.perf_counter()
                ours(query)
                times[number].append(time.perf_counter() - began)
                session.expunge_all()
                began = time.perf_counter()
                look_up()
                reference.append(time.perf_counter() - began)
    database.dispose()
    everything = [taken for each in times.values() for taken in each]
    base = p95(reference)
    halves = [p95(everything[::2]), p95(everything[1::2])]
    void = "" if abs(halves[0] - halves[1]) <= NOISE * min(halves) else "noisy"
    # Eleven of the twelve find something; an empty list is "[]".
    if sum(size > 1000 for size in sizes) != len(QUERIES) - 1:
        void = "wrong result"
    worst = max(range(len(QUERIES)), key=lambda number: statistics.median(times[number]))
    ratio, worst_ratio = p95(everything) / base, statistics.median(times[worst]) / statistics.median(reference)
    detail: dict[str, object] = {"median_ms": {str(QUERIES[n]): statistics.median(t) * 1000 for n, t in times.items()}}
    return [
        Figure(
            "B7",
            f"explorer query to 60 tiles as JSON, {ROWS:,} images, p95 / 60 rows by id",
            p95(everything) * 1000,
            base * 1000,
            "ms",
            ratio,
            "<= 5",
            ratio <= 5,
            void,
            detail,
        ),
        Figure(
            "B7",
            f"the slowest of the twelve ({QUERIES[worst].q or QUERIES[worst].sort}) / 60 rows by id, medians",
            statistics.median(times[worst]) * 1000,
            statistics.median(reference) * 1000,
            "ms",
            worst_ratio,
            "<= 60",
            worst_ratio <= 60,
            void,
        ),
    ]

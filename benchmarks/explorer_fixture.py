"""A library of N images with its search index, written in bulk into one SQLite file: for the explorer's benchmarks.

Words follow Zipf's law and a few of them stand in most prompts, as in real libraries; the same N gives the same rows.
"""

import json
import random
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

from visionsuit.db import create_schema, open_database
from visionsuit.images.service import document_of
from visionsuit.images.tables import Image
from visionsuit.visibility import Visibility

PEOPLE = 500
COMMON = ["masterpiece", "detailed", "portrait", "landscape", "light", "cinematic", "city", "forest", "woman", "sky"]
BASES = ["SD 1.5", "SDXL", "Illustrious XL", "Pony", "Flux"]
START = datetime(2024, 1, 1, tzinfo=UTC)
#: Rows a transaction; FTS5 merges in memory up to HASH_BYTES.
BATCH = 20_000
HASH_BYTES = 64 * 1024**2


@dataclass(slots=True)
class Row:
    """What `document_of` reads of an image, without the cost of the mapped class."""

    id: int
    owner_id: int
    title: str
    tags: list[str]
    visibility: str
    is_adult: bool
    recipe: dict[str, Any]
    file_name: str
    description: str = ""
    is_reported: bool = False


def make_words(chance: random.Random, count: int = 20_000) -> list[str]:
    made: dict[str, None] = dict.fromkeys(COMMON)
    while len(made) < count:
        made["".join(chance.choice("bdfgklmnprstvz") + chance.choice("aeiou") for _ in range(chance.randint(2, 5)))] = (
            None
        )
    return list(made)


def rows(count: int) -> Iterator[Row]:
    chance = random.Random(20240101)
    vocabulary = make_words(chance)
    heights = list(accumulate(1 / (rank + 12) for rank in range(len(vocabulary))))
    for id_ in range(1, count + 1):
        drawn = chance.choices(vocabulary, cum_weights=heights, k=26)
        yield Row(
            id=id_,
            owner_id=int(chance.paretovariate(0.8)) % PEOPLE + 1,
            title=" ".join(drawn[:3]),
            tags=list(dict.fromkeys(drawn[3:8])),
            visibility=chance.choices(list(Visibility), weights=[25, 5, 70])[0].value,
            is_adult=chance.random() < 0.05,
            recipe={"prompt": " ".join(drawn[6:]), "base_model": chance.choice(BASES)},
            file_name=f"{id_:07}.png",
        )


def build(path: Path, count: int) -> float:
    """Write the file, in place of one that is there. Returns seconds."""
    began = time.perf_counter()
    path.unlink(missing_ok=True)
    database = open_database(f"sqlite:///{path}")
    create_schema(database)
    database.dispose()
    db = sqlite3.connect(path, isolation_level=None)
    for pragma in ("synchronous=OFF", "journal_mode=OFF", "cache_size=-400000", "foreign_keys=OFF"):
        db.execute(f"PRAGMA {pragma}")
    # Built once they are full: filling them row by row costs more.
    later = [
        (name, sql)
        for name, sql in db.execute("SELECT name, sql FROM sqlite_master WHERE type='index' AND tbl_name='image'")
        if sql
    ]
    for name, _ in later:
        db.execute(f"DROP INDEX {name}")
    db.execute("INSERT INTO search_image (search_image, rank) VALUES ('hashsize', ?)", (HASH_BYTES,))
    _write_people(db)
    counts: dict[str, list[Any]] = {}
    batch: list[Row] = []
    db.execute("BEGIN")
    for row in rows(count):
        batch.append(row)
        if len(batch) == BATCH:
            _write_images(db, batch, counts)
            batch.clear()
    _write_images(db, batch, counts)
    tags = [(kind, key, name, seen) for key, (name, seen) in counts.items() for kind in ("", "image")]
    db.executemany("INSERT INTO tag_count (kind, key, name, count) VALUES (?, ?, ?, ?)", tags)
    for _, sql in later:
        db.execute(sql)
    db.execute("COMMIT")
    db.execute("PRAGMA journal_mode=WAL")
    db.close()
    return time.perf_counter() - began


def _write_people(db: sqlite3.Connection) -> None:
    columns = {"role": "CURATOR", "password_hash": "!", "bio": "", "token_version": 0, "is_active": 1, "shows_adult": 0}
    for id_ in range(1, PEOPLE + 1):
        row = columns | {"id": id_, "public_id": f"person{id_:010}", "email": f"p{id_}@example.org", "name": f"P{id_}"}
        row["created_at"] = START.isoformat(sep=" ")
        db.execute(f"INSERT INTO account ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(row.values()))


def _write_images(db: sqlite3.Connection, batch: list[Row], counts: dict[str, list[Any]]) -> None:
    images: list[tuple[Any, ...]] = []
    index: list[tuple[int, str, str]] = []
    for row in batch:
        document = document_of(cast("Image", row))
        index.append((row.id, document.words, json.dumps(document.tags) if document.tags else ""))
        for key, name in document.tags.items():
            counts.setdefault(key, [name, 0])[1] += 1
        at = (START + timedelta(minutes=row.id)).replace(tzinfo=None).isoformat(sep=" ") + ".000000"
        digest = f"{row.id:064x}"
        images.append(
            (
                *(row.id, f"image{row.id:011}", row.owner_id, row.title, row.description, json.dumps(row.tags)),
                *(row.visibility, row.is_adult, row.is_reported, at, at, f"file{row.id:012}", row.file_name),
                *("image/png", 1_000_000, digest, 1024, 1024, f"small{row.id:011}", f"large{row.id:011}"),
                *("data:image/webp;base64," + digest, digest[:16], json.dumps(row.recipe), None),
            )
        )
    marks = ", ".join("?" * 24)
    db.executemany(f"INSERT INTO image ({_COLUMNS}) VALUES ({marks})", images)
    db.executemany("INSERT INTO search_image (rowid, words, tags) VALUES (?, ?, ?)", index)


_COLUMNS = (
    "id, public_id, owner_id, title, description, tags, visibility, is_adult, is_reported, created_at, updated_at, "
    "object_id, file_name, mime, size_bytes, sha256, width, height, thumb_small_id, thumb_large_id, placeholder, "
    "dhash, recipe, generation_id"
)

"""Wildcard lists of the site: text files in `wildcards/` of the data folder, one entry a line.

Empty lines and lines that begin with `#` are left out. A file is read again when it changes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import structlog

from visionsuit.core.config import Settings
from visionsuit.core.text import clean_line
from visionsuit.engine.prompt_template import WILDCARD_NAME

log = structlog.get_logger()

MAX_BYTES = 2 * 1024**2
MAX_LINES = 20_000
MAX_LINE_CHARACTERS = 2000
MAX_LISTS = 2000
_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class WildcardList:
    """`name` as it stands between the underscores; `lines` never empty."""

    name: str
    lines: tuple[str, ...]

    @property
    def examples(self) -> tuple[str, ...]:
        return self.lines[:_EXAMPLES]


def list_wildcards(settings: Settings) -> list[WildcardList]:
    """All lists that have a line, by name."""
    found = [WildcardList(file.stem, _lines(file)) for file in _files(settings).values()]
    return sorted((one for one in found if one.lines), key=lambda one: one.name.lower())


def open_wildcards(settings: Settings) -> Callable[[str], tuple[str, ...]]:
    """Wildcard name, whatever its case -> its lines; none if there is no such list. The folder is looked through once,
    when the first is asked for, so that one request has one state of it."""
    list_files = cache(lambda: _files(settings))

    def find_lines(name: str) -> tuple[str, ...]:
        # The name alone decides which file of the folder is read: nothing typed becomes a path.
        file = list_files().get(name.lower())
        return () if file is None else _lines(file)

    return cache(find_lines)


def _files(settings: Settings) -> dict[str, Path]:
    folder = settings.data_dir / "wildcards"
    if not folder.is_dir():
        return {}
    files = [file for file in sorted(folder.glob("*.txt")) if WILDCARD_NAME.fullmatch(file.stem)]
    return {file.stem.lower(): file for file in files[:MAX_LISTS]}


def _lines(file: Path) -> tuple[str, ...]:
    try:
        stat = file.stat()
        if stat.st_size > MAX_BYTES or not file.is_file():
            log.warning("wildcards_unusable", file=file.name, size_bytes=stat.st_size, most_bytes=MAX_BYTES)
            return ()
        return _read(file, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        log.warning("wildcards_unusable", file=file.name, reason=str(error))
        return ()


@lru_cache(maxsize=256)
def _read(file: Path, _modified_ns: int, _size_bytes: int) -> tuple[str, ...]:
    lines = (clean_line(line) for line in file.read_text("utf-8-sig", "replace").split("\n"))
    kept = [line[:MAX_LINE_CHARACTERS] for line in lines if line and not line.startswith("#")]
    return tuple(kept[:MAX_LINES])

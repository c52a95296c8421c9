"""Is somebody still sending this? A locked file says so for exactly as long as its process lives.

Whoever shares the data folder can look. An upload through another machine leaves no file here: there, age decides.
"""

from collections.abc import Set
from enum import StrEnum
from pathlib import Path

from visionsuit.core.ids import new_id

try:
    import fcntl
except ImportError:  # Windows: no proof there, age alone decides.
    fcntl = None  # type: ignore[assignment]


class Life(StrEnum):
    LIVES = "lives"
    DEAD = "dead"
    UNKNOWN = "unknown"


class UploadLock:
    """Held from before the first row until after the last; `id` names it in the rows."""

    def __init__(self, data_dir: Path, id: str | None = None) -> None:
        self.id = id or new_id()
        self._path = _path(data_dir, self.id)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("wb")
        if fcntl is not None:
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def release(self) -> None:
        self._path.unlink(missing_ok=True)
        self._file.close()


def life_of(data_dir: Path, id: str) -> Life:
    if fcntl is None:
        return Life.UNKNOWN
    try:
        with _path(data_dir, id).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return Life.UNKNOWN
    except OSError:
        return Life.LIVES
    return Life.DEAD


def forget_dead(data_dir: Path, still_named: Set[str]) -> None:
    """Remove the locks of dead uploads that no row needs as a proof any more."""
    for path in (data_dir / "uploads").glob("*.lock"):
        if path.stem not in still_named and life_of(data_dir, path.stem) is Life.DEAD:
            path.unlink(missing_ok=True)


def _path(data_dir: Path, id: str) -> Path:
    return data_dir / "uploads" / f"{id}.lock"

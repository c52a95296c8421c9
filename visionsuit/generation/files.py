"""LoRA files where the engine can read them: as they lie in a folder storage, or fetched once into a bounded cache."""

import hashlib
import os
import secrets
import threading
import time
from collections.abc import Collection
from pathlib import Path
from weakref import WeakValueDictionary

import structlog

from visionsuit.core.errors import Unavailable
from visionsuit.runtime import Runtime
from visionsuit.storage.base import Bucket

log = structlog.get_logger()

CACHE_BYTES = 20 * 1024**3
#: What was used this lately stays, whatever the bound: a render may be about to read it.
_KEEP_S = 900.0
#: Held by nobody for long: while a file is marked as used, or unused ones are removed.
_tidying = threading.Lock()
#: One fetches a file, others who need it wait for that one alone.
_gates: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()


class LoraFileDamaged(Unavailable):
    code = "lora_file_damaged"


def local_lora(runtime: Runtime, object_id: str, sha256: str, *, keep: Collection[str] = ()) -> Path:
    """Path of a LoRA's file on this machine.

    Args:
        sha256: hex digest; names the file in the cache, and what is fetched must have it.
        keep: digests that the same render needs.

    Raises:
        ObjectMissing, StorageUnavailable
        LoraFileDamaged: the storage gave other bytes than were uploaded.
    """
    path = runtime.storage.local_path(Bucket.MODELS, object_id)
    if path is not None:
        return path
    folder = runtime.settings.data_dir / "cache" / "loras"
    cached = folder / f"{sha256}.safetensors"
    if _mark_used(cached):
        return cached
    with _tidying:
        gate = _gates.setdefault(sha256, threading.Lock())
    with gate:
        if not _mark_used(cached):
            folder.mkdir(parents=True, exist_ok=True)
            _fetch(runtime, object_id, sha256, cached)
            with _tidying:
                _evict(folder, keep={cached.name, *(f"{digest}.safetensors" for digest in keep)})
    return cached


def _mark_used(file: Path) -> bool:
    """False where it is not there."""
    with _tidying:
        try:
            os.utime(file)
        except FileNotFoundError:
            return False
    return True


def _fetch(runtime: Runtime, object_id: str, sha256: str, target: Path) -> None:
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    digest = hashlib.sha256()
    try:
        with draft.open("wb") as file:
            for chunk in runtime.storage.read(Bucket.MODELS, object_id):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != sha256:
            raise LoraFileDamaged("A LoRA's file in the storage is not the one that was uploaded.")
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)


def _evict(folder: Path, keep: Collection[str], most_bytes: int = CACHE_BYTES) -> None:
    """Remove the longest unused files beyond `most_bytes`, and drafts of a process that died."""
    files = sorted(((file.stat(), file) for file in folder.iterdir()), key=lambda entry: entry[0].st_mtime)
    total = sum(stat.st_size for stat, _ in files)
    old = time.time() - _KEEP_S
    for stat, file in files:
        is_draft = file.name.startswith(".")
        if (total > most_bytes or is_draft) and stat.st_mtime < old and file.name not in keep:
            log.info("lora_evicted", file=file.name)
            file.unlink(missing_ok=True)
            total -= stat.st_size

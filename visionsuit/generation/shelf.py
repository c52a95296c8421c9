"""Base models that the operator put into the storage: `<name>.safetensors`, or a diffusers folder `<name>/...`, in the
bucket `base-models`.

What is there is read from `manifest.json` if the bucket has one, else from a listing. A manifest is needed where the
storage forbids to list, and brings checksums where the storage has none:

    {"files": [{"path": "sdxl.safetensors", "size_bytes": 6938040682, "sha256": "31e35c80..."}]}
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import structlog

from visionsuit.core.errors import InvalidInput
from visionsuit.generation.hub import FetchStopped, HubFile, HubLied, HubMissing, HubRepo, check_content, is_allowed
from visionsuit.storage.base import ObjectMissing, Storage, StorageForbids

log = structlog.get_logger()

MANIFEST = "manifest.json"
_MAX_MANIFEST_BYTES = 8 << 20
_SHA256 = re.compile("[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][^/\\\0]{0,199}")


class BadManifest(InvalidInput):
    code = "bad_manifest"


class Shelf:
    """The same words as a hub: a base model is a repository, its name the repository's."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def close(self) -> None:
        """There is nothing."""

    def read_all(self) -> dict[str, HubRepo]:
        """Base models by name; what is none is left out.

        Raises:
            StorageUnavailable, BadManifest
        """
        return _group(self._list())

    def read_repo(self, repo_id: str, revision: str | None) -> HubRepo:
        """
        Raises:
            StorageUnavailable, BadManifest
            HubMissing: it is no longer there.
        """
        found = self.read_all().get(repo_id)
        if found is None:
            raise HubMissing(f"The storage has no base model {repo_id} any more.")
        return found

    def fetch(
        self,
        repo: HubRepo,
        file: HubFile,
        target: Path,
        *,
        on_bytes: Callable[[int], None],
        is_stopped: Callable[[], bool],
    ) -> None:
        """Download into `target`, going on from what `<target>.part` holds.

        Raises:
            FetchStopped: `is_stopped` answered True.
            ObjectMissing, StorageUnavailable, HubLied
        """
        if target.is_file() and target.stat().st_size == file.size_bytes:
            on_bytes(file.size_bytes)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        key = file.path if file.path == repo.repo_id else f"{repo.repo_id}/{file.path}"
        with part.open("ab", buffering=0) as out:
            have = out.tell()
            for piece in self._storage.read_named(key, have, file.version) if have < file.size_bytes else ():
                out.write(piece)
                have += len(piece)
                on_bytes(have)
                if is_stopped():
                    raise FetchStopped
        if have != file.size_bytes:
            part.unlink()
            raise HubLied(f"{file.path} has {have:,} bytes in the storage, where {file.size_bytes:,} are expected.")
        check_content(part, file, is_stopped, said="the storage")
        part.replace(target)

    def _list(self) -> list[HubFile]:
        try:
            return _parse_manifest(self._read_manifest())
        except (ObjectMissing, StorageForbids):
            # Without the right to list, what is not there is forbidden too.
            pass
        try:
            return [
                HubFile(one.key, one.size_bytes, None, None, md5=one.md5, version=one.version)
                for one in self._storage.list_named()
            ]
        except StorageForbids:
            log.warning("base_models_not_listed", hint=f"put a {MANIFEST} into the bucket")
            return []

    def _read_manifest(self) -> bytes:
        raw = b""
        for piece in self._storage.read_named(MANIFEST):
            raw += piece
            if len(raw) > _MAX_MANIFEST_BYTES:
                raise BadManifest(
                    f"{MANIFEST} of the base models in the storage is larger than {_MAX_MANIFEST_BYTES:,} bytes."
                )
        return raw


def _parse_manifest(raw: bytes) -> list[HubFile]:
    try:
        return [_parse_file(entry) for entry in json.loads(raw)["files"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadManifest(
            f"{MANIFEST} of the base models in the storage makes no sense.",
            hint='It is {"files": [{"path", "size_bytes", "sha256"}]}.',
        ) from error


def _parse_file(entry: Any) -> HubFile:
    path, size, sha256 = entry["path"], entry["size_bytes"], entry["sha256"].lower()
    if not isinstance(path, str) or type(size) is not int or not 0 <= size < 1 << 40 or not _SHA256.fullmatch(sha256):
        raise ValueError(entry)
    return HubFile(path, size, sha256, None)


def _group(files: Iterable[HubFile]) -> dict[str, HubRepo]:
    found: dict[str, list[HubFile]] = defaultdict(list)
    for file in files:
        name, _, path = file.path.partition("/")
        if not is_allowed(file.path) or not _NAME.fullmatch(name):
            continue
        if path:
            found[name].append(HubFile(path, file.size_bytes, file.sha256, None, file.md5, file.version))
        elif name.endswith(".safetensors"):
            found[name].append(file)
    return {
        name: HubRepo(name, _snapshot(held), tuple(held))
        for name, held in found.items()
        if is_single(name, held) or any(file.path == "model_index.json" for file in held)
    }


def is_single(name: str, files: Iterable[HubFile]) -> bool:
    """Whether it is one checkpoint, and no folder."""
    return [file.path for file in files] == [name]


def _snapshot(files: Iterable[HubFile]) -> str:
    """Changes with any of the files."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path):
        digest.update(repr((file.path, file.size_bytes, file.sha256, file.md5, file.version)).encode())
    return digest.hexdigest()[:40]

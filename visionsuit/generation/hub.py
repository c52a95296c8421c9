"""A model hub over HTTP (huggingface.co, or a mirror of it): what a repository holds, and its files, a piece at a time.

Written on the hub's public routes, not on its client library: a download here goes on where it stopped after a kill,
stops within a piece when it is cancelled, and checks every byte against what the hub said of the file.
"""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import httpx

from visionsuit.core.config import HubSettings
from visionsuit.core.errors import InvalidInput, NotPermitted, Unavailable

#: Weights, configurations and vocabularies; nothing that could run when it is opened.
ALLOWED_SUFFIXES = (".safetensors", ".json", ".txt")
_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]{0,99}")
_PIECE_BYTES = 1 << 20
_MAX_LISTING_BYTES = 32 << 20
#: No file of a base model is larger; what says so would overflow sums and columns.
_MAX_FILE_BYTES = 1 << 40
_TIMEOUT = httpx.Timeout(20.0)
#: A connection that ends early is opened again, as long as each brought something.
_FRUITLESS_TRIES = 3


class HubUnreachable(Unavailable):
    code = "hub_unreachable"


class HubRefused(NotPermitted):
    code = "hub_refused"


class HubMissing(InvalidInput):
    code = "hub_missing"


class HubLied(InvalidInput):
    """What came is not what the hub said of it."""

    code = "hub_lied"


class BadRepo(InvalidInput):
    code = "bad_repo"


class FetchStopped(Exception):
    """The caller does not want the rest."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """`sha256` (hex) of large files, `git_sha1` of small ones. From a storage: `md5` if that knows it, and `version`,
    which changes with the content."""

    path: str
    size_bytes: int
    sha256: str | None
    git_sha1: str | None
    md5: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class HubRepo:
    """A repository as it is at one commit, `snapshot`."""

    repo_id: str
    snapshot: str
    files: tuple[HubFile, ...]


def check_repo(repo_id: str, revision: str | None) -> None:
    """Raises: BadRepo."""
    if not _REPO_ID.fullmatch(repo_id) or ".." in repo_id:
        raise BadRepo("A repository is named `owner/name`.", field="repo_id")
    if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise BadRepo("A revision is a branch, tag or commit.", field="revision")


def is_allowed(path: str) -> bool:
    """Whether a file of this name may be fetched, and its path stays where it is put."""
    parts = PurePosixPath(path).parts
    plain = bool(parts) and not path.startswith("/") and "\\" not in path and "\0" not in path and ":" not in path
    return plain and ".." not in parts and len(path) < 200 and path.endswith(ALLOWED_SUFFIXES)


class Hub:
    """One conversation with a hub; close it."""

    def __init__(self, settings: HubSettings) -> None:
        self._endpoint = settings.endpoint.rstrip("/")
        token = settings.token.get_secret_value() if settings.token else None
        # httpx drops the token when a redirect leaves for another host.
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._has_token = token is not None
        self._client = httpx.Client(timeout=_TIMEOUT, follow_redirects=True, headers=headers)

    def close(self) -> None:
        self._client.close()

    def read_repo(self, repo_id: str, revision: str | None) -> HubRepo:
        """
        Raises:
            HubUnreachable, HubRefused, HubMissing, HubLied
        """
        check_repo(repo_id, revision)
        url = f"{self._endpoint}/api/models/{repo_id}/revision/{quote(revision or 'main', safe='')}"
        try:
            with self._client.stream("GET", url, params={"blobs": "true"}) as answer:
                self._check(answer, repo_id)
                raw = b""
                for piece in answer.iter_bytes():
                    raw += piece
                    if len(raw) > _MAX_LISTING_BYTES:
                        raise HubLied(f"The hub's list of files in {repo_id} does not end.")
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        return _parse_repo(repo_id, raw)

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

        Args:
            on_bytes: told how much of the file is there, often.

        Raises:
            FetchStopped: `is_stopped` answered True.
            HubUnreachable, HubRefused, HubMissing, HubLied
        """
        if target.is_file() and target.stat().st_size == file.size_bytes:
            on_bytes(file.size_bytes)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        fruitless = 0
        while (have := part.stat().st_size if part.exists() else 0) < file.size_bytes or not part.exists():
            try:
                self._fetch_rest(repo, file, part, have, on_bytes, is_stopped)
            except httpx.HTTPError as error:
                fruitless = fruitless + 1 if _size(part) == have else 0
                if fruitless >= _FRUITLESS_TRIES:
                    raise self._unreachable(error) from error
            else:
                # It ended without an error, and yet too early.
                fruitless = fruitless + 1 if _size(part) == have else 0
                if fruitless >= _FRUITLESS_TRIES and _size(part) < file.size_bytes:
                    raise HubLied(f"{file.path} ends after {_size(part):,} bytes; the hub said {file.size_bytes:,}.")
        check_content(part, file, is_stopped)
        part.replace(target)

    def _fetch_rest(
        self,
        repo: HubRepo,
        file: HubFile,
        part: Path,
        have: int,
        on_bytes: Callable[[int], None],
        is_stopped: Callable[[], bool],
    ) -> None:
        url = f"{self._endpoint}/{repo.repo_id}/resolve/{repo.snapshot}/{quote(file.path)}"
        # Packed on its way, its bytes could not be counted.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with self._client.stream("GET", url, headers=headers) as answer:
            if answer.status_code == 416:
                raise HubLied(f"{file.path} ends after {have:,} bytes; the hub said {file.size_bytes:,}.")
            self._check(answer, repo.repo_id, file.path)
            if answer.headers.get("X-Repo-Commit", repo.snapshot) != repo.snapshot:
                raise HubLied(f"The hub gave {file.path} of another commit than was asked for.")
            if answer.status_code != 206 or not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                have = 0
            # Piece by piece as they come: what is written when the process dies need not be fetched again.
            with part.open("ab" if have else "wb", buffering=0) as out:
                for piece in answer.iter_raw():
                    have += len(piece)
                    if have > file.size_bytes:
                        out.close()
                        part.unlink()
                        raise HubLied(f"{file.path} is longer than the {file.size_bytes:,} bytes that the hub said.")
                    out.write(piece)
                    on_bytes(have)
                    if is_stopped():
                        raise FetchStopped

    def _check(self, answer: httpx.Response, repo_id: str, path: str = "") -> None:
        status, what = answer.status_code, f"{repo_id}/{path}" if path else repo_id
        if status in (401, 403):
            raise HubRefused(
                f"The hub does not give {what} to "
                + ("this token." if self._has_token else "anybody without a token."),
                hint="Accept the model's terms on the hub with your account, and set VISIONSUIT_HUB__TOKEN.",
            )
        if status == 404:
            raise HubMissing(f"The hub has no {what}.", field="repo_id")
        if status == 429 or status >= 500:
            raise HubUnreachable(f"The hub answers {status} just now.")
        if status not in (200, 206):
            raise HubLied(f"The hub answers {status} for {what}.")

    def _unreachable(self, error: httpx.HTTPError) -> HubUnreachable:
        return HubUnreachable(
            f"The hub at {self._endpoint} cannot be reached: {str(error) or type(error).__name__}.",
            hint="Without network, copy the model into the models folder instead. What is fetched already is kept.",
        )


def _parse_repo(repo_id: str, raw: bytes) -> HubRepo:
    try:
        content: Mapping[str, Any] = httpx.Response(200, content=raw).json()
        commit = content["sha"]
        if not re.fullmatch(r"[0-9a-f]{6,64}", commit):
            raise ValueError(commit)
        files = tuple(file for entry in content["siblings"] if (file := _parse_file(entry)) is not None)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HubLied(f"The hub's answer about {repo_id} makes no sense.") from error
    return HubRepo(repo_id, commit, files)


def _parse_file(entry: Mapping[str, Any]) -> HubFile | None:
    lfs = entry.get("lfs") or {}
    size = lfs.get("size", entry.get("size"))
    if not isinstance(entry["rfilename"], str) or not isinstance(size, int) or size < 0:
        return None
    if size > _MAX_FILE_BYTES:
        raise ValueError(size)
    sha256 = lfs.get("sha256") or str(lfs.get("oid", "")).removeprefix("sha256:")
    return HubFile(entry["rfilename"], size, sha256 or None, None if sha256 else entry.get("blobId"))


def check_content(part: Path, file: HubFile, is_stopped: Callable[[], bool], *, said: str = "the hub") -> None:
    """Raises: HubLied: the checksum is not what `said` told; the part is gone then. FetchStopped"""
    expected = file.sha256 or file.git_sha1 or file.md5
    if expected is None:
        return
    if file.sha256:
        digest = hashlib.sha256()
    elif file.git_sha1:
        digest = hashlib.sha1(b"blob %d\0" % file.size_bytes, usedforsecurity=False)
    else:
        digest = hashlib.md5(usedforsecurity=False)
    with part.open("rb") as content:
        while piece := content.read(_PIECE_BYTES):
            digest.update(piece)
            if is_stopped():
                raise FetchStopped
        os.fsync(content.fileno())
    if digest.hexdigest() != expected:
        part.unlink()
        raise HubLied(f"{file.path} is not what {said} says it is: its checksum differs.")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0

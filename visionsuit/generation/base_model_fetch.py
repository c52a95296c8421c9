"""Base models from a hub, or from the storage: a job of its own queue, which needs no device and outlives a restart.

Files gather in `<models folder>/.fetching/<id>/<commit>`, where nobody takes them for a base model, and move into the
models folder at once when all are there. What a broken or cancelled download left is gone on with.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import structlog
from sqlmodel import col, select

from visionsuit.core.actor import SYSTEM
from visionsuit.core.errors import AppError, Conflict
from visionsuit.core.ids import is_id
from visionsuit.engine.base import ModelUnloadable
from visionsuit.engine.catalog import BaseModelInfo, read_base_model
from visionsuit.generation.base_models import FETCHING, describe
from visionsuit.generation.hub import FetchStopped, Hub, HubFile, HubLied, HubRepo
from visionsuit.generation.hub_choice import choose_folder, choose_one, find_index
from visionsuit.generation.shelf import Shelf
from visionsuit.generation.tables import BaseModel, Origin
from visionsuit.jobs import claims, queue
from visionsuit.jobs.work import Finish, Handler, Work, WorkStopped
from visionsuit.runtime import Ctx, Runtime

log = structlog.get_logger()

FETCH_QUEUE = "fetch"
KIND = "base_model.fetch"
#: Progress is told in units of so many bytes: a job counts steps in 32 bits.
UNIT_BYTES = 1024
_MAX_INDEX_BYTES = 1 << 20


class NotEnoughDisk(Conflict):
    code = "not_enough_disk"


class NameTaken(Conflict):
    code = "name_taken"


class Source(Protocol):
    """Where repositories lie: a hub, or the storage."""

    def read_repo(self, repo_id: str, revision: str | None) -> HubRepo: ...

    def fetch(
        self,
        repo: HubRepo,
        file: HubFile,
        target: Path,
        *,
        on_bytes: Callable[[int], None],
        is_stopped: Callable[[], bool],
    ) -> None: ...

    def close(self) -> None: ...


def fetching_dir(models_dir: Path, public_id: str) -> Path:
    return models_dir / FETCHING / public_id


def fetch(work: Work) -> Finish:
    """Job payload: `{"base_model_id"}`.

    Raises:
        AppError: with a sentence for administrators.
        WorkStopped: cancelled, or taken away.
    """
    runtime, public_id = work.runtime, str(work.claim.payload["base_model_id"])
    models_dir = runtime.settings.models_dir
    work.progress("listing", 0, 0)
    row = _row(runtime, public_id)
    if row is None or row.repo_id is None:
        return lambda: _forget(work, public_id)
    target = models_dir / row.folder
    is_new = not target.exists()
    if is_new:
        hub: Source = Hub(runtime.settings.hub) if row.origin == Origin.HUB else Shelf(runtime.storage)
        try:
            fetched = _Download(work, hub, row).run()
            if target.exists():
                raise NameTaken(f"{target.name} has come into the models folder meanwhile; remove one of the two.")
            fetched.replace(target)
        except (AppError, FetchStopped, OSError) as error:
            if _row(runtime, public_id) is None:
                return lambda: _forget(work, public_id)
            if isinstance(error, FetchStopped):
                raise WorkStopped from error
            if isinstance(error, OSError):
                raise NotEnoughDisk(f"The models folder cannot be written: {error.strerror or error}.") from error
            raise
        finally:
            hub.close()
    shutil.rmtree(fetching_dir(models_dir, public_id), ignore_errors=True)
    return lambda: _register(work, public_id, target, is_new=is_new)


#: Job kind -> what a worker of FETCH_QUEUE runs.
HANDLERS: dict[str, Handler] = {KIND: fetch}


class _Download:
    """One try at getting all files."""

    def __init__(self, work: Work, hub: Source, row: BaseModel) -> None:
        self._work, self._hub, self._row = work, hub, row
        self._folder = fetching_dir(work.runtime.settings.models_dir, row.public_id)
        self._done = 0
        self._total = 0

    def run(self) -> Path:
        """Returns the folder or file that is the base model, whole."""
        assert self._row.repo_id is not None
        repo = self._hub.read_repo(self._row.repo_id, self._row.revision)
        place = self._folder / repo.snapshot
        self._drop_other_commits(place)
        index = find_index(repo) if self._row.repo_file is None else None
        if index is None:
            chosen = [choose_one(repo, self._row.repo_file)]
        else:
            if index.size_bytes > _MAX_INDEX_BYTES:
                raise HubLied(f"{index.path} of {repo.repo_id} is too large to be one.")
            self._fetch(repo, index, place)
            chosen = choose_folder(repo, _read_index(place / index.path))
        self._total, self._done = sum(file.size_bytes for file in chosen), 0
        self._check_room(place, chosen)
        for file in chosen:
            self._fetch(repo, file, place)
            self._done += file.size_bytes
        units = self._total // UNIT_BYTES
        # The list shows afterwards how much it was.
        self._work.progress("registering", units, units, durable=True)
        return place if index is not None else place / chosen[0].path

    def _fetch(self, repo: HubRepo, file: HubFile, place: Path) -> None:
        def tell(have: int) -> None:
            units = (self._done + have) // UNIT_BYTES
            self._work.progress("fetching", units, max(units, self._total // UNIT_BYTES))

        self._hub.fetch(repo, file, place / file.path, on_bytes=tell, is_stopped=self._work.is_stopped)

    def _drop_other_commits(self, place: Path) -> None:
        if self._folder.is_dir():
            for other in self._folder.iterdir():
                if other != place:
                    shutil.rmtree(other, ignore_errors=True)
        place.mkdir(parents=True, exist_ok=True)

    def _check_room(self, place: Path, chosen: list[HubFile]) -> None:
        have = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
        free, reserve = shutil.disk_usage(place).free, self._work.runtime.settings.hub.reserve_bytes
        needed = max(0, self._total - have)
        if needed + reserve > free:
            raise NotEnoughDisk(
                f"{needed / 1e9:.1f} GB are still to come, and {free / 1e9:.1f} GB are free, "
                f"of which {reserve / 1e9:.1f} GB have to stay free.",
                hint="Free some space, then go on with the download.",
            )


def _read_index(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise HubLied("The repository's model_index.json is no JSON.") from error
    if not isinstance(content, dict):
        raise HubLied("The repository's model_index.json is no JSON object.")
    return content


def _row(runtime: Runtime, public_id: str) -> BaseModel | None:
    with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        return find_row(ctx, public_id)


def find_row(ctx: Ctx, public_id: str) -> BaseModel | None:
    if not is_id(public_id):
        return None
    return ctx.session.exec(select(BaseModel).where(col(BaseModel.public_id) == public_id)).first()


def _forget(work: Work, public_id: str) -> None:
    """Second half of a job whose base model left the list: what came goes, and the job with it."""
    shutil.rmtree(fetching_dir(work.runtime.settings.models_dir, public_id), ignore_errors=True)
    with work.runtime.open_ctx(SYSTEM) as ctx:
        claims.complete(ctx, work.claim, device_seconds=0.0)
        queue.remove(ctx, queue.lock_job(ctx, work.claim.job_id))


def _is_listed(ctx: Ctx, folder: str) -> bool:
    return ctx.session.exec(select(BaseModel.id).where(col(BaseModel.folder) == folder)).first() is not None


def remove_files(path: Path) -> None:
    """A base model's folder or file, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _register(work: Work, public_id: str, target: Path, *, is_new: bool) -> None:
    """Second half of the job: the row says what came. `is_new`: this job put it there."""
    info: BaseModelInfo | None = None
    trouble = ""
    try:
        info = read_base_model(target)
    except ModelUnloadable as error:
        trouble = error.message
        log.warning("base_model_unusable", folder=target.name, reason=trouble)
    with work.runtime.open_ctx(SYSTEM) as ctx:
        # First: whoever deletes the base model waits for the job's row too.
        claims.complete(ctx, work.claim, device_seconds=0.0)
        row = find_row(ctx, public_id)
        if row is None:
            queue.remove(ctx, queue.lock_job(ctx, work.claim.job_id))
            # Deleted since its files were moved; without a row they would come back as found in the models folder.
            if is_new and not _is_listed(ctx, target.name):
                ctx.after_commit(lambda: remove_files(target))
            return
        if info is not None:
            describe(row, info)
        else:
            row.trouble = trouble
        ctx.session.add(row)

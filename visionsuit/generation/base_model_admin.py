"""The list of base models as administrators keep it: change, put in order, remove, download."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlmodel import col, select

from visionsuit.audit.service import record
from visionsuit.core.actor import Actor
from visionsuit.core.clock import utcnow
from visionsuit.core.errors import Conflict, NotFound
from visionsuit.core.permissions import Permission, require
from visionsuit.engine.base import ModelUnloadable
from visionsuit.engine.catalog import read_base_model
from visionsuit.generation.base_model_checks import (
    OVERRIDES,
    BadBaseModel,
    check_dtype,
    check_override,
    check_role,
)
from visionsuit.generation.base_model_fetch import FETCH_QUEUE, KIND, fetching_dir, find_row, remove_files
from visionsuit.generation.base_models import NOT_FETCHED, describe, sync_base_models
from visionsuit.generation.shelf_sync import sync_shelf
from visionsuit.generation.tables import FETCHED, BaseModel, Generation, Origin
from visionsuit.jobs import queue
from visionsuit.jobs.queue import JobNotFound
from visionsuit.jobs.tables import ACTIVE, FINISHED, Job, JobState
from visionsuit.runtime import Ctx, Runtime


class BaseModelNotFound(NotFound):
    code = "base_model_not_found"


class StillThere(Conflict):
    code = "still_there"


@dataclass(frozen=True, slots=True)
class Listed:
    """A base model and its latest download, if it has one."""

    row: BaseModel
    job: Job | None


def list_all(ctx: Ctx) -> list[Listed]:
    """Everything in the list, also what is not offered, in its order.

    Raises:
        NotPermitted
    """
    require(ctx.actor, Permission.BASE_MODELS_MANAGE)
    rows = ctx.session.exec(select(BaseModel).order_by(col(BaseModel.position), col(BaseModel.id))).all()
    names = [row.fetch_job for row in rows if row.fetch_job]
    jobs = {job.public_id: job for job in ctx.session.exec(select(Job).where(col(Job.public_id).in_(names)))}
    return [Listed(row, jobs.get(row.fetch_job or "")) for row in rows]


def get_listed(ctx: Ctx, public_id: str) -> Listed:
    """
    Raises:
        NotPermitted, BaseModelNotFound
    """
    row = _get(ctx, public_id)
    return Listed(row, _job_of(ctx, row))


def get_named(ctx: Ctx, name: str) -> BaseModel:
    """By its name in the models folder or at its source, or by its label.

    Raises:
        NotPermitted, BaseModelNotFound
    """
    rows = [listed.row for listed in list_all(ctx)]
    for row in rows:
        if name in (row.folder, row.repo_id):
            return row
    for row in rows:
        if name == row.label:
            return row
    raise BaseModelNotFound(f"There is no base model “{name}”.")


def sync(runtime: Runtime, actor: Actor) -> None:
    """Look at the models folder, and at the storage's bucket of base models, again.

    Raises:
        NotPermitted
        StorageUnavailable, BadManifest: what lies in the bucket is not known; the rest is done.
    """
    require(actor, Permission.BASE_MODELS_MANAGE)
    sync_base_models(runtime)
    sync_shelf(runtime)


def fetch_again(ctx: Ctx, public_id: str) -> Listed:
    """Begin a download, or go on with one that failed or was cancelled; nothing happens while it runs.

    Raises:
        NotPermitted, BaseModelNotFound
        Conflict: it is not one that is downloaded, or is there.
    """
    listed = get_listed(ctx, public_id)
    row = listed.row
    if row.origin not in FETCHED or (ctx.settings.models_dir / row.folder).exists():
        raise Conflict(f"“{row.label}” has nothing to download.")
    if listed.job is not None and listed.job.id is not None:
        try:
            queue.lock_job(ctx, listed.job.id)
        except JobNotFound:
            # Somebody else has just begun anew.
            ctx.session.expire(row)
            return get_listed(ctx, public_id)
    # After the job, as whoever ends one does.
    locked = select(BaseModel).where(col(BaseModel.id) == row.id).with_for_update()
    if ctx.session.exec(locked.execution_options(populate_existing=True)).first() is None:
        raise BaseModelNotFound("There is no such base model.")
    latest = _job_of(ctx, row)
    if latest is None or (latest is listed.job and latest.state not in ACTIVE):
        begin_fetch(ctx, row, latest)
    return get_listed(ctx, public_id)


def begin_fetch(ctx: Ctx, row: BaseModel, before: Job | None = None) -> None:
    """Let it be downloaded. `before`: the download that is over, of which nothing is to be known any more."""
    if before is not None:
        queue.remove(ctx, before)
    # Nobody's job: a download is no use of the device, which would count against an owner's turns.
    job = queue.defer(ctx, KIND, {"base_model_id": row.public_id}, owner_id=None, queue=FETCH_QUEUE)
    row.fetch_job, row.trouble = job.public_id, NOT_FETCHED
    ctx.session.add(row)
    ctx.session.flush()


def cancel_fetch(ctx: Ctx, public_id: str) -> Listed:
    """Stop a download; what came is kept for another time.

    Raises:
        NotPermitted, BaseModelNotFound
    """
    listed = get_listed(ctx, public_id)
    if listed.job is not None and listed.job.id is not None:
        queue.cancel(ctx, listed.job.id)
    return get_listed(ctx, public_id)


def edit(ctx: Ctx, public_id: str, changes: Mapping[str, Any]) -> Listed:
    """Change `label`, `description`, `default`, `sizes` (None: what the files say), `dtype`, `allowed_roles`,
    `is_enabled`, `is_default`, `position`.

    Raises:
        NotPermitted, BaseModelNotFound
        BadBaseModel: with the field.
    """
    row = _get(ctx, public_id)
    own = dict(row.overrides or {})
    for name in OVERRIDES:
        if name in changes:
            own.pop(name, None)
            if changes[name] is not None:
                own[name] = check_override(name, changes[name], row, ctx.settings.limits.steps)
    row.overrides = own
    if changes.get("dtype") is not None:
        row.dtype = check_dtype(changes["dtype"])
    if "allowed_roles" in changes:
        row.allowed_roles = sorted({check_role(role) for role in changes["allowed_roles"] or []})
    if changes.get("is_enabled") is not None:
        row.is_enabled = bool(changes["is_enabled"])
    if changes.get("position") is not None:
        row.position = int(changes["position"])
    if changes.get("is_default"):
        ctx.session.execute(sa.update(BaseModel).where(col(BaseModel.id) != row.id).values(is_default=False))
        row.is_default = True
    _describe_again(ctx, row)
    ctx.session.add(row)
    ctx.session.flush()
    record(ctx, "base_model.changed", row.public_id, {"fields": sorted(changes)})
    return get_listed(ctx, public_id)


def reorder(ctx: Ctx, public_ids: Sequence[str]) -> None:
    """Put the list into this order; what is not named follows as it was.

    Raises:
        NotPermitted
        BadBaseModel: one is not in the list, or named twice.
    """
    require(ctx.actor, Permission.BASE_MODELS_MANAGE)
    # Two who move something at once do it one after the other.
    query = select(BaseModel).order_by(col(BaseModel.position), col(BaseModel.id)).with_for_update()
    rows = {row.public_id: row for row in ctx.session.exec(query)}
    if len(set(public_ids)) != len(public_ids) or not rows.keys() >= set(public_ids):
        raise BadBaseModel("Name base models of the list, each once.", field="ids", hint="Load the list again.")
    before = {public_id: row.position for public_id, row in rows.items()}
    for position, public_id in enumerate(dict.fromkeys([*public_ids, *rows]), start=1):
        rows[public_id].position = position
        ctx.session.add(rows[public_id])
    ctx.session.flush()
    if any(row.position != before[public_id] for public_id, row in rows.items()):
        record(ctx, "base_model.reordered", "", {"ids": list(public_ids)})


def delete(ctx: Ctx, public_id: str) -> None:
    """Take it off the list; what was downloaded for it is deleted, what somebody else put there stays.

    Raises:
        NotPermitted, BaseModelNotFound
        StillThere: it lies in the models folder, and would come back.
    """
    row = _get(ctx, public_id)
    models_dir = ctx.settings.models_dir
    path = models_dir / row.folder
    if row.origin == Origin.FOUND and path.exists():
        raise StillThere(
            f"“{row.label}” lies in the models folder. Disable it, or remove it there first.",
            hint="PATCH is_enabled to false hides it from everybody.",
        )
    job = _job_of(ctx, row)
    if job is not None and job.id is not None:
        queue.cancel(ctx, job.id)
    # Where its download never ended, what lies under its name came from somebody else.
    is_downloaded = job.state == JobState.COMPLETED if job is not None else row.origin == Origin.HUB
    ctx.session.execute(sa.update(Generation).where(col(Generation.base_model_id) == row.id).values(base_model_id=None))
    if job is not None and job.state in FINISHED:
        queue.remove(ctx, job)
    ctx.session.delete(row)
    ctx.session.flush()
    record(ctx, "base_model.removed", row.public_id, {"folder": row.folder})
    if row.origin in FETCHED:
        if is_downloaded:
            ctx.after_commit(lambda: remove_files(path))
        ctx.after_commit(lambda: remove_files(fetching_dir(models_dir, public_id)))


def _get(ctx: Ctx, public_id: str) -> BaseModel:
    require(ctx.actor, Permission.BASE_MODELS_MANAGE)
    row = find_row(ctx, public_id)
    if row is None:
        raise BaseModelNotFound("There is no such base model.")
    return row


def _job_of(ctx: Ctx, row: BaseModel) -> Job | None:
    if not row.fetch_job:
        return None
    return ctx.session.exec(
        select(Job).where(col(Job.public_id) == row.fetch_job).execution_options(populate_existing=True)
    ).first()


def _describe_again(ctx: Ctx, row: BaseModel) -> None:
    """Overrides come over what the files say, so these are asked again; from memory, where nothing changed."""
    if row.trouble is not None:
        row.label = row.overrides.get("label", row.label)
        row.updated_at = utcnow()
        return
    try:
        describe(row, read_base_model(ctx.settings.models_dir / row.folder))
    except ModelUnloadable as error:
        row.trouble = error.message

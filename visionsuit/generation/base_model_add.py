"""New entries of the list of base models: what lies on this machine, or is downloaded from a hub."""

from pathlib import PurePosixPath

import sqlalchemy as sa
from sqlmodel import col, select

from visionsuit.audit.service import record
from visionsuit.core.actor import Actor
from visionsuit.core.errors import Conflict
from visionsuit.core.permissions import Permission, require
from visionsuit.engine.base import ModelUnloadable
from visionsuit.engine.catalog import BaseModelInfo, is_checkpoint, read_base_model
from visionsuit.generation.base_model_admin import begin_fetch
from visionsuit.generation.base_model_checks import MAX_LABEL, BadBaseModel, check_label
from visionsuit.generation.base_models import describe, is_inside_allowed, is_unicode
from visionsuit.generation.hub import check_repo, is_allowed
from visionsuit.generation.tables import BaseModel, Origin
from visionsuit.runtime import Ctx, Runtime


class AlreadyListed(Conflict):
    code = "already_listed"


def add_path(runtime: Runtime, actor: Actor, path: str, label: str | None = None) -> str:
    """Add a diffusers folder or checkpoint on this machine. Returns its id.

    Raises:
        NotPermitted, BadBaseModel, AlreadyListed
    """
    require(actor, Permission.BASE_MODELS_MANAGE)
    # Slow disks are read before the transaction begins.
    folder, info = _look_at(runtime, path)
    with runtime.open_ctx(actor) as ctx:
        _refuse_listed(ctx, folder)
        row = _new_row(ctx, folder, label)
        row.origin = Origin.FOUND if _is_in_models_dir(runtime, folder) else Origin.PATH
        describe(row, info)
        ctx.session.add(row)
        ctx.session.flush()
        record(ctx, "base_model.added", row.public_id, {"folder": folder})
        return row.public_id


def add_repo(ctx: Ctx, repo_id: str, revision: str | None, file: str | None, label: str | None = None) -> BaseModel:
    """Add a hub's repository, or one checkpoint in it, and download it in the background.

    Raises:
        NotPermitted, BadRepo, BadBaseModel, AlreadyListed
    """
    require(ctx.actor, Permission.BASE_MODELS_MANAGE)
    check_repo(repo_id, revision)
    if file is not None and not (is_allowed(file) and file.endswith(".safetensors")):
        raise BadBaseModel("One file of a repository has to be a .safetensors checkpoint.", field="file")
    folder = repo_id.replace("/", "--") if file is None else PurePosixPath(file).name
    if (ctx.settings.models_dir / folder).exists():
        raise AlreadyListed(f"{folder} lies in the models folder already.", field="repo_id")
    _refuse_listed(ctx, folder)
    row = _new_row(ctx, folder, label)
    row.origin, row.repo_id, row.revision, row.repo_file = Origin.HUB, repo_id, revision, file
    row.label = row.overrides.get("label", repo_id)
    ctx.session.add(row)
    begin_fetch(ctx, row)
    record(ctx, "base_model.added", row.public_id, {"repo_id": repo_id, "revision": revision, "file": file})
    return row


def _new_row(ctx: Ctx, folder: str, label: str | None) -> BaseModel:
    position = ctx.session.exec(select(sa.func.max(col(BaseModel.position)))).one() or 0
    row = BaseModel(folder=folder, key="", label=folder[:MAX_LABEL], family="", position=position + 1)
    if label is not None and (text := check_label(label)):
        row.overrides = {"label": text}
    return row


def _refuse_listed(ctx: Ctx, folder: str) -> None:
    known = ctx.session.exec(select(BaseModel).where(col(BaseModel.folder) == folder)).first()
    if known is not None:
        raise AlreadyListed(f"This is in the list already, as “{known.label}”.")


def _look_at(runtime: Runtime, path: str) -> tuple[str, BaseModelInfo]:
    """(what `folder` says, what is there)."""
    if not path or "\0" in path or len(path) > 1000 or not is_unicode(path):
        raise BadBaseModel("Name a folder or file on the server.", field="path")
    settings = runtime.settings
    # Relative to the models folder; a whole path stays one.
    named = settings.models_dir / path
    if not is_inside_allowed(settings, named):
        raise BadBaseModel(
            "Base models may be added from the models folder and the folders in VISIONSUIT_BASE_MODEL_DIRS only.",
            field="path",
        )
    real = named.resolve()
    try:
        is_there = real.exists()
    except OSError as error:
        raise BadBaseModel(f"This path cannot be read: {error.strerror or error}.", field="path") from error
    if not is_there:
        raise BadBaseModel("There is nothing at this path.", field="path")
    models_dir = settings.models_dir.resolve()
    folder = real.relative_to(models_dir).as_posix() if real.is_relative_to(models_dir) else str(real)
    if len(folder) > 255 or folder in ("", ".") or not is_unicode(folder):
        raise BadBaseModel("This path is too long, no Unicode, or the models folder itself.", field="path")
    try:
        return folder, read_base_model(real)
    except ModelUnloadable as error:
        raise BadBaseModel(error.message, field="path") from error


def _is_in_models_dir(runtime: Runtime, folder: str) -> bool:
    """Whether a look at the models folder finds it by itself."""
    path = runtime.settings.models_dir / folder
    return "/" not in folder and (is_checkpoint(path) or (path / "model_index.json").is_file())

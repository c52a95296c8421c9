"""The list of base models: filled from the models folder, read by pickers, limited by role."""

import shutil
from pathlib import Path

import sqlalchemy as sa
import structlog
from sqlmodel import Session, col, select

from visionsuit.core.actor import SYSTEM, Actor
from visionsuit.core.clock import utcnow
from visionsuit.core.config import Settings
from visionsuit.core.errors import InvalidInput, Unavailable
from visionsuit.engine.base import BaseModelRef, Family, ModelUnloadable
from visionsuit.engine.catalog import BaseModelInfo, list_base_models, read_base_model
from visionsuit.generation.base_model_checks import keep_fitting
from visionsuit.generation.tables import FETCHED, BaseModel, Origin
from visionsuit.runtime import Ctx, Runtime

log = structlog.get_logger()

#: Goes first in the list, and is the default of a fresh site.
_DEMO_FOLDER = "demo"
_GONE = "Its folder is no longer in the models folder."
_OUTSIDE = "Its folder is not one that base models may be taken from any more."
#: Downloads on their way, in the models folder.
FETCHING = ".fetching"
NOT_FETCHED = "It is not downloaded yet."


_table: sa.Table = BaseModel.__table__  # type: ignore[attr-defined]
_IS_OFFERED = (_table.c.is_enabled.is_(True), _table.c.trouble.is_(None))
_IN_ORDER = (_table.c.position, _table.c.id)
_OFFERED = select(BaseModel).where(*_IS_OFFERED).order_by(*_IN_ORDER)
#: The same as the driver gives it: to compare, not to read.
_OFFERED_RAW = sa.select(sa.text("*")).select_from(_table).where(*_IS_OFFERED).order_by(*_IN_ORDER)
#: What was made of them the last time, kept on the bus.
_KEPT = "base-models"


class UnknownBaseModel(InvalidInput):
    code = "unknown_base_model"


class NoBaseModel(Unavailable):
    code = "no_base_model"


def sync_base_models(runtime: Runtime) -> None:
    """Make the list say what lies in the models folder, and whether what was added from elsewhere is still there.
    What an administrator chose (enabled, default, roles, order, label) stays; what went away, or cannot be read, is
    kept with the reason and not offered."""
    found, broken = _look(runtime)
    with runtime.open_ctx(SYSTEM) as ctx:
        known = {row.folder: row for row in ctx.session.exec(select(BaseModel).with_for_update())}
        position = max((row.position for row in known.values()), default=0)
        new = {*found, *broken} - known.keys()
        for name in sorted(new, key=lambda name: (name != _DEMO_FOLDER, name)):
            position += 1
            known[name] = BaseModel(folder=name, key="", label=name[:180], family="", position=position)
        for name, row in known.items():
            if name in found:
                describe(row, found[name])
            else:
                row.trouble = broken.get(name) or (NOT_FETCHED if row.origin in FETCHED else _GONE)
            ctx.session.add(row)
        if known and not any(row.is_default for row in known.values()):
            min(known.values(), key=lambda row: (row.trouble is not None, row.position)).is_default = True
        kept = {row.public_id for row in known.values()}
    _drop_left_downloads(runtime.settings.models_dir / FETCHING, kept)


def _drop_left_downloads(folder: Path, kept: set[str]) -> None:
    """Beginnings of what left the list while it was downloaded by a process that died."""
    for place in folder.iterdir() if folder.is_dir() else ():
        if place.name not in kept:
            shutil.rmtree(place, ignore_errors=True)


def _look(runtime: Runtime) -> tuple[dict[str, BaseModelInfo], dict[str, str]]:
    """(what can be rendered with, why the rest cannot) by `folder`."""
    models_dir = runtime.settings.models_dir
    paths = {path.name: path for path in list_base_models(models_dir) if is_unicode(path.name)}
    with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        added = ctx.session.exec(select(BaseModel.folder).where(col(BaseModel.origin) == Origin.PATH)).all()
    paths |= {folder: models_dir / folder for folder in added}
    found: dict[str, BaseModelInfo] = {}
    broken: dict[str, str] = {}
    for name, path in paths.items():
        try:
            if name in added and not is_inside_allowed(runtime.settings, path):
                raise ModelUnloadable(_OUTSIDE)
            found[name] = read_base_model(path)
        except ModelUnloadable as error:
            broken[name] = error.message
            log.warning("base_model_unusable", folder=name, reason=error.message)
    return found, broken


def is_unicode(path: str) -> bool:
    """Whether a path can be kept: file systems allow bytes that are no text, and no database does."""
    return not any("\ud800" <= character <= "\udfff" for character in path)


def is_inside_allowed(settings: Settings, path: Path) -> bool:
    """Whether `path`, links followed, lies in a folder that base models may be taken from."""
    real = path.resolve()
    return any(real.is_relative_to(folder.resolve()) for folder in (settings.models_dir, *settings.base_model_dirs))


def find_weights(settings: Settings, row: BaseModel) -> tuple[bool, int | None]:
    """(whether anything is at its place, bytes of its weights: None while they cannot be read)."""
    path = settings.models_dir / row.folder
    on_disk = path.exists()
    if not on_disk or row.trouble is not None:
        return on_disk, None
    try:
        return on_disk, read_base_model(path).weights_bytes
    except ModelUnloadable:
        return on_disk, None


def describe(row: BaseModel, info: BaseModelInfo) -> None:
    """Write down what the files say, and over it what an administrator says instead, if it fits them."""
    public = info.as_json()
    own = row.overrides or {}
    row.key = info.key
    row.label = (own.get("label") or info.label)[:180]
    row.family = info.family.value
    row.description = own.get("description", info.description)
    row.min_size, row.max_size, row.size_step = info.min_size, info.max_size, info.size_step
    default, sizes = keep_fitting(own, row)
    row.default = public["default"] | default
    row.sizes = sizes or public["sizes"]
    row.prompt_tokens = info.prompt_tokens
    row.suggestions = list(info.suggestions)
    row.abilities = public["abilities"]
    row.trouble = None
    row.updated_at = utcnow()


def list_offered(ctx: Ctx) -> list[BaseModel]:
    """What the actor may choose from, in the administrator's order; only to be read. Guests see what members see."""
    return [row for row in _offered(ctx) if _may_choose(ctx.actor, row)]


def _offered(ctx: Ctx) -> list[BaseModel]:
    """Every request asks for them and they hardly change: rows are made objects when they are not those of before."""
    ctx.flush()
    raw = ctx.connection.execute(_OFFERED_RAW).all()
    kept = ctx.bus.latest(_KEPT)
    if kept is None or kept["raw"] != raw:
        # Objects of nobody's transaction: others will read them.
        with Session(ctx.connection, expire_on_commit=False) as apart:
            kept = {"raw": raw, "rows": list(apart.exec(_OFFERED))}
        ctx.bus.publish(_KEPT, kept, keep=True)
    rows: list[BaseModel] = kept["rows"]
    return rows


def get_offered(ctx: Ctx, public_id: str | None) -> BaseModel:
    """The base model of a request; the default one without an id.

    Raises:
        UnknownBaseModel: there is none of this id, or it is not offered to the actor.
        NoBaseModel: nothing is offered at all.
    """
    offered = list_offered(ctx)
    if not offered:
        raise NoBaseModel(
            "No base model is installed, so nothing can be rendered.",
            hint="Put a diffusers folder or a checkpoint into the models folder, then run `visionsuit models sync`.",
        )
    if public_id is None:
        return default_of(offered)
    for row in offered:
        if row.public_id == public_id:
            return row
    raise UnknownBaseModel(
        "There is no such base model, or it is not open to you.",
        field="base_model_id",
        hint="GET /api/base-models lists them.",
    )


def default_of(offered: list[BaseModel]) -> BaseModel:
    """The one that is taken when none is named: the administrator's choice, or the first while that is not offered."""
    return next((row for row in offered if row.is_default), offered[0])


def ref_of(runtime: Runtime, row: BaseModel) -> BaseModelRef:
    """What the engine is asked for; its `key` tells number formats apart."""
    ref = BaseModelRef(key=row.key, path=runtime.settings.models_dir / row.folder, family=Family(row.family))
    return ref.in_dtype(row.dtype)


def _may_choose(actor: Actor, row: BaseModel) -> bool:
    return not row.allowed_roles or actor.is_admin or actor.role.value in row.allowed_roles

"""/api/base-models for administrators: the whole list, and what may be done to it."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from visionsuit.engine.base import samplers_for
from visionsuit.generation import base_model_add, base_model_admin
from visionsuit.generation.base_model_admin import Listed
from visionsuit.generation.base_model_checks import BadBaseModel
from visionsuit.generation.base_model_fetch import UNIT_BYTES
from visionsuit.generation.base_models import find_weights
from visionsuit.generation.schemas import DefaultOut
from visionsuit.generation.tables import Origin
from visionsuit.jobs.events import latest_progress
from visionsuit.jobs.tables import Job, JobState
from visionsuit.router import CtxDep, ReadCtxDep, Router
from visionsuit.runtime import Ctx
from visionsuit.web import ActorDep, RuntimeDep

router = Router(prefix="/api/base-models", tags=["base models"])
Pixels = Annotated[int, Field(ge=1, le=16384)]


class AddIn(BaseModel):
    """Either `path` or `repo_id`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"repo_id": "stabilityai/stable-diffusion-xl-base-1.0", "label": "SDXL"},
                {"path": "dreamshaper_8.safetensors"},
            ]
        }
    )

    path: str | None = Field(None, description="On the server: in the models folder, or one of the folders allowed.")
    repo_id: str | None = Field(None, description="`owner/name` on the hub; it is downloaded.")
    revision: str | None = Field(None, description="Branch, tag or commit; `main` if left out.")
    file: str | None = Field(None, description="One .safetensors checkpoint of the repository.")
    label: str | None = None


class DefaultIn(BaseModel):
    width: Pixels | None = None
    height: Pixels | None = None
    steps: int | None = None
    guidance: float | None = Field(None, allow_inf_nan=False)
    sampler: str | None = None
    schedule: str | None = None


class EditIn(BaseModel):
    """What is left out stays; null for label, description, default and sizes: what the model's files say."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"label": "SDXL", "default": {"steps": 30}, "allowed_roles": ["CURATOR"]}]}
    )

    label: str | None = None
    description: str | None = None
    default: DefaultIn | None = None
    sizes: list[list[Pixels]] | None = Field(None, description="Suggested [width, height] pairs.")
    dtype: str | None = Field(
        None, description="Number format of its weights: auto, fp16, bf16 or fp32. auto: as device and family ask for."
    )
    allowed_roles: list[str] | None = Field(None, description="Who may choose it; empty: everybody who may render.")
    is_enabled: bool | None = None
    is_default: bool | None = Field(None, description="True: taken where none is named.")
    position: int | None = Field(None, ge=0, le=100_000, description="Lower ones come first.")


class FetchErrorOut(BaseModel):
    code: str
    message: str


class FetchOut(BaseModel):
    """A download. Bytes are rounded to kilobytes."""

    status: str = Field(description="pending, queued, running, completed, failed or cancelled", examples=["running"])
    bytes: int
    total_bytes: int = Field(description="0 until the hub has said.")
    percent: float | None = Field(examples=[41.7])
    error: FetchErrorOut | None


class ListedOut(BaseModel):
    """A base model with all that administrators see."""

    id: str
    label: str
    description: str
    family: str
    origin: Origin = Field(
        description="found: in the models folder; path: added by its path; hub, storage: downloaded."
    )
    folder: str = Field(description="Name in the models folder, or a path.")
    repo_id: str | None
    revision: str | None
    file: str | None
    default: DefaultOut | None = Field(description="null while its files are not known.")
    sizes: list[list[int]]
    overrides: dict[str, Any] = Field(description="What is said here instead of what the files say.")
    min_size: int
    max_size: int
    size_step: int
    samplers: list[str] = Field(description="Ids of the samplers that its kind is rendered with.")
    abilities: list[str] = Field(description="Of `loras`, `pictures`, `masks`, `variations`, what it may be asked for.")
    dtype: str = Field(description="auto, fp16, bf16 or fp32")
    allowed_roles: list[str]
    is_enabled: bool
    is_default: bool
    position: int
    size_bytes: int | None = Field(description="Of its weights; null while they cannot be read.")
    on_disk: bool = Field(description="Whether anything is at its place.")
    trouble: str | None = Field(description="Why it cannot be used now.")
    fetch: FetchOut | None
    created_at: datetime
    updated_at: datetime


class OrderIn(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"ids": ["q1Zk3vQ0h8m1TgYw", "Pf0aTn7XcKe4LrVb"]}]})

    ids: list[str] = Field(max_length=10_000, description="The first one first; what is left out follows as it was.")


class ListedListOut(BaseModel):
    items: list[ListedOut]


@router.get("/all", summary="All base models, also those that are not offered")
def list_all(ctx: ReadCtxDep) -> ListedListOut:
    return ListedListOut(items=[_out(ctx, listed) for listed in base_model_admin.list_all(ctx)])


@router.post("/sync", summary="Look at the models folder and the storage again")
def sync_list(runtime: RuntimeDep, actor: ActorDep) -> ListedListOut:
    """What lies in the storage's bucket `base-models` is listed too; POST /api/base-models/{id}/fetch downloads it."""
    base_model_admin.sync(runtime, actor)
    with runtime.open_ctx(actor, read_only=True) as ctx:
        return list_all(ctx)


@router.post("", status_code=201, summary="Add a base model from the server's disk or from a hub")
def add_base_model(runtime: RuntimeDep, actor: ActorDep, body: AddIn) -> ListedOut:
    """A repository is downloaded in the background: only configurations, vocabularies and safetensors weights, never
    pickles or code. Follow `fetch` in the answer of GET /api/base-models/all."""
    if (body.path is None) == (body.repo_id is None):
        raise BadBaseModel("Name either a path or a repository.", field="path")
    if body.path is not None:
        public_id = base_model_add.add_path(runtime, actor, body.path, body.label)
    else:
        with runtime.open_ctx(actor) as ctx:
            row = base_model_add.add_repo(ctx, body.repo_id or "", body.revision, body.file, body.label)
            public_id = row.public_id
    with runtime.open_ctx(actor, read_only=True) as ctx:
        return _out(ctx, base_model_admin.get_listed(ctx, public_id))


@router.put("/order", summary="Put the list of base models into an order")
def order_base_models(ctx: CtxDep, body: OrderIn) -> ListedListOut:
    """All at once or not at all."""
    base_model_admin.reorder(ctx, body.ids)
    return list_all(ctx)


@router.patch("/{base_model_id}", summary="Change what the list says of a base model")
def edit_base_model(ctx: CtxDep, base_model_id: str, body: EditIn) -> ListedOut:
    return _out(ctx, base_model_admin.edit(ctx, base_model_id, body.model_dump(exclude_unset=True)))


@router.delete("/{base_model_id}", status_code=204, summary="Take a base model off the list")
def delete_base_model(ctx: CtxDep, base_model_id: str) -> None:
    """What was downloaded is deleted; files that were there before stay. 409 `still_there` for what lies in the models
    folder: disable it instead."""
    base_model_admin.delete(ctx, base_model_id)


@router.post("/{base_model_id}/fetch", summary="Begin a download, or go on with it")
def fetch_base_model(ctx: CtxDep, base_model_id: str) -> ListedOut:
    return _out(ctx, base_model_admin.fetch_again(ctx, base_model_id))


@router.post("/{base_model_id}/cancel", summary="Stop a download")
def cancel_fetch(ctx: CtxDep, base_model_id: str) -> ListedOut:
    """What came is kept: it can be gone on with."""
    return _out(ctx, base_model_admin.cancel_fetch(ctx, base_model_id))


def _out(ctx: Ctx, listed: Listed) -> ListedOut:
    row, job = listed.row, listed.job
    copied = set(ListedOut.model_fields) - {"id", "file", "default", "samplers", "size_bytes", "on_disk", "fetch"}
    on_disk, size_bytes = find_weights(ctx.settings, row)
    return ListedOut(
        id=row.public_id,
        file=row.repo_file,
        default=DefaultOut(**row.default) if row.default else None,
        samplers=list(samplers_for(row.family)),
        size_bytes=size_bytes,
        on_disk=on_disk,
        fetch=_fetch_out(ctx, job) if job is not None else None,
        **{name: getattr(row, name) for name in copied},
    )


def _fetch_out(ctx: Ctx, job: Job) -> FetchOut:
    done, total = job.step, job.steps
    if job.state == JobState.RUNNING:
        # The bus is ahead of the row, which is written twice a second.
        latest = latest_progress(ctx.bus, job.public_id) or {}
        done, total = latest.get("step", done), latest.get("steps", total)
    error = None
    if job.state == JobState.FAILED:
        error = FetchErrorOut(code=job.error_code or "internal", message=job.error_message or "")
    if job.state == JobState.COMPLETED:
        done = total
    percent = round(100 * done / total, 1) if total else None
    return FetchOut(
        status=job.state, bytes=done * UNIT_BYTES, total_bytes=total * UNIT_BYTES, percent=percent, error=error
    )

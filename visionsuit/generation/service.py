"""Render requests: submit, cancel, delete. The worker's part is in run.py, keeping results in save.py."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from visionsuit.core.actor import Actor
from visionsuit.core.clock import utcnow
from visionsuit.core.ids import new_id
from visionsuit.core.permissions import Permission, require
from visionsuit.generation.base_models import get_offered, ref_of
from visionsuit.generation.blocks import require_unblocked
from visionsuit.generation.mix import resolve_mix
from visionsuit.generation.modes import check_work, complete_init, complete_modes, size_for, steps_of_request
from visionsuit.generation.order import Order, check_mix, check_seed, complete
from visionsuit.generation.pictures import plan_pictures
from visionsuit.generation.prompts import Prompts, takes_time
from visionsuit.generation.queries import (
    RequestRow,
    count_by_status,
    count_renders,
    get_generation,
    job_of,
    list_generations,
    sees_generation,
    sees_output,
)
from visionsuit.generation.sheets import SheetOrder, complete_sheet, seeds_of_sheet
from visionsuit.generation.sources import find_mask, find_source
from visionsuit.generation.tables import BaseModel, Generation
from visionsuit.jobs import queue
from visionsuit.jobs.rows import JobRow
from visionsuit.jobs.sql import insert_row
from visionsuit.jobs.tables import FINISHED, IDLE_PRIORITY
from visionsuit.objects.service import Subject, delete_of
from visionsuit.runtime import Ctx, Runtime
from visionsuit.site.live import require_may_generate

__all__ = [
    "KIND",
    "cancel",
    "check_ahead",
    "count_by_status",
    "count_renders",
    "delete",
    "get_generation",
    "job_of",
    "list_generations",
    "mark_viewed",
    "sees_generation",
    "sees_output",
    "submit",
    "submit_with_job",
]

_INSERT = sa.insert(Generation.__table__)  # type: ignore[attr-defined]
#: Kind of the jobs that render, and of the files that come of it.
KIND = "generation"


def check_ahead(
    runtime: Runtime, actor: Actor, order: Order, sheet: SheetOrder | None = None, *, is_idle: bool = False
) -> tuple[Order, Prompts | None]:
    """Do what takes long without a write transaction, which holds up all who write: look into LoRA files, which may
    lie far away, make the choices of prompts, count their tokens.

    Returns the order, with its seed, and what was found of its prompts, both for `submit`. A plain order stays as it
    is and has nothing that takes long.

    Raises:
        what `submit` does.
    """
    takes_long = any(takes_time(text) for text in _texts(order, sheet))
    if not takes_long and not order.loras:
        return order, None
    if takes_long:
        # Whoever is refused whatever the prompt says is refused before anything is done about it.
        with runtime.open_ctx(actor) as ctx:
            _admit(ctx, is_idle=is_idle)
    with runtime.open_ctx(actor, read_only=True) as ctx:
        require_may_generate(ctx)
        order = replace(order, seed=check_seed(order.seed, "seed"))
        prompts = Prompts(ctx.settings)
        _complete(ctx, order, sheet, prompts, keep=False)
        return order, prompts


def submit(
    ctx: Ctx,
    order: Order,
    sheet: SheetOrder | None = None,
    *,
    prompts: Prompts | None = None,
    priority: int = 0,
    is_idle: bool = False,
) -> RequestRow:
    """As `submit_with_job`, for those who do not need the job."""
    return submit_with_job(ctx, order, sheet, prompts=prompts, priority=priority, is_idle=is_idle)[0]


def submit_with_job(
    ctx: Ctx,
    order: Order,
    sheet: SheetOrder | None = None,
    *,
    prompts: Prompts | None = None,
    priority: int = 0,
    is_idle: bool = False,
) -> tuple[RequestRow, JobRow]:
    """Check a request, complete it, and queue it: one transaction, so it is queued if and only if this commits.

    Args:
        sheet: what changes from picture to picture.
        prompts: what `check_ahead` found of this order.
        is_idle: nobody waits for it; it begins when nothing else waits or runs, and counts against nobody.

    Raises:
        NotSignedIn, NotPermitted, GeneratorClosed: the actor may not render (now).
        GenerationBlocked: an administrator does not let the actor render.
        QueueDraining: nothing new is taken now.
        TooManyActive: the actor's cap is reached.
        BadOrder, UnknownBaseModel, LoraNotFound, NotALora, IncompatibleLora: with the field at fault.
        UnknownWildcard, WildcardsTooDeep, TooManyOptions, PromptTooLong: the same.
        BadLoraTag, UnknownLoraTag, LoraTagRefused: the same.
        ImageNotFound, GenerationImageNotFound, InputNotFound: no such picture to begin with.
        NoBaseModel: there is nothing to render with.
    """
    owner_id = _admit(ctx, is_idle=is_idle)
    if prompts is None:
        prompts = Prompts(ctx.settings)
    else:
        prompts.drop_lost(ctx)
    base, request = _complete(ctx, order, sheet, prompts, keep=True)
    public_id = new_id()
    largest = request.get("hires") or request
    engine_key = ref_of(ctx.runtime, base).key
    job = queue.defer(
        ctx,
        KIND,
        {"generation_id": public_id},
        owner_id=None if is_idle else owner_id,
        priority=IDLE_PRIORITY if is_idle else priority,
        # Steps of a second pass are slower: they are measured apart.
        pace_key=f"{engine_key}+hires" if "hires" in request else engine_key,
        pace_size=largest["width"] * largest["height"],
        units=steps_of_request(request),
        affinity=engine_key,
        # The same name for both: who knows the request listens to its job without looking it up.
        public_id=public_id,
    )
    row = RequestRow(0, public_id, owner_id, job.id, request, utcnow(), None)
    values = row._asdict() | {"base_model_id": base.id}
    del values["id"]
    return row._replace(id=insert_row(ctx, _INSERT, values)), job


def _admit(ctx: Ctx, *, is_idle: bool) -> int:
    """Whether the actor may queue anything now. Returns who that is."""
    require_may_generate(ctx)
    require_unblocked(ctx)
    queue.require_open(ctx)
    owner_id = ctx.actor.user_id
    assert owner_id is not None
    if not is_idle:
        queue.limit_active(ctx, owner_id, ctx.settings.limits.active_generations)
    return owner_id


def _complete(
    ctx: Ctx, order: Order, sheet: SheetOrder | None, prompts: Prompts, *, keep: bool
) -> tuple[BaseModel, dict[str, Any]]:
    """The base model and the complete request, JSON. `keep`: uploads to begin with are needed from now on."""
    limits = ctx.settings.limits
    base = get_offered(ctx, order.base_model_id)
    source = None if order.init is None else find_source(ctx, order.init, keep=keep)
    size = size_for(order.init, source, base) if order.init and source else None
    request = complete(order, base, limits, size=size)
    if order.init is not None and source is not None:
        mask = find_mask(ctx, order.init, keep=keep)
        request["init"] = complete_init(order.init, source, mask, request, base)
    complete_modes(order, request, base, limits)
    check_mix(order.loras, limits)
    request["loras"] = resolve_mix(ctx, order.loras, base)
    seeds = [request["seed"]]
    if sheet is not None:
        request["sheet"] = complete_sheet(ctx, sheet, request, base, prompts)
        seeds = seeds_of_sheet(request["sheet"]) or seeds
    pictures = plan_pictures(ctx, request, base, prompts)
    for seed in seeds[1:] if seeds[0] == request["seed"] else seeds:
        pictures += plan_pictures(ctx, {**request, "seed": seed}, base, prompts)
    if pictures:
        request["pictures"] = pictures
    check_work(request, limits)
    return base, request


def _texts(order: Order, sheet: SheetOrder | None) -> Iterator[str]:
    yield order.prompt
    yield order.negative_prompt
    for axis in (sheet.x, sheet.y) if sheet is not None else ():
        if axis is not None and axis.axis == "prompt":
            yield from (value for value in axis.values if isinstance(value, str))


def cancel(ctx: Ctx, public_id: str) -> Generation:
    """Waiting: at once. Running: within a step. Finished: nothing changes.

    Raises:
        GenerationNotFound, NotPermitted
    """
    generation = get_generation(ctx, public_id)
    require(ctx.actor, Permission.GENERATIONS_EDIT, generation)
    queue.cancel(ctx, generation.job_id)
    return generation


def delete(ctx: Ctx, public_id: str) -> None:
    """Remove a request with its files; what still waits or runs is cancelled. Pictures saved to galleries stay.

    Raises:
        GenerationNotFound, NotPermitted
    """
    generation = get_generation(ctx, public_id)
    require(ctx.actor, Permission.GENERATIONS_EDIT, generation)
    remove(ctx, generation)


def remove(ctx: Ctx, generation: Generation) -> None:
    """The same, asked for by nobody."""
    job = queue.cancel(ctx, generation.job_id)
    delete_of(ctx, Subject(KIND, generation.public_id))
    ctx.session.delete(generation)
    ctx.session.flush()
    if job.state in FINISHED:
        queue.remove(ctx, job)


def mark_viewed(ctx: Ctx, generation: Generation) -> None:
    """The owner has looked at it."""
    if generation.viewed_at is None and generation.owner_id == ctx.actor.user_id:
        generation.viewed_at = utcnow()
        ctx.session.add(generation)

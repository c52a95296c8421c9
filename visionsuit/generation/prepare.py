"""A queued request whose turn has come: is it still good, and what exactly is the engine to render?"""

import threading
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from visionsuit.accounts.identity import find_actor
from visionsuit.core.actor import SYSTEM
from visionsuit.core.errors import AppError, NotPermitted
from visionsuit.engine.base import BaseModelRef, InitPicture, LoraRef, RenderRequest, Variation
from visionsuit.generation.base_models import get_offered, ref_of
from visionsuit.generation.blocks import refuse_blocked
from visionsuit.generation.canvas import Canvas, make_canvas, read_mask, read_pixels
from visionsuit.generation.cells import Cell, cells_of
from visionsuit.generation.files import local_lora
from visionsuit.generation.mix import find_lora
from visionsuit.generation.order import InitOrder
from visionsuit.generation.parts import SecondPass
from visionsuit.generation.sources import KINDS, Source, find_mask, find_source
from visionsuit.generation.tables import Generation, GenerationBlock
from visionsuit.runtime import Ctx, Runtime
from visionsuit.site.live import require_may_generate

_requests: sa.Table = Generation.__table__  # type: ignore[attr-defined]
_blocks: sa.Table = GenerationBlock.__table__  # type: ignore[attr-defined]
#: With what keeps its owner from rendering.
_REQUEST = (
    sa.select(_requests.c.owner_id, _requests.c.request, _blocks.c.reason, _blocks.c.until)
    .select_from(_requests.outerjoin(_blocks, _blocks.c.account_id == _requests.c.owner_id))
    .where(_requests.c.public_id == sa.bindparam("public_id", type_=sa.String()))
)
#: Pictures above this are read one at a time: each needs hundreds of megabytes.
_LARGE_PIXELS = 16_000_000
_large_pictures = threading.Lock()


class OwnerMayNotRender(NotPermitted):
    code = "owner_may_not_render"


class LoraGone(NotPermitted):
    code = "lora_gone"


class InitGone(NotPermitted):
    code = "init_gone"


class RequestGone(Exception):
    """Its owner deleted the request while it waited."""


@dataclass(frozen=True, slots=True)
class Task:
    """A request that was found good just now. `request` is the complete one, as JSON.

    `for_engine`: one for all pictures, or, where they differ in more than the seed, one for those of each kind.
    `second`: the second pass of each of these, if it has one. `places`: number of each picture as they come out.
    """

    generation_id: str
    owner_id: int
    request: dict[str, Any]
    for_engine: tuple[RenderRequest, ...]
    second: tuple[SecondPass | None, ...]
    places: tuple[int, ...]


def prepare(runtime: Runtime, generation_id: str) -> Task:
    """Things may have changed while the request waited: the owner's rights, the base model, the LoRAs.

    Raises:
        RequestGone: there is no such request any more.
        OwnerMayNotRender, UnknownBaseModel, LoraGone, InitGone: it is no longer allowed, or no longer possible.
        MaskEmpty: it never was.
        Unavailable: the storage is out.
    """
    with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        generation = ctx.connection.execute(_REQUEST, {"public_id": generation_id}).first()
        if generation is None:
            raise RequestGone
        owner_id, request, reason, until = generation
        owner = find_actor(ctx, owner_id)
        if owner is None:
            raise OwnerMayNotRender("This was not rendered: its owner's account is not active.")
        kinds = _kinds(request)
        ctx = replace(ctx, actor=owner)
        try:
            require_may_generate(ctx)
            refuse_blocked(reason, until)
        except AppError as error:
            raise OwnerMayNotRender(f"This was not rendered: {error.message}") from error
        base = get_offered(ctx, request["base_model_id"])
        objects = {
            lora["sha256"]: _still_there(ctx, lora, number)
            for kind in kinds
            for number, lora in enumerate(kind.cell.loras)
        }
        files_of_init = _init_files(ctx, request)
    # No transaction is open here: files may have to travel.
    files = {digest: local_lora(runtime, object_id, digest, keep=[*objects]) for digest, object_id in objects.items()}
    canvas = None if files_of_init is None else _canvas(runtime, request, *files_of_init)
    ref = ref_of(runtime, base)
    return Task(
        generation_id,
        owner_id,
        request,
        tuple(_for_engine(request, kind, ref, files, canvas) for kind in kinds),
        tuple(_second(request, kind.cell) for kind in kinds),
        tuple(place for kind in kinds for place in kind.places),
    )


@dataclass(slots=True)
class _Kind:
    """Pictures that differ in their seeds alone; `cell` is one of them."""

    cell: Cell
    places: list[int]
    seeds: list[int]
    variation_seeds: list[int]


def _kinds(request: Mapping[str, Any]) -> list[_Kind]:
    kinds: list[_Kind] = []
    for place, cell in enumerate(cells_of(request)):
        alike = replace(cell, seed=0, variation_seed=None, label=None, x=None, y=None)
        kind = next((one for one in kinds if one.cell == alike), None)
        if kind is None:
            kind = _Kind(alike, [], [], [])
            kinds.append(kind)
        kind.places.append(place)
        kind.seeds.append(cell.seed)
        if cell.variation_seed is not None:
            kind.variation_seeds.append(cell.variation_seed)
    return kinds


def _init_files(ctx: Ctx, request: Mapping[str, Any]) -> tuple[Source, Source | None] | None:
    init = request.get("init")
    if init is None:
        return None
    order = InitOrder(**{key: init[key] for key in (*KINDS, "mask_input_id")})
    try:
        return find_source(ctx, order), find_mask(ctx, order)
    except AppError as error:
        raise InitGone(
            "The picture to begin with, or its mask, is no longer there, or no longer shared with you."
        ) from error


def _canvas(runtime: Runtime, request: Mapping[str, Any], source: Source, mask: Source | None) -> Canvas:
    init, hires = request["init"], request.get("hires")
    # A picture that is only made larger is not made smaller before.
    final = hires if hires and init["strength"] == 0 else request
    sizes = [(source.width, source.height), (final["width"], final["height"])]
    sizes += [(mask.width, mask.height)] if mask is not None else []
    is_large = max(width * height for width, height in sizes) > _LARGE_PIXELS
    with _large_pictures if is_large else nullcontext():
        return make_canvas(
            read_pixels(runtime, source),
            None if mask is None else read_mask(runtime, mask),
            (final["width"], final["height"]),
            resize=init["resize"],
            outpaint=init["outpaint"],
            mask_blur=init["mask_blur"],
            seed=request["seed"],
        )


def _second(request: Mapping[str, Any], cell: Cell) -> SecondPass | None:
    hires = request.get("hires")
    if hires is None:
        return None
    return SecondPass(
        hires["width"], hires["height"], hires["steps"] or cell.steps, hires["strength"], alone=cell.strength == 0
    )


def _still_there(ctx: Ctx, lora: Mapping[str, Any], number: int) -> str:
    """Object id of a LoRA's file."""
    try:
        _, version = find_lora(ctx, lora["model_id"], lora["version_id"], number)
    except AppError as error:
        raise LoraGone(f"The LoRA “{lora['title']}” is no longer there, or no longer shared with you.") from error
    if version.sha256 != lora["sha256"]:
        raise LoraGone(f"The file of the LoRA “{lora['title']}” was replaced while the render waited; send it again.")
    return version.object_id


def _for_engine(
    request: Mapping[str, Any], kind: _Kind, base: BaseModelRef, files: Mapping[str, Path], canvas: Canvas | None
) -> RenderRequest:
    cell, variation = kind.cell, request.get("variation")
    init = None
    if canvas is not None and cell.strength is not None:
        # At no strength the first pass is left out, and the second begins with the picture.
        init = InitPicture(canvas.pixels, cell.strength or 1.0, canvas.mask)
    return RenderRequest(
        base_model=base,
        prompt=cell.prompt,
        negative_prompt=cell.negative_prompt,
        width=request["width"],
        height=request["height"],
        steps=cell.steps,
        guidance=cell.guidance,
        seeds=tuple(kind.seeds),
        sampler=cell.sampler,
        schedule=request["schedule"],
        loras=tuple(
            LoraRef(
                sha256=lora["sha256"],
                path=files[lora["sha256"]],
                weight=lora["weight"],
                text_encoder_weight=lora["text_encoder_weight"],
                name=lora["title"],
            )
            for lora in cell.loras
        ),
        init=init,
        variation=Variation(tuple(kind.variation_seeds), variation["strength"]) if variation else None,
        bucket=request.get("bucket", 0),
    )

"""A queued request whose turn has come: is it still good, and what exactly is the engine to render?"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlmodel import col, select

from visionsuit.accounts.identity import actor_of
from visionsuit.accounts.tables import Account
from visionsuit.core.actor import SYSTEM, Actor
from visionsuit.core.errors import AppError, NotPermitted
from visionsuit.engine.base import BaseModelRef, LoraRef, RenderRequest
from visionsuit.generation.base_models import get_offered, ref_of
from visionsuit.generation.files import local_lora
from visionsuit.generation.mix import find_lora
from visionsuit.generation.order import seeds_of
from visionsuit.generation.pictures import picture_of
from visionsuit.generation.tables import Generation
from visionsuit.runtime import Ctx, Runtime
from visionsuit.site.live import require_may_generate


class OwnerMayNotRender(NotPermitted):
    code = "owner_may_not_render"


class LoraGone(NotPermitted):
    code = "lora_gone"


class RequestGone(Exception):
    """Its owner deleted the request while it waited."""


@dataclass(frozen=True, slots=True)
class Task:
    """A request that was found good just now. `request` is the complete one, as JSON.

    `for_engine`: one for all pictures, or, where their prompts or mixes differ, one for those of each kind.
    """

    generation_id: str
    owner_id: int
    request: dict[str, Any]
    for_engine: tuple[RenderRequest, ...]


def prepare(runtime: Runtime, generation_id: str) -> Task:
    """Things may have changed while the request waited: the owner's rights, the base model, the LoRAs.

    Raises:
        RequestGone: there is no such request any more.
        OwnerMayNotRender, UnknownBaseModel, LoraGone: it is no longer allowed, or no longer possible.
        Unavailable: the storage is out.
    """
    with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        generation = ctx.session.exec(select(Generation).where(col(Generation.public_id) == generation_id)).first()
        if generation is None:
            raise RequestGone
        owner = _owner(ctx, generation)
    request = generation.request
    with runtime.open_ctx(owner, read_only=True) as ctx:
        try:
            require_may_generate(ctx)
        except AppError as error:
            raise OwnerMayNotRender(f"This was not rendered: {error.message}") from error
        base = get_offered(ctx, request["base_model_id"])
        objects = {
            lora["sha256"]: _still_there(ctx, lora, number)
            for _, picture in _kinds(request)
            for number, lora in enumerate(picture["loras"])
        }
    # No transaction is open here: files may have to travel.
    files = {digest: local_lora(runtime, object_id, digest, keep=[*objects]) for digest, object_id in objects.items()}
    ref = ref_of(runtime, base)
    for_engine = tuple(_for_engine(request, picture, seeds, ref, files) for seeds, picture in _kinds(request))
    return Task(generation_id, generation.owner_id, request, for_engine)


def _kinds(request: Mapping[str, Any]) -> list[tuple[tuple[int, ...], Mapping[str, Any]]]:
    """Seeds of the pictures that have prompts and mix in common, and these."""
    kinds: list[tuple[tuple[int, ...], Mapping[str, Any]]] = []
    for seed in seeds_of(request):
        picture = picture_of(request, seed)
        for number, (seeds, other) in enumerate(kinds):
            if all(picture[key] == other[key] for key in ("prompt", "negative_prompt", "loras")):
                kinds[number] = ((*seeds, seed), other)
                break
        else:
            kinds.append(((seed,), picture))
    return kinds


def _owner(ctx: Ctx, generation: Generation) -> Actor:
    account = ctx.session.get(Account, generation.owner_id)
    if account is None or not account.is_active:
        raise OwnerMayNotRender("This was not rendered: its owner's account is not active.")
    return actor_of(account)


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
    request: Mapping[str, Any],
    picture: Mapping[str, Any],
    seeds: tuple[int, ...],
    base: BaseModelRef,
    files: Mapping[str, Path],
) -> RenderRequest:
    return RenderRequest(
        base_model=base,
        prompt=picture["prompt"],
        negative_prompt=picture["negative_prompt"],
        width=request["width"],
        height=request["height"],
        steps=request["steps"],
        guidance=request["guidance"],
        seeds=seeds,
        sampler=request["sampler"],
        schedule=request["schedule"],
        loras=tuple(
            LoraRef(
                sha256=lora["sha256"],
                path=files[lora["sha256"]],
                weight=lora["weight"],
                text_encoder_weight=lora["text_encoder_weight"],
                name=lora["title"],
            )
            for lora in picture["loras"]
        ),
    )

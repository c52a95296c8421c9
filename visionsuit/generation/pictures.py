"""What a prompt with choices and LoRA tags means for each picture of a request: decided once, when it is submitted.

A complete request whose prompt has such syntax keeps it as it was written, and beside it `pictures`: for each seed the
prompts without it and the whole mix. The choices follow from the picture's seed, so the same request makes them again.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from random import Random
from typing import Any

from visionsuit.core.errors import AppError, InvalidInput
from visionsuit.engine.base import ModelUnloadable
from visionsuit.engine.prompt_syntax import MAX_CHUNKS
from visionsuit.engine.prompt_template import LoraTag, expand, take_lora_tags
from visionsuit.engine.prompt_tokens import may_fill, measure_prompt
from visionsuit.generation.mix import MIXABLE, resolve_mix
from visionsuit.generation.order import MAX_WEIGHT, LoraOrder, seeds_of
from visionsuit.generation.tables import BaseModel
from visionsuit.generation.wildcards import open_wildcards
from visionsuit.modelcards.queries import find_card_by_name
from visionsuit.runtime import Ctx

PROMPTS = ("prompt", "negative_prompt")


class PromptTooLong(InvalidInput):
    code = "prompt_too_long"


class UnknownLoraTag(InvalidInput):
    code = "unknown_lora_tag"


class LoraTagRefused(InvalidInput):
    code = "lora_tag_refused"


def picture_of(request: Mapping[str, Any], seed: int) -> Mapping[str, Any]:
    """`prompt`, `negative_prompt` and `loras` of the picture with this seed."""
    return next((picture for picture in request.get("pictures", ()) if picture["seed"] == seed), request)


def plan_pictures(ctx: Ctx, request: Mapping[str, Any], base: BaseModel) -> list[dict[str, Any]]:
    """One entry a seed for a complete request with its mix: `seed`, `prompt`, `negative_prompt`, `loras`, JSON. None
    at all where the prompts have no choices and tags.

    Raises:
        InvalidInput: with the field, and the wildcard or tag at fault.
    """
    list_lines = open_wildcards(ctx.settings)
    named: dict[LoraTag, dict[str, Any]] = {}
    pictures = []
    for seed in seeds_of(request):
        texts = {field: make_choices(request[field], seed, field, list_lines) for field in PROMPTS}
        texts["prompt"], tags = take_tags(texts["prompt"], "prompt")
        refuse_tags(texts["negative_prompt"])
        for tag in tags:
            if tag not in named:
                named[tag] = resolve_tag(ctx, tag, base)
        for field in PROMPTS:
            check_length(ctx, texts[field], base, field)
        loras = _mix([*request["loras"]], [named[tag] for tag in tags])
        if len(loras) > ctx.settings.limits.loras_per_mix:
            most = ctx.settings.limits.loras_per_mix
            raise LoraTagRefused(
                f"With those in the prompt the mix has {len(loras)} LoRAs; {most} is the most.", field="prompt"
            )
        pictures.append({"seed": seed, **texts, "loras": loras})
    kept = (*PROMPTS, "loras")
    changed = any(picture[key] != request[key] for picture in pictures for key in kept)
    return pictures if changed else []


def look_ahead(ctx: Ctx, template: str, base: BaseModel) -> None:
    """Look into the files of all LoRAs that the prompt may name, so that `plan_pictures` finds the answers remembered.
    What is wrong it will say."""
    with suppress(InvalidInput):
        _, tags = take_lora_tags(template[: ctx.settings.limits.prompt_characters])
        for tag in tags[: ctx.settings.limits.loras_per_mix]:
            resolve_tag(ctx, tag, base)


def make_choices(template: str, seed: int, field: str, list_lines: Callable[[str], tuple[str, ...]]) -> str:
    """The prompt of one picture, with its LoRA tags.

    Raises:
        UnknownWildcard, WildcardsTooDeep: with the field.
    """
    try:
        # Each prompt by itself: a word more in one leaves the other's choices alone.
        return expand(template, Random(f"{seed}:{field}"), list_lines)
    except AppError as error:
        error.field = field
        error.hint = error.hint or "GET /api/wildcards lists them."
        raise


def take_tags(text: str, field: str) -> tuple[str, list[LoraTag]]:
    """
    Raises:
        BadLoraTag: with the field.
    """
    try:
        return take_lora_tags(text)
    except AppError as error:
        error.field = field
        raise


def refuse_tags(negative_prompt: str) -> None:
    """
    Raises:
        LoraTagRefused: a LoRA has nothing to do in a negative prompt.
    """
    _, tags = take_tags(negative_prompt, "negative_prompt")
    if tags:
        raise LoraTagRefused(
            f"The tag {tags[0].text} stands in the negative prompt; LoRAs act on the whole picture.",
            field="negative_prompt",
            hint="Put it into the prompt; a weight below zero turns its effect around.",
        )


def resolve_tag(ctx: Ctx, tag: LoraTag, base: BaseModel) -> dict[str, Any]:
    """What the request keeps of the LoRA that a tag names.

    Raises:
        UnknownLoraTag, LoraTagRefused, NotALora, IncompatibleLora: naming the tag, with field `prompt`.
    """
    text_encoder = tag.weight if tag.text_encoder_weight is None else tag.text_encoder_weight
    if max(abs(tag.weight), abs(text_encoder)) > MAX_WEIGHT:
        raise LoraTagRefused(
            f"The weight in the tag {tag.text} must be from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}.", field="prompt"
        )
    card = find_card_by_name(ctx, tag.name, types=MIXABLE)
    if card is None:
        raise UnknownLoraTag(
            f"The tag {tag.text} names no LoRA here, or one that is not shared with you.",
            field="prompt",
            hint="Write the title of its page, or the name of its file without “.safetensors”.",
        )
    order = LoraOrder(card.public_id, weight=tag.weight, text_encoder_weight=tag.text_encoder_weight)
    try:
        return resolve_mix(ctx, (order,), base, field="prompt")[0]
    except InvalidInput as error:
        raise type(error)(f"The tag {tag.text}: {error.message}", field="prompt", hint=error.hint) from error


def check_length(ctx: Ctx, text: str, base: BaseModel, field: str) -> None:
    """
    Raises:
        PromptTooLong: more characters, or more chunks of the text encoder, than are rendered.
    """
    most = ctx.settings.limits.prompt_characters
    spoken = field.replace("_", " ")
    if len(text) > most:
        raise PromptTooLong(
            f"With its choices made the {spoken} has {len(text)} characters; {most} is the most.", field=field
        )
    if may_fill(text, base.prompt_tokens - 2) <= MAX_CHUNKS:
        return
    try:
        size = measure_prompt(ctx.settings.models_dir / base.folder, base.key, text)
    except ModelUnloadable:
        # Whether it can be rendered is said when it is tried.
        return
    if size.chunks > MAX_CHUNKS:
        raise PromptTooLong(
            f"The {spoken} fills {size.chunks} chunks of {size.room} tokens; {MAX_CHUNKS} is the most.", field=field
        )


def _mix(chosen: list[dict[str, Any]], tagged: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The mixer's LoRAs, then the prompt's. What the mixer has keeps the mixer's weight; tags of one LoRA add up."""
    fixed = {lora["model_id"] for lora in chosen}
    added: dict[str, dict[str, Any]] = {}
    for lora in tagged:
        before = added.get(lora["model_id"])
        if lora["model_id"] in fixed:
            continue
        added[lora["model_id"]] = lora if before is None else _sum(before, lora)
    return [*chosen, *added.values()]


def _sum(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    weight = _bounded(one["weight"] + other["weight"])
    text_encoder = _bounded(_text_encoder_weight(one) + _text_encoder_weight(other))
    return one | {"weight": weight, "text_encoder_weight": None if text_encoder == weight else text_encoder}


def _text_encoder_weight(lora: Mapping[str, Any]) -> float:
    weight = lora["weight"] if lora["text_encoder_weight"] is None else lora["text_encoder_weight"]
    return float(weight)


def _bounded(weight: float) -> float:
    return max(-MAX_WEIGHT, min(MAX_WEIGHT, weight))

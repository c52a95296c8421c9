"""What a prompt with choices and LoRA tags means for each picture of a request: decided once, when it is submitted.

A complete request whose prompt has such syntax keeps it as it was written, and beside it `pictures`: for each seed the
prompts without it and the whole mix. The choices follow from the picture's seed, so the same request makes them again.
"""

from collections.abc import Mapping
from typing import Any

from visionsuit.generation.order import MAX_WEIGHT, seeds_of
from visionsuit.generation.prompts import LoraTagRefused, Prompts
from visionsuit.generation.tables import BaseModel
from visionsuit.runtime import Ctx

PROMPTS = ("prompt", "negative_prompt")


def picture_of(request: Mapping[str, Any], seed: int) -> Mapping[str, Any]:
    """`prompt`, `negative_prompt` and `loras` of the picture with this seed."""
    return next((picture for picture in request.get("pictures", ()) if picture["seed"] == seed), request)


def plan_pictures(ctx: Ctx, request: Mapping[str, Any], base: BaseModel, prompts: Prompts) -> list[dict[str, Any]]:
    """One entry a seed for a complete request with its mix: `seed`, `prompt`, `negative_prompt`, `loras`, JSON. None
    at all where the prompts have no choices and tags.

    Raises:
        InvalidInput: with the field, and the wildcard or tag at fault.
    """
    pictures = []
    for seed in seeds_of(request):
        read = {field: prompts.read(request[field], seed, field) for field in PROMPTS}
        tagged = prompts.loras_of(ctx, read["prompt"][1], base)
        texts = {field: text for field, (text, _) in read.items()}
        for field, text in texts.items():
            prompts.check_length(ctx, text, base, field)
        loras = _mix([*request["loras"]], tagged)
        if len(loras) > ctx.settings.limits.loras_per_mix:
            most = ctx.settings.limits.loras_per_mix
            raise LoraTagRefused(
                f"With those in the prompt the mix has {len(loras)} LoRAs; {most} is the most.", field="prompt"
            )
        pictures.append({"seed": seed, **texts, "loras": loras})
    kept = (*PROMPTS, "loras")
    changed = any(picture[key] != request[key] for picture in pictures for key in kept)
    return pictures if changed else []


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

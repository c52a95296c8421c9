"""What a person asks for, and the complete request it becomes: pure rules, every refusal with field, reason, limit."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from visionsuit.core.config import Limits
from visionsuit.core.errors import InvalidInput
from visionsuit.core.text import clean_text
from visionsuit.engine.base import BUCKETS, SCHEDULES, samplers_for
from visionsuit.generation.tables import BaseModel

SEEDS = 2**32
MAX_GUIDANCE = 40.0
MAX_WEIGHT = 2.0


class BadOrder(InvalidInput):
    code = "invalid_request"


@dataclass(frozen=True, slots=True)
class LoraOrder:
    """A LoRA of the mix: a card, its primary version unless one is named, and how strongly it acts."""

    model_id: str
    version_id: str | None = None
    weight: float = 1.0
    text_encoder_weight: float | None = None


@dataclass(frozen=True, slots=True)
class Borders:
    """What is painted beyond the picture's edges, in pixels of the canvas."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0


@dataclass(frozen=True, slots=True)
class InitOrder:
    """A picture to begin with: an image page, a result of a render, or an upload; one of the three by its id.

    `strength` 0 takes it as it is, which makes sense before a second pass alone. `mask_blur` in pixels.
    """

    image_id: str | None = None
    generation_image_id: str | None = None
    input_id: str | None = None
    strength: float = 0.75
    mask_input_id: str | None = None
    mask_blur: float = 4.0
    outpaint: Borders | None = None
    resize: str = "crop"


@dataclass(frozen=True, slots=True)
class HiresOrder:
    """A second pass over the picture, `scale` times as large. Without `steps` it has those of the request."""

    scale: float
    strength: float = 0.5
    steps: int | None = None


@dataclass(frozen=True, slots=True)
class VariationOrder:
    """Noise on the way to another seed's. A random one without `seed`."""

    strength: float
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """A render request as it was sent. None: what the base model says, or for the seed a random one."""

    prompt: str
    negative_prompt: str = ""
    base_model_id: str | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance: float | None = None
    seed: int | None = None
    count: int = 1
    sampler: str | None = None
    schedule: str | None = None
    loras: tuple[LoraOrder, ...] = ()
    init: InitOrder | None = None
    hires: HiresOrder | None = None
    variation: VariationOrder | None = None
    bucket: int | None = None


def complete(order: Order, base: BaseModel, limits: Limits, *, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """The request with every value checked and filled in, without its LoRAs and modes; JSON. `size` is what a side
    that was left out becomes, the base model's without it.

    Raises:
        BadOrder: naming the field, what is wrong and the limit.
    """
    default = base.default
    width, height = size or (default["width"], default["height"])
    prompt = complete_prompt(order.prompt, "prompt", limits)
    if not prompt:
        raise BadOrder("A prompt is needed: say what the picture shows.", field="prompt")
    return {
        "prompt": prompt,
        "negative_prompt": complete_prompt(order.negative_prompt, "negative_prompt", limits),
        "base_model_id": base.public_id,
        "base_model_label": base.label,
        "width": _size(order.width, width, "width", base),
        "height": _size(order.height, height, "height", base),
        "steps": check_whole(order.steps, min(default["steps"], limits.steps), "steps", 1, limits.steps),
        "guidance": check_number(order.guidance, default["guidance"], "guidance", 0.0, MAX_GUIDANCE),
        "seed": check_seed(order.seed, "seed"),
        "count": check_whole(order.count, 1, "count", 1, limits.images_per_request),
        "sampler": check_choice(order.sampler, default["sampler"], "sampler", samplers_for(base.family)),
        "schedule": check_choice(order.schedule, default["schedule"], "schedule", SCHEDULES),
        "bucket": _bucket(order.bucket),
    }


def check_mix(loras: tuple[LoraOrder, ...], limits: Limits) -> None:
    """Number, weights and repetitions of a mix; whether the files fit is another question.

    Raises:
        BadOrder
    """
    if len(loras) > limits.loras_per_mix:
        raise BadOrder(f"The mix has {len(loras)} LoRAs; {limits.loras_per_mix} is the most.", field="loras")
    seen: set[str] = set()
    for number, lora in enumerate(loras):
        check_number(lora.weight, 1.0, f"loras.{number}.weight", -MAX_WEIGHT, MAX_WEIGHT)
        field = f"loras.{number}.text_encoder_weight"
        check_number(lora.text_encoder_weight, 1.0, field, -MAX_WEIGHT, MAX_WEIGHT)
        if lora.model_id in seen:
            raise BadOrder(
                "This LoRA is in the mix already; give it one weight instead.", field=f"loras.{number}.model_id"
            )
        seen.add(lora.model_id)


def complete_prompt(text: str, field: str, limits: Limits) -> str:
    """
    Raises:
        BadOrder: longer than a prompt may be.
    """
    if len(text) > limits.prompt_characters:
        most = limits.prompt_characters
        raise BadOrder(f"The {_spoken(field)} has {len(text)} characters; {most} is the most.", field=field)
    return clean_text(text)


def seeds_of(request: Mapping[str, Any]) -> tuple[int, ...]:
    """One seed a picture: the request's, and those that follow it."""
    return tuple((request["seed"] + number) % SEEDS for number in range(request["count"]))


def check_seed(seed: int | None, field: str) -> int:
    """A random one for None."""
    return check_whole(seed, secrets.randbelow(SEEDS), field, 0, SEEDS - 1)


def _size(value: int | None, default: int, field: str, base: BaseModel) -> int:
    pixels = check_whole(value, default, field, base.min_size, base.max_size)
    below = pixels // base.size_step * base.size_step
    if pixels != below:
        raise BadOrder(
            f"The {field} of {base.label} goes in steps of {base.size_step} pixels; {pixels} is between two.",
            field=field,
            hint=f"Use {below} or {below + base.size_step}.",
        )
    return pixels


def check_whole(value: int | None, default: int, field: str, least: int, most: int) -> int:
    number = default if value is None else value
    if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
        raise BadOrder(f"The {_spoken(field)} must be a whole number from {least} to {most}.", field=field)
    return number


def check_number(value: float | None, default: float, field: str, least: float, most: float) -> float:
    number = default if value is None else value
    # NaN lies between no two numbers; asked outright, whole numbers that no float holds would be an error.
    if isinstance(number, bool) or not least <= number <= most:
        raise BadOrder(f"The {_spoken(field)} must be a number from {least:g} to {most:g}.", field=field)
    return float(number)


def _bucket(value: int | None) -> int:
    if value and value not in BUCKETS:
        raise BadOrder(f"A bucket holds {', '.join(map(str, BUCKETS))} pictures, not {value}.", field="bucket")
    return value or 0


def check_choice(value: str | None, default: str, field: str, known: Mapping[str, str]) -> str:
    chosen = default if value is None else value
    if chosen not in known:
        raise BadOrder(f"This {field} is not known; there are: {', '.join(known)}.", field=field)
    return chosen


def _spoken(field: str) -> str:
    name = next((part for part in reversed(field.split(".")) if not part.isdecimal()), field)
    return name.replace("_", " ")

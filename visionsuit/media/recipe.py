"""How a picture was made, in one shape whatever tool made it."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MAX_PROMPT_CHARACTERS = 20_000
MAX_RAW_CHARACTERS = 200_000
MAX_LORAS = 64


def _clip(limit: int) -> BeforeValidator:
    def clip(value: Any) -> str:
        # A lone surrogate from broken JSON cannot be stored, a NUL not in PostgreSQL.
        text = str(value).replace("\0", "").encode("utf-8", "replace").decode()
        return text[:limit]

    return BeforeValidator(lambda value: None if value is None else clip(value))


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) < 1e9 else None


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = int(value) if not isinstance(value, str) else int(value.strip()[:24])
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number < 2**63 else None


Prompt = Annotated[str, _clip(MAX_PROMPT_CHARACTERS)]
Word = Annotated[str | None, _clip(200)]
Whole = Annotated[int | None, BeforeValidator(_whole)]
Number = Annotated[float | None, BeforeValidator(_number)]


class RecipeLora(BaseModel):
    """One LoRA of the mix. `sha256` is the file's hash, or as many of its first characters as the tool wrote.

    `model_id` and `title` are those of the card in this library that has the file, for whoever may see it.
    """

    model_config = ConfigDict(extra="ignore")

    name: Annotated[str, _clip(200)]
    weight: Annotated[float, BeforeValidator(lambda value: 1.0 if _number(value) is None else _number(value))] = 1.0
    text_encoder_weight: Number = None
    sha256: Word = None
    model_id: Word = None
    title: Word = None


class Recipe(BaseModel):
    """Everything is optional: tools write what they like. Text in here is text, also when it looks like markup.

    Attributes:
        strength: of the picture it began with; `masked`: parts of that were kept; `outpaint`: pixels beyond each edge.
        hires_scale, hires_strength, hires_steps: of a second, larger pass; `width` and `height` are the first's.
        bucket: pictures in every call of the model, where that was fixed so that the picture can be had to the bit.
        variation_seed, variation_strength: another seed's noise, and the way to it in 0..1.
        template: the prompt as it was written, with choices and LoRA tags, where `prompt` is what came of it.
    """

    model_config = ConfigDict(extra="ignore")

    prompt: Prompt = ""
    negative_prompt: Prompt = ""
    template: Prompt | None = None
    negative_template: Prompt | None = None
    seed: Whole = None
    steps: Whole = None
    sampler: Word = None
    schedule: Word = None
    guidance: Number = None
    width: Whole = None
    height: Whole = None
    base_model: Word = None
    tool: Word = None
    loras: list[RecipeLora] = Field(default_factory=list, max_length=MAX_LORAS)
    strength: Number = None
    masked: bool | None = None
    mask_blur: Number = None
    outpaint: dict[str, int] | None = None
    hires_scale: Number = None
    hires_strength: Number = None
    hires_steps: Whole = None
    variation_seed: Whole = None
    variation_strength: Number = None
    bucket: Whole = None
    raw: Annotated[str | None, _clip(MAX_RAW_CHARACTERS)] = None

"""What a prompt that is being written comes to: tokens, chunks, LoRAs that its tags name, and what is wrong with it."""

from dataclasses import dataclass
from typing import Any

from visionsuit.core.errors import AppError, NotSignedIn
from visionsuit.engine.base import ModelUnloadable
from visionsuit.engine.prompt_tokens import PromptSize, measure_prompt
from visionsuit.generation.base_models import get_offered
from visionsuit.generation.order import complete_prompt
from visionsuit.generation.prompts import check_length, make_choices, refuse_tags, resolve_tag, take_tags
from visionsuit.generation.tables import BaseModel
from visionsuit.generation.wildcards import open_wildcards
from visionsuit.runtime import Ctx


@dataclass(frozen=True, slots=True)
class PromptCheck:
    """One prompt, as the picture with the given seed would have it.

    Attributes:
        text: what the text encoder gets.
        size: None where the base model's tokenizer cannot be read.
        loras: tag as it was written -> the LoRA, as a request keeps it.
        problems: what a request with this prompt is refused for.
    """

    text: str
    size: PromptSize | None
    loras: list[tuple[str, dict[str, Any]]]
    problems: list[AppError]


def check_prompt(ctx: Ctx, text: str, field: str, *, base_model_id: str | None, seed: int) -> PromptCheck:
    """Look at a prompt (field `prompt`) or negative prompt before it is sent. What is wrong with it is part of the
    answer.

    Raises:
        NotSignedIn, UnknownBaseModel, NoBaseModel
        BadOrder: longer than prompts are.
    """
    if ctx.actor.is_guest:
        raise NotSignedIn("Sign in to write prompts.")
    base = get_offered(ctx, base_model_id)
    text = complete_prompt(text, field, ctx.settings.limits)
    problems: list[AppError] = []
    loras: list[tuple[str, dict[str, Any]]] = []
    try:
        text = make_choices(text, seed, field, open_wildcards(ctx.settings))
        if field == "prompt":
            text, tags = take_tags(text, field)
            for tag in tags:
                try:
                    loras.append((tag.text, resolve_tag(ctx, tag, base)))
                except AppError as error:
                    problems.append(error)
        else:
            refuse_tags(text)
        check_length(ctx, text, base, field)
    except AppError as error:
        problems.append(error)
    return PromptCheck(text, _measure(ctx, base, text), loras, problems)


def _measure(ctx: Ctx, base: BaseModel, text: str) -> PromptSize | None:
    try:
        return measure_prompt(ctx.settings.models_dir / base.folder, base.key, text)
    except ModelUnloadable:
        return None

"""Reading the prompts of a request: choices, LoRA tags, length. Every refusal with its field."""

from collections.abc import Callable
from random import Random
from typing import Any

from visionsuit.core.config import Settings
from visionsuit.core.errors import AppError, InvalidInput
from visionsuit.core.text import clean_line
from visionsuit.engine.base import ModelUnloadable
from visionsuit.engine.prompt_syntax import MAX_CHUNKS
from visionsuit.engine.prompt_template import LoraTag, Node, expand, parse_template, take_lora_tags
from visionsuit.engine.prompt_tokens import may_fill, measure_prompt
from visionsuit.generation.mix import MIXABLE, resolve_mix
from visionsuit.generation.order import MAX_WEIGHT, LoraOrder
from visionsuit.generation.tables import BaseModel
from visionsuit.generation.wildcards import open_wildcards
from visionsuit.modelcards.queries import find_card_by_name, find_cards
from visionsuit.runtime import Ctx

#: Names of one LoRA that a prompt may use: its page's title and its file's name.
_NAMES = 2
#: Characters up to which a prompt surely fits, or its tokens are soon counted.
_MUCH_TEXT = 1000


class PromptTooLong(InvalidInput):
    code = "prompt_too_long"


class UnknownLoraTag(InvalidInput):
    code = "unknown_lora_tag"


class LoraTagRefused(InvalidInput):
    code = "lora_tag_refused"


class Prompts:
    """The prompts of one request, each thing found out once: what a text means, what a picture's choices come to, the
    LoRA of a name, whether a text is too long. The wildcard lists have one state.

    What was found in one transaction is good in a later one for the same person and request; see `drop_lost`.
    """

    def __init__(self, settings: Settings) -> None:
        self._list_lines = open_wildcards(settings)
        self._templates: dict[str, tuple[Node, ...]] = {}
        self._texts: dict[tuple[str, str, int | None], tuple[str, list[LoraTag]]] = {}
        self._fitting: set[tuple[str, str]] = set()
        self._loras: dict[tuple[str, str], dict[str, Any]] = {}

    def read(self, template: str, seed: int, field: str) -> tuple[str, list[LoraTag]]:
        """What `field` says for the picture with this seed: its text, and the tags that stood in it.

        Raises:
            UnknownWildcard, WildcardsTooDeep, TooManyOptions, BadLoraTag, LoraTagRefused: with the field.
        """
        nodes = self._templates.get(template)
        if nodes is None:
            nodes = self._templates[template] = parse_template(template)
        has_choices = any(not isinstance(node, str) for node in nodes)
        # Without choices all seeds have the same.
        key = (template, field, seed if has_choices else None)
        if key not in self._texts:
            text = make_choices(nodes, seed, field, self._list_lines) if has_choices else "".join(map(str, nodes))
            if field == "prompt":
                self._texts[key] = take_tags(text, field)
            else:
                refuse_tags(text)
                self._texts[key] = text, []
        return self._texts[key]

    def loras_of(self, ctx: Ctx, tags: list[LoraTag], base: BaseModel) -> list[dict[str, Any]]:
        """What the request keeps of the LoRA that each tag names.

        Raises:
            UnknownLoraTag, LoraTagRefused, NotALora, IncompatibleLora: naming the tag, with field `prompt`.
        """
        most = ctx.settings.limits.loras_per_mix
        names = {clean_line(tag.name) for tag in tags}
        if len(names) > _NAMES * most:
            raise LoraTagRefused(f"The prompt names {len(names)} LoRAs; {most} is the most.", field="prompt")
        return [self._lora_of(ctx, tag, base) for tag in tags]

    def _lora_of(self, ctx: Ctx, tag: LoraTag, base: BaseModel) -> dict[str, Any]:
        key = (clean_line(tag.name), base.key)
        if key not in self._loras:
            self._loras[key] = resolve_tag(ctx, tag, base)
            return self._loras[key]
        check_weights(tag)
        return self._loras[key] | {"weight": tag.weight, "text_encoder_weight": tag.text_encoder_weight}

    def drop_lost(self, ctx: Ctx) -> None:
        """In a later transaction: forget the LoRAs if not all of them are still there for the actor."""
        cards = {lora["model_id"] for lora in self._loras.values()}
        if cards and len(find_cards(ctx, cards)) < len(cards):
            self._loras.clear()

    def check_length(self, ctx: Ctx, text: str, base: BaseModel, field: str) -> None:
        """
        Raises:
            PromptTooLong: more characters, or more chunks of the text encoder, than are rendered.
        """
        if (text, base.key) not in self._fitting:
            check_length(ctx, text, base, field)
            self._fitting.add((text, base.key))


def takes_time(text: str) -> bool:
    """Whether a prompt may need more than a glance: choices, tags, or so much text that its tokens are counted."""
    return len(text) > _MUCH_TEXT or any(mark in text for mark in ("{", "__", "<"))


def make_choices(
    template: str | tuple[Node, ...], seed: int, field: str, list_lines: Callable[[str], tuple[str, ...]]
) -> str:
    """The prompt of one picture, with its LoRA tags.

    Raises:
        UnknownWildcard, WildcardsTooDeep, TooManyOptions: with the field.
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


def check_weights(tag: LoraTag) -> None:
    """
    Raises:
        LoraTagRefused: naming the tag, with field `prompt`.
    """
    text_encoder = tag.weight if tag.text_encoder_weight is None else tag.text_encoder_weight
    if max(abs(tag.weight), abs(text_encoder)) > MAX_WEIGHT:
        raise LoraTagRefused(
            f"The weight in the tag {tag.text} must be from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}.", field="prompt"
        )


def resolve_tag(ctx: Ctx, tag: LoraTag, base: BaseModel) -> dict[str, Any]:
    """What the request keeps of the LoRA that a tag names.

    Raises:
        UnknownLoraTag, LoraTagRefused, NotALora, IncompatibleLora: naming the tag, with field `prompt`.
    """
    check_weights(tag)
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

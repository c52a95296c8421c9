"""The recipe of a picture that was rendered here."""

from collections.abc import Mapping
from typing import Any

from visionsuit import __version__
from visionsuit.engine.base import SAMPLERS, SCHEDULES
from visionsuit.generation.pictures import picture_of
from visionsuit.media.recipe import Recipe, RecipeLora

TOOL = f"VisionSuit {__version__}"


def recipe_of(request: Mapping[str, Any], seed: int) -> Recipe:
    """How one picture of a complete request was made."""
    picture = picture_of(request, seed)
    return Recipe(
        prompt=picture["prompt"],
        negative_prompt=picture["negative_prompt"],
        template=_if_other(request["prompt"], picture["prompt"]),
        negative_template=_if_other(request["negative_prompt"], picture["negative_prompt"]),
        seed=seed,
        steps=request["steps"],
        sampler=SAMPLERS[request["sampler"]],
        schedule=None if request["schedule"] == "default" else SCHEDULES[request["schedule"]],
        guidance=request["guidance"],
        width=request["width"],
        height=request["height"],
        base_model=request["base_model_label"],
        tool=TOOL,
        loras=[
            RecipeLora(
                name=lora["file_name"].removesuffix(".safetensors") or lora["title"],
                weight=lora["weight"],
                text_encoder_weight=lora["text_encoder_weight"],
                sha256=lora["sha256"],
                model_id=lora["model_id"],
            )
            for lora in picture["loras"]
        ],
    )


def _if_other(template: str, prompt: str) -> str | None:
    return None if template == prompt else template

"""The recipe of a picture that was rendered here."""

from collections.abc import Mapping
from typing import Any

from visionsuit import __version__
from visionsuit.engine.base import SAMPLERS, SCHEDULES
from visionsuit.generation.cells import Cell
from visionsuit.media.recipe import Recipe, RecipeLora

TOOL = f"VisionSuit {__version__}"


def recipe_of(request: Mapping[str, Any], cell: Cell) -> Recipe:
    """How one picture of a complete request was made."""
    init, hires, variation = request.get("init"), request.get("hires"), request.get("variation")
    return Recipe(
        prompt=cell.prompt,
        negative_prompt=cell.negative_prompt,
        template=_if_other(request["prompt"], cell.prompt),
        negative_template=_if_other(request["negative_prompt"], cell.negative_prompt),
        seed=cell.seed,
        steps=cell.steps,
        sampler=SAMPLERS[cell.sampler],
        schedule=None if request["schedule"] == "default" else SCHEDULES[request["schedule"]],
        guidance=cell.guidance,
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
            for lora in cell.loras
        ],
        strength=cell.strength,
        masked=bool(init["mask_input_id"]) if init else None,
        mask_blur=init["mask_blur"] if init and (init["mask_input_id"] or init["outpaint"]) else None,
        outpaint=init["outpaint"] if init else None,
        hires_scale=hires["scale"] if hires else None,
        hires_strength=hires["strength"] if hires else None,
        hires_steps=hires["steps"] if hires else None,
        variation_seed=cell.variation_seed,
        variation_strength=variation["strength"] if variation else None,
        bucket=request.get("bucket") or None,
    )


def _if_other(template: str, prompt: str) -> str | None:
    return None if template == prompt else template

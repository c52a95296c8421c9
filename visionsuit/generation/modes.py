"""Rules of beginning with a picture, of second passes and variations: every refusal with field, reason, limit."""

from dataclasses import asdict
from typing import Any

from visionsuit.core.config import Limits
from visionsuit.engine.base import steps_of
from visionsuit.generation.abilities import require_init, require_modes
from visionsuit.generation.cells import Cell, cells_of
from visionsuit.generation.order import (
    BadOrder,
    Borders,
    HiresOrder,
    InitOrder,
    Order,
    VariationOrder,
    check_choice,
    check_number,
    check_seed,
    check_whole,
)
from visionsuit.generation.sources import Source
from visionsuit.generation.tables import BaseModel

RESIZES = {"crop": "Fill and crop", "fit": "Whole picture", "stretch": "Stretch"}
MAX_BLUR = 64.0
MAX_SCALE = 4.0
#: A side of a second pass's result, in sides of the base model's largest.
_LARGEST = 2
_SIDES = ("left", "top", "right", "bottom")


def size_for(init: InitOrder, source: Source, base: BaseModel) -> tuple[int, int]:
    """(width, height) of a canvas for the whole picture and its borders, within the base model's limits.

    Raises:
        BadOrder
    """
    borders = init.outpaint or Borders()
    _check_sides(borders, base)
    across, down = max(0, borders.left + borders.right), max(0, borders.top + borders.bottom)
    width, height = source.width, source.height
    largest = min(1.0, max(1, base.max_size - across) / width, max(1, base.max_size - down) / height)
    smallest = max(1.0, (base.min_size - across) / width, (base.min_size - down) / height)
    scale = largest if largest < 1 else smallest
    return _step(width * scale + across, base), _step(height * scale + down, base)


def complete_init(
    init: InitOrder, source: Source, mask: Source | None, request: dict[str, Any], base: BaseModel
) -> dict[str, Any]:
    """`init` checked, for a request whose size is known; JSON.

    Raises:
        BadOrder
    """
    require_init(base, init)
    strength = check_number(init.strength, 0.75, "init.strength", 0.0, 1.0)
    borders = None if init.outpaint is None else _borders(init.outpaint, request, base)
    return {
        "image_id": init.image_id,
        "generation_image_id": init.generation_image_id,
        "input_id": init.input_id,
        "strength": strength,
        "mask_input_id": init.mask_input_id,
        "mask_blur": check_number(init.mask_blur, 4.0, "init.mask_blur", 0.0, MAX_BLUR),
        "outpaint": borders,
        "resize": check_choice(init.resize, "crop", "init.resize", RESIZES),
        "bucket": str(source.bucket),
        "object_id": source.object_id,
        "mask_object_id": None if mask is None else mask.object_id,
        "source_width": source.width,
        "source_height": source.height,
    }


def complete_modes(order: Order, request: dict[str, Any], base: BaseModel, limits: Limits) -> None:
    """Add second pass and variation, checked, to a request that has its `init`.

    Raises:
        BadOrder
    """
    require_modes(base, order.hires, order.variation)
    if order.hires is not None:
        request["hires"] = _hires(order.hires, request, base, limits)
    if order.variation is not None:
        request["variation"] = _variation(order.variation)
    init = request.get("init")
    if init is not None and init["strength"] == 0:
        if order.hires is None:
            raise BadOrder(
                "At strength 0 nothing of the picture would change.",
                field="init.strength",
                hint="Take more, up to 1; or add `hires` to make the picture larger.",
            )
        if init["mask_input_id"] or init["outpaint"]:
            raise BadOrder("A mask or borders need a strength above 0.", field="init.strength")


def steps_of_request(request: dict[str, Any]) -> int:
    """Steps that all pictures of a complete request take, over all their passes."""
    return sum(_steps_of_cell(request, cell) for cell in cells_of(request))


def check_work(request: dict[str, Any], limits: Limits) -> None:
    """
    Raises:
        BadOrder: more pixels of finished pictures, or more steps and pixels, than one request may take.
    """
    cells = cells_of(request)
    largest = request.get("hires") or request
    width, height = largest["width"], largest["height"]
    pixels = len(cells) * width * height / 1e6
    most = limits.request_megapixels
    if pixels > most:
        raise BadOrder(
            f"{len(cells)} pictures of {width}x{height} are {pixels:,.1f} megapixels; {most:,} is the most of one "
            "request. Ask for fewer pictures or a smaller size.",
            field="hires.scale" if "hires" in request else "width",
        )
    work = sum(_steps_of_cell(request, cell) for cell in cells) * width * height / 1e6
    most = limits.request_megapixel_steps
    if work > most:
        raise BadOrder(
            f"This request takes {work:,.0f} megapixel steps (steps of all pictures times their size); {most:,} is the "
            "most. Ask for fewer pictures, fewer steps or a smaller size.",
            field="steps",
        )


def _steps_of_cell(request: dict[str, Any], cell: Cell) -> int:
    hires, steps = request.get("hires"), cell.steps
    if cell.strength is not None:
        steps = steps_of(steps, cell.strength) if cell.strength else 0
    return steps + (steps_of(hires["steps"] or cell.steps, hires["strength"]) if hires else 0)


def _check_sides(borders: Borders, base: BaseModel) -> None:
    for side in _SIDES:
        check_whole(getattr(borders, side), 0, f"init.outpaint.{side}", 0, base.max_size)


def _borders(borders: Borders, request: dict[str, Any], base: BaseModel) -> dict[str, int] | None:
    _check_sides(borders, base)
    values = asdict(borders)
    for first, last, size in (("left", "right", "width"), ("top", "bottom", "height")):
        left = request[size] - values[first] - values[last]
        if left < base.size_step:
            raise BadOrder(
                f"Borders of {values[first]} and {values[last]} pixels leave {max(0, left)} of the {size} of "
                f"{request[size]} to the picture; it needs at least {base.size_step}. The {size} may be up to "
                f"{base.max_size}.",
                field=f"init.outpaint.{first if values[first] >= values[last] else last}",
            )
    return values if any(values.values()) else None


def _hires(hires: HiresOrder, request: dict[str, Any], base: BaseModel, limits: Limits) -> dict[str, Any]:
    scale = check_number(hires.scale, 2.0, "hires.scale", 1.0, MAX_SCALE)
    strength = check_number(hires.strength, 0.5, "hires.strength", 0.0, 1.0)
    if strength == 0:
        raise BadOrder("The strength of the second pass must be above 0 and at most 1.", field="hires.strength")
    steps = None if hires.steps is None else check_whole(hires.steps, 1, "hires.steps", 1, limits.steps)
    step = base.size_step
    width, height = (round(request[side] * scale / step) * step for side in ("width", "height"))
    most = _LARGEST * base.max_size
    if max(width, height) > most:
        raise BadOrder(
            f"{scale:g} times {request['width']}x{request['height']} is {width}x{height} pixels; "
            f"{base.label} goes up to {most} a side.",
            field="hires.scale",
            hint=f"Take at most {most / max(request['width'], request['height']):.4g}.",
        )
    if (width, height) == (request["width"], request["height"]):
        raise BadOrder("The second pass must be larger than the first: scale above 1.", field="hires.scale")
    return {"scale": scale, "strength": strength, "steps": steps, "width": width, "height": height}


def _variation(variation: VariationOrder) -> dict[str, Any]:
    return {
        "seed": check_seed(variation.seed, "variation.seed"),
        "strength": check_number(variation.strength, 0.0, "variation.strength", 0.0, 1.0),
    }


def _step(pixels: float, base: BaseModel) -> int:
    """The nearest size that the base model renders."""
    step = base.size_step
    least, most = -(-base.min_size // step) * step, base.max_size // step * step
    return int(min(most, max(least, round(pixels / step) * step)))

"""The pictures of a complete request, one by one: seeds that follow each other, variations, or the cells of a sheet."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from visionsuit.generation.order import SEEDS, seeds_of
from visionsuit.generation.pictures import picture_of


@dataclass(frozen=True, slots=True)
class Cell:
    """One picture, with everything that may be its own.

    Attributes:
        loras: the whole mix as the request keeps it.
        strength: of the picture to begin with, None without one.
        x, y: which of the axes' values; None for the control, and for what has no such axis.
    """

    seed: int
    prompt: str
    negative_prompt: str
    loras: tuple[Mapping[str, Any], ...]
    steps: int
    guidance: float
    sampler: str
    strength: float | None = None
    variation_seed: int | None = None
    label: str | None = None
    x: int | None = None
    y: int | None = None


def cells_of(request: Mapping[str, Any]) -> list[Cell]:
    """In the order of the results' numbers."""
    sheet = request.get("sheet")
    if sheet is not None:
        return _cells_of_sheet(request, sheet)
    variation = request.get("variation")
    if variation is None:
        return [_plain(request, seed) for seed in seeds_of(request)]
    # A variation leaves the picture's own seed alone: the further ones are other variations of the same.
    one = _plain(request, request["seed"])
    return [replace(one, variation_seed=(variation["seed"] + number) % SEEDS) for number in range(request["count"])]


def _plain(request: Mapping[str, Any], seed: int) -> Cell:
    picture = picture_of(request, seed)
    init, variation = request.get("init"), request.get("variation")
    return Cell(
        seed=seed,
        prompt=picture["prompt"],
        negative_prompt=picture["negative_prompt"],
        loras=tuple(picture["loras"]),
        steps=request["steps"],
        guidance=request["guidance"],
        sampler=request["sampler"],
        strength=init["strength"] if init else None,
        variation_seed=variation["seed"] if variation else None,
    )


def _cells_of_sheet(request: Mapping[str, Any], sheet: Mapping[str, Any]) -> list[Cell]:
    cells = []
    across, down = sheet["x"], sheet["y"]
    if sheet["control"]:
        cells.append(_control(request, [axis for axis in (across, down) if axis is not None]))
    rows = range(len(down["values"])) if down else (None,)
    for y in rows:
        for x in range(len(across["values"])):
            chosen = [(across, x), *([(down, y)] if down is not None and y is not None else [])]
            seed = next((axis["values"][number] for axis, number in chosen if axis["axis"] == "seed"), request["seed"])
            cell = _plain(request, seed)
            # A prompt brings its mix; weights are said of that.
            for axis, number in sorted(chosen, key=lambda one: one[0]["axis"] != "prompt"):
                cell = _with(cell, axis, number)
            label = " · ".join(f"{axis['label']}: {axis['labels'][number]}" for axis, number in chosen)
            cells.append(replace(cell, x=x, y=y, label=label))
    return cells


def _with(cell: Cell, axis: Mapping[str, Any], number: int) -> Cell:
    """`cell` with one value of an axis."""
    kind, value = axis["axis"], axis["values"][number]
    if kind == "lora_weight":
        return replace(cell, loras=_weighted(cell.loras, axis["model_id"], value))
    if kind == "prompt":
        picture = axis["pictures"][number]
        return replace(cell, prompt=picture["prompt"], loras=tuple(picture["loras"]))
    return replace(cell, **{kind: value})


def _weighted(loras: tuple[Mapping[str, Any], ...], model_id: str, weight: float) -> tuple[Mapping[str, Any], ...]:
    """The weight is the whole LoRA's: its text encoder part follows."""
    return tuple(
        {**lora, "weight": weight, "text_encoder_weight": None} if lora["model_id"] == model_id else lora
        for lora in loras
        if lora["model_id"] != model_id or weight != 0
    )


def _control(request: Mapping[str, Any], axes: list[Mapping[str, Any]]) -> Cell:
    cell = _plain(request, request["seed"])
    weighed = [axis["model_id"] for axis in axes if axis["axis"] == "lora_weight"]
    left_out = weighed or [lora["model_id"] for lora in cell.loras]
    loras = tuple(lora for lora in cell.loras if lora["model_id"] not in left_out)
    return replace(cell, loras=loras, label="Without LoRA" if len(left_out) == 1 else "Without LoRAs")

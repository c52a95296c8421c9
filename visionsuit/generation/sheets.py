"""X/Y sheets: one request whose pictures differ in one or two things, rendered together and shown on one sheet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from visionsuit.core.errors import AppError
from visionsuit.core.text import clean_line
from visionsuit.engine.base import SAMPLERS, samplers_for
from visionsuit.generation.base_models import get_offered
from visionsuit.generation.mix import find_lora
from visionsuit.generation.order import (
    MAX_GUIDANCE,
    MAX_WEIGHT,
    SEEDS,
    BadOrder,
    LoraOrder,
    Order,
    check_choice,
    check_number,
    check_whole,
    complete_prompt,
)
from visionsuit.generation.pictures import plan_pictures
from visionsuit.generation.prompts import Prompts
from visionsuit.generation.tables import BaseModel
from visionsuit.runtime import Ctx

AXES = {
    "lora_weight": "Weight",
    "steps": "Steps",
    "guidance": "Guidance",
    "sampler": "Sampler",
    "seed": "Seed",
    "strength": "Strength",
    "prompt": "Prompt",
}
TEST_WEIGHTS = (0.0, 0.4, 0.7, 1.0)
_LABEL_CHARACTERS = 60


class SheetTooLarge(BadOrder):
    code = "sheet_too_large"


@dataclass(frozen=True, slots=True)
class AxisOrder:
    """What changes along one side. `lora`: number in the request's mix, for `lora_weight`."""

    axis: str
    values: tuple[Any, ...]
    lora: int = 0
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class SheetOrder:
    """`control`: one more cell, without the LoRAs whose weights change, or without any."""

    x: AxisOrder
    y: AxisOrder | None = None
    control: bool = False


def complete_sheet(
    ctx: Ctx, sheet: SheetOrder, request: dict[str, Any], base: BaseModel, prompts: Prompts
) -> dict[str, Any]:
    """The sheet of a complete request, JSON.

    Raises:
        BadOrder, SheetTooLarge: with the field.
        what prompts may be refused for.
    """
    if request["count"] != 1:
        raise BadOrder("A sheet has one picture a cell: the count must be 1.", field="base.count")
    if request.get("variation"):
        raise BadOrder("A sheet has no variations.", field="base.variation")
    check_size(sheet, ctx.settings.limits.sheet_cells)
    axes = {
        name: _axis(ctx, axis, name, request, base, prompts)
        for name, axis in (("x", sheet.x), ("y", sheet.y))
        if axis is not None
    }
    x, y = axes["x"], axes.get("y")
    if y is not None and (x["axis"], x.get("model_id")) == (y["axis"], y.get("model_id")):
        raise BadOrder("Both sides of the sheet change the same thing.", field="y.axis")
    if sheet.control and not request["loras"]:
        raise BadOrder("There is no LoRA to leave out for a control.", field="control")
    return {"x": x, "y": y, "control": sheet.control}


def check_size(sheet: SheetOrder, most: int) -> None:
    """
    Raises:
        SheetTooLarge, BadOrder
    """
    for name, axis in (("x", sheet.x), ("y", sheet.y)):
        if axis is not None and not axis.values:
            raise BadOrder("A side of a sheet needs at least one value.", field=f"{name}.values")
    cells = len(sheet.x.values) * (len(sheet.y.values) if sheet.y else 1) + sheet.control
    if cells > most:
        shape = f"{len(sheet.x.values)} x {len(sheet.y.values) if sheet.y else 1}"
        raise SheetTooLarge(
            f"A sheet of {shape}{' and a control' if sheet.control else ''} has {cells} cells; {most} is the most.",
            field="y.values" if sheet.y and len(sheet.y.values) > len(sheet.x.values) else "x.values",
        )


def seeds_of_sheet(sheet: Mapping[str, Any]) -> list[int]:
    """Those of an axis of seeds, else none."""
    axes = [axis for axis in (sheet["x"], sheet["y"]) if axis and axis["axis"] == "seed"]
    return list(dict.fromkeys(axes[0]["values"])) if axes else []


def _axis(
    ctx: Ctx, axis: AxisOrder, name: str, request: dict[str, Any], base: BaseModel, prompts: Prompts
) -> dict[str, Any]:
    check_choice(axis.axis, "", f"{name}.axis", AXES)
    checks: dict[str, Callable[[Any, str], Any]] = {
        "lora_weight": lambda value, field: check_number(value, 0, field, -MAX_WEIGHT, MAX_WEIGHT),
        "steps": lambda value, field: check_whole(value, 0, field, 1, ctx.settings.limits.steps),
        "guidance": lambda value, field: check_number(value, 0, field, 0.0, MAX_GUIDANCE),
        "sampler": lambda value, field: check_choice(_text(value, field), "", field, samplers_for(base.family)),
        "seed": lambda value, field: check_whole(value, 0, field, 0, SEEDS - 1),
        "strength": lambda value, field: check_number(value, 0, field, 0.01, 1.0),
        "prompt": lambda value, field: complete_prompt(_text(value, field), field, ctx.settings.limits),
    }
    values = []
    for number, value in enumerate(axis.values):
        field = f"{name}.values.{number}"
        if isinstance(value, bool | None) or (isinstance(value, str) and axis.axis not in ("sampler", "prompt")):
            raise BadOrder(f"This is no value for {AXES[axis.axis].lower()}.", field=field)
        values.append(checks[axis.axis](value, field))
    done: dict[str, Any] = {"axis": axis.axis, "label": AXES[axis.axis], "lora": None, "values": values}
    if axis.axis == "strength" and not request.get("init"):
        raise BadOrder("Strength needs a picture to begin with.", field=f"{name}.axis", hint="Add `init` to the base.")
    if axis.axis == "strength" and request["init"]["strength"] == 0:
        # One canvas serves all cells: that of a picture that is only enlarged has the second pass's size.
        raise BadOrder("The base must have a strength above 0 where it changes.", field="base.init.strength")
    if axis.axis == "lora_weight":
        lora = _lora(axis.lora, f"{name}.lora", request)
        done |= {"lora": axis.lora, "model_id": lora["model_id"], "label": lora["title"]}
    if axis.axis == "prompt":
        done["pictures"] = [
            _picture(ctx, {**request, "prompt": text}, f"{name}.values.{number}", base, prompts)
            for number, text in enumerate(values)
        ]
    done["labels"] = _labels(axis, name, values)
    return done


def _lora(number: int, field: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
    loras: Sequence[Mapping[str, Any]] = request["loras"]
    if not loras:
        raise BadOrder("The base has no LoRA whose weight could change.", field=field)
    check_whole(number, 0, field, 0, len(loras) - 1)
    return loras[number]


def _picture(ctx: Ctx, request: dict[str, Any], field: str, base: BaseModel, prompts: Prompts) -> dict[str, Any]:
    """Prompt and mix of the request with one value, its choices made."""
    if not request["prompt"]:
        raise BadOrder("A prompt is needed: say what the picture shows.", field=field)
    try:
        planned = plan_pictures(ctx, request, base, prompts)
    except AppError as error:
        error.field = field
        raise
    picture = planned[0] if planned else request
    return {"prompt": picture["prompt"], "loras": picture["loras"]}


def _labels(axis: AxisOrder, name: str, values: Sequence[Any]) -> list[str]:
    if axis.labels is not None:
        if len(axis.labels) != len(values):
            raise BadOrder(f"There are {len(axis.labels)} labels for {len(values)} values.", field=f"{name}.labels")
        return [_short(label) for label in axis.labels]
    if axis.axis == "sampler":
        return [SAMPLERS[value] for value in values]
    return [
        _short(value) if isinstance(value, str) else f"{value:g}" if axis.axis != "seed" else str(value)
        for value in values
    ]


def _short(text: str) -> str:
    line = clean_line(text)
    return line if len(line) <= _LABEL_CHARACTERS else f"{line[: _LABEL_CHARACTERS - 1].rstrip()}…"


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise BadOrder("This value must be text.", field=field)
    return value


def order_test_sheet(ctx: Ctx, order: Order, model_id: str, version_id: str) -> tuple[Order, SheetOrder]:
    """What shows how a LoRA acts: one prompt and seed at growing weights, without and with its trigger. `order` says
    the rest; without a prompt it is one that the base model suggests.

    Raises:
        LoraNotFound
    """
    base = get_offered(ctx, order.base_model_id)
    card, _ = find_lora(ctx, model_id, version_id, 0)
    prompt = order.prompt.strip() or (base.suggestions[0] if base.suggestions else "a portrait of a person")
    order = replace(order, prompt=prompt, count=1, loras=(LoraOrder(model_id, version_id),))
    x = AxisOrder("lora_weight", TEST_WEIGHTS)
    y = None
    if card.trigger.strip():
        y = AxisOrder("prompt", (prompt, f"{prompt}, {card.trigger.strip()}"), labels=("no trigger", "trigger"))
    return order, SheetOrder(x, y)

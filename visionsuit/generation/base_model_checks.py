"""What administrators may say of a base model instead of what its files say."""

from collections.abc import Mapping
from typing import Any

from visionsuit.core.actor import Role
from visionsuit.core.errors import InvalidInput
from visionsuit.core.text import clean_text
from visionsuit.engine.base import DTYPES, SCHEDULES, samplers_for
from visionsuit.generation.order import MAX_GUIDANCE
from visionsuit.generation.tables import BaseModel

MAX_LABEL = 180
_MAX_DESCRIPTION = 2000
_MAX_SIZES = 24
_SIDES = ("width", "height")

#: Fields of `BaseModel.overrides`.
OVERRIDES = ("label", "description", "default", "sizes")


class BadBaseModel(InvalidInput):
    code = "bad_base_model"


def check_override(name: str, value: Any, row: BaseModel, most_steps: int) -> Any:
    """The value to keep for one of OVERRIDES.

    Raises:
        BadBaseModel: with the field. `default` and `sizes` need files that are known.
    """
    if name == "label":
        return check_label(value)
    if name == "description":
        return _description(value)
    if not row.family:
        raise BadBaseModel(
            "What fits it stands in its files: set this once it is downloaded and can be read.", field=name
        )
    return _default(value, row, most_steps) if name == "default" else _sizes(value, row)


def keep_fitting(own: Mapping[str, Any], row: BaseModel) -> tuple[dict[str, Any], list[list[int]]]:
    """(`default`, `sizes`) of the overrides, without what does not fit the files: these may be others by now."""
    default = dict(own.get("default") or {})
    if not all(_is_side(default[name], row) for name in _SIDES if name in default):
        default = {name: setting for name, setting in default.items() if name not in _SIDES}
    if default.get("sampler") not in samplers_for(row.family):
        default.pop("sampler", None)
    return default, [size for size in own.get("sizes") or [] if all(_is_side(side, row) for side in size)]


def check_label(text: str) -> str:
    cleaned = clean_text(text)
    if not cleaned or len(cleaned) > MAX_LABEL:
        raise BadBaseModel(f"A label has 1 to {MAX_LABEL} characters.", field="label")
    return cleaned


def _description(text: str) -> str:
    if len(text) > _MAX_DESCRIPTION:
        raise BadBaseModel(f"A description has at most {_MAX_DESCRIPTION:,} characters.", field="description")
    return clean_text(text)


def _default(value: Mapping[str, Any], row: BaseModel, most_steps: int) -> dict[str, Any]:
    given = {name: setting for name, setting in value.items() if setting is not None}
    for name in _SIDES:
        if name in given:
            _size(given[name], row, f"default.{name}")
    if not 1 <= given.get("steps", 1) <= most_steps:
        raise BadBaseModel(f"Steps are 1 to {most_steps}.", field="default.steps")
    if not 0 <= given.get("guidance", 1) <= MAX_GUIDANCE:
        raise BadBaseModel(f"Guidance is 0 to {MAX_GUIDANCE:g}.", field="default.guidance")
    for name, known in (("sampler", samplers_for(row.family)), ("schedule", SCHEDULES)):
        if name in given and given[name] not in known:
            raise BadBaseModel(f"Known are {', '.join(known)}.", field=f"default.{name}")
    return given


def _sizes(value: list[list[int]], row: BaseModel) -> list[list[int]]:
    if len(value) > _MAX_SIZES or any(len(size) != 2 for size in value):
        raise BadBaseModel(f"Sizes are at most {_MAX_SIZES} pairs of width and height.", field="sizes")
    for size in value:
        for side in size:
            _size(side, row, "sizes")
    return value


def _size(side: int, row: BaseModel, field: str) -> None:
    if not _is_side(side, row):
        raise BadBaseModel(
            f"Sides are {row.min_size} to {row.max_size} pixels, multiples of {row.size_step}.", field=field
        )


def _is_side(side: int, row: BaseModel) -> bool:
    return row.min_size <= side <= row.max_size and side % row.size_step == 0


def check_dtype(name: str) -> str:
    if name not in DTYPES:
        raise BadBaseModel(f"Number formats are {', '.join(DTYPES)}.", field="dtype")
    return name


def check_role(role: str) -> str:
    try:
        return Role(role).value
    except ValueError as error:
        known = ", ".join(role.value for role in Role)
        raise BadBaseModel(f"Roles are {known}.", field="allowed_roles") from error

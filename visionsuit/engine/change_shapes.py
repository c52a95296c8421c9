"""Formats that are no pair of matrices, by their tensors' shapes: what weight do they change? No torch.

LoHa is an elementwise product of two pairs, LoKr a Kronecker product of two (perhaps factored) matrices, a full
difference the change itself, DoRA any of these with a magnitude per output or input.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

from visionsuit.engine.lora_names import LoraModule, Part, Shape

#: Marker in the tensors' names -> the names of its tensors.
MARKERS: dict[Part, tuple[str, ...]] = {
    Part.LOHA: tuple(f".hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")),
    Part.LOKR: tuple(f".lokr_{name}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")),
    Part.FULL: (".diff",),
}
PRODUCTS = tuple(MARKERS)


def factors(module: LoraModule, part: Part, names: Mapping[str, Any]) -> dict[str, str]:
    """Short name (`w1_a`) -> name in the file, of the tensors of a module in `names`."""
    key = module.keys[part]
    stem = key[: key.rindex(MARKERS[part][0].split("_")[0])]
    found = {marker: f"{stem}{marker}" for marker in MARKERS[part] if f"{stem}{marker}" in names}
    return {marker.split("_", 1)[-1].lstrip("."): name for marker, name in found.items()}


def changed_shape(part: Part, shapes: Mapping[str, Shape]) -> tuple[int, int] | None:
    """(outputs, inputs * kernel) of the change that these factors make; None when they do not fit together."""
    if part is Part.FULL:
        shape = shapes.get("diff", ())
        return (shape[0], prod(shape[1:])) if len(shape) >= 2 else None
    if part is Part.LOHA:
        first = _pair(shapes, "w1_a", "w1_b", "t1")
        return first if first is not None and first == _pair(shapes, "w2_a", "w2_b", "t2") else None
    if len(shapes.get("w1", ())) == 4 and shapes["w1"][2:] != (1, 1):
        # Only the inner one has a kernel.
        return None
    outer = _whole(shapes["w1"]) if "w1" in shapes else _pair(shapes, "w1_a", "w1_b", "")
    inner = _whole(shapes["w2"]) if "w2" in shapes else _pair(shapes, "w2_a", "w2_b", "t2")
    return (outer[0] * inner[0], outer[1] * inner[1]) if outer and inner else None


def magnitude_shape(name: str, shape: Shape, weight: Shape) -> tuple[int, int, int] | None:
    """(outputs, inputs, kernel) that a DoRA's magnitudes tell apart, 1 where they do not; None when they fit nothing.

    Args:
        name: in the file, of the tensor of this shape.
    """
    inputs, count = weight[1], prod(shape)
    # PEFT has one per output, in a row too; of the others a row is one per input.
    is_row = name.endswith(".dora_scale") and len(shape) > 1 and shape[0] == 1
    if is_row and count in (inputs, prod(weight[1:])):
        return 1, inputs, count // inputs
    return (weight[0], 1, 1) if count == weight[0] else None


def _whole(shape: Shape) -> tuple[int, int] | None:
    return (shape[0], prod(shape[1:])) if len(shape) in (2, 4) and 0 not in shape else None


def _pair(shapes: Mapping[str, Shape], a: str, b: str, core: str) -> tuple[int, int] | None:
    left, right = shapes.get(a, ()), shapes.get(b, ())
    if len(left) != 2 or len(right) not in (2, 4) or 0 in left or 0 in right:
        return None
    middle = shapes.get(core)
    if middle is None:
        return (left[0], prod(right[1:])) if left[1] == right[0] else None
    # Tucker: core [r, q, kernel, kernel], both sides with their rank first.
    if len(middle) != 4 or middle[0] != left[0] or middle[1] != right[0]:
        return None
    return left[1], right[1] * middle[2] * middle[3]

"""Does a LoRA fit a base model, and what is it? Answered from headers alone: no weight is read, no torch imported.

shapes = read_base_shapes(Path("models_cache/demo"))       # cached per folder content
check_lora(read_header(path), shapes)                      # LoraFit, or raises IncompatibleLora in words
describe_lora(read_header(path)).as_facts()                # JSON for the card
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from visionsuit.engine.base import IncompatibleLora
from visionsuit.engine.base_shapes import FAMILY_LABELS, BaseShapes, read_base_shapes, width_label
from visionsuit.engine.change_shapes import PRODUCTS, changed_shape, factors, magnitude_shape
from visionsuit.engine.describe import describe_lora, guess_kind
from visionsuit.engine.header import TensorInfo, tensors_of
from visionsuit.engine.lora_names import Component, LoraModule, Part, Shape, parse_names

__all__ = ["BaseShapes", "LoraFit", "check_lora", "describe_lora", "guess_kind", "read_base_shapes"]


@dataclass(frozen=True, slots=True)
class LoraFit:
    """How a LoRA meets a base model: module counts per component, and tensors that mean nothing to it.

    `fitting` are the LoRA's modules with the base model's names for them.
    """

    modules: dict[Component, int]
    unknown: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    fitting: tuple[tuple[LoraModule, str], ...] = ()


@dataclass(slots=True)
class _Matches:
    fitting: list[tuple[LoraModule, str]] = field(default_factory=list)
    absent: list[LoraModule] = field(default_factory=list)


def check_lora(header: Mapping[str, Any], base: BaseShapes | Path) -> LoraFit:
    """Whether a LoRA with this raw header (or names -> TensorInfo) can be applied to `base`.

    Raises:
        IncompatibleLora: with the reason as a sentence.
        ModelUnloadable: `base` is a folder that is no base model.
    """
    if isinstance(base, Path):
        base = read_base_shapes(base)
    if not base.index.shapes:
        raise IncompatibleLora("This base model takes no LoRAs.")
    tensors = tensors_of(header)
    modules, unknown = parse_names(tensors)
    adapted = [module for module in modules if module.keys.keys() - {Part.ALPHA}]
    if not adapted:
        raise IncompatibleLora("The file holds no LoRA weights that are known here.", hint="Is it a LoRA at all?")
    matches = _match(adapted, tensors, base)
    if len(matches.fitting) * 2 < len(adapted):
        raise IncompatibleLora(
            f"{_made_for(tensors, adapted)}, the base model is {base.label}: "
            f"{len(matches.absent)} of its {len(adapted)} layers are not in the base model."
        )
    counts: dict[Component, int] = {}
    for module, _ in matches.fitting:
        counts[module.component] = counts.get(module.component, 0) + 1
    absent = tuple(module.name for module in matches.absent[:50])
    return LoraFit(counts, tuple(unknown[:50]), absent, tuple(matches.fitting))


def _match(modules: list[LoraModule], tensors: Mapping[str, TensorInfo], base: BaseShapes) -> _Matches:
    matches = _Matches()
    for module in modules:
        name = base.index.find(module)
        if name is None:
            matches.absent.append(module)
            continue
        problem = _misfit(module, tensors, base.index.shapes[module.component][name])
        if problem:
            raise IncompatibleLora(
                f"{_made_for(tensors, modules)}, the base model is {base.label}: layer {name} {problem}."
            )
        matches.fitting.append((module, name))
    return matches


def _misfit(module: LoraModule, tensors: Mapping[str, TensorInfo], weight: Shape) -> str | None:
    if Part.BIAS in module.keys:
        if prod(tensors[module.keys[Part.BIAS]].shape) != weight[0]:
            shape = list(tensors[module.keys[Part.BIAS]].shape)
            return f"has a bias of shape {shape} where the base model has {weight[0]} outputs"
        if not module.keys.keys() - {Part.BIAS, Part.ALPHA}:
            return None
    if Part.OFT in module.keys:
        problem = _misfit_of_oft(module, tensors, weight)
        # Both would be read, and only one has been looked at.
        both = module.keys.keys() & {Part.DOWN, Part.UP, *PRODUCTS}
        return "is changed in two ways at once" if both and not problem else problem
    if (key := module.keys.get(Part.DORA)) and magnitude_shape(key, tensors[key].shape, weight) is None:
        return f"has {prod(tensors[key].shape)} magnitudes, which fit neither side of the weight"
    product = next((part for part in PRODUCTS if part in module.keys), None)
    if product is not None:
        return _misfit_of_product(module, product, tensors, weight)
    if Part.DOWN not in module.keys or Part.UP not in module.keys:
        return "has only one half of its pair of matrices"
    down, up = tensors[module.keys[Part.DOWN]].shape, tensors[module.keys[Part.UP]].shape
    if len(down) not in (2, 4) or len(up) not in (2, 4) or 0 in down or 0 in up:
        return f"has matrices of shape {list(down)} and {list(up)}, which make no LoRA"
    if max(down[0], up[1]) > _most_rank(weight):
        return f"has rank {max(down[0], up[1])}, more than the {_most_rank(weight)} that make sense there"
    if Part.MID in module.keys:
        return _misfit_of_mid(down, up, tensors[module.keys[Part.MID]].shape, weight)
    if down[0] != up[1]:
        return f"has matrices of different rank, {down[0]} and {up[1]}"
    if down[1] != weight[1]:
        return f"takes {down[1]} inputs where the base model has {weight[1]}"
    if up[0] != weight[0]:
        return f"gives {up[0]} outputs where the base model has {weight[0]}"
    if (down[2:] or (1, 1)) != (weight[2:] or (1, 1)):
        return f"has a kernel of {list(down[2:])} where the base model has {list(weight[2:])}"
    if (up[2:] or (1, 1)) != (1, 1):
        return f"has an up kernel of {list(up[2:])}, which is not known here"
    return None


def _most_rank(weight: Shape) -> int:
    """No change needs more; trainers take up to 1024 whatever the layer. Where a middle matrix is multiplied out, or
    layers of one shape are stacked, a file of a few megabytes and a rank of a million would fill the memory."""
    return max(1024, min(weight[0], prod(weight[1:])))


def _misfit_of_oft(module: LoraModule, tensors: Mapping[str, TensorInfo], weight: Shape) -> str | None:
    blocks = tensors[module.keys[Part.OFT]].shape
    if not module.keys[Part.OFT].endswith(".oft_blocks") or len(blocks) != 3:
        return "is of a kind of OFT that is not known here (known are blocks over the outputs)"
    if blocks[1] != blocks[2] or blocks[0] * blocks[1] != weight[0]:
        return f"has OFT blocks of shape {list(blocks)}, which do not turn {weight[0]} outputs"
    if Part.RESCALE in module.keys and prod(tensors[module.keys[Part.RESCALE]].shape) != weight[0]:
        return f"has OFT factors of shape {list(tensors[module.keys[Part.RESCALE]].shape)} for {weight[0]} outputs"
    return None


def _misfit_of_product(module: LoraModule, part: Part, tensors: Mapping[str, TensorInfo], weight: Shape) -> str | None:
    names = factors(module, part, tensors)
    if part is Part.FULL and not names:
        return None  # of a bias alone, which is left as it is
    shape = changed_shape(part, {short: tensors[name].shape for short, name in names.items()})
    if shape is None:
        return "has matrices that make no whole"
    cores = [tensors[name].shape for short, name in names.items() if short in ("t1", "t2")]
    if any(max(core[:2], default=0) > _most_rank(weight) for core in cores):
        return f"has a rank above the {_most_rank(weight)} that make sense there"
    if shape != (weight[0], prod(weight[1:])):
        return f"changes a weight of {list(shape)} where the base model has {list(weight)}"
    return None


def _misfit_of_mid(down: Shape, up: Shape, mid: Shape, weight: Shape) -> str | None:
    if len(mid) != 4 or mid[1] != down[0] or mid[0] != up[1] or mid[2:] != weight[2:]:
        return f"has a middle matrix of shape {list(mid)}, which does not fit its pair"
    if (down[2:] or (1, 1)) != (1, 1) or (up[2:] or (1, 1)) != (1, 1):
        return f"has kernels of {list(down[2:])} and {list(up[2:])} beside its middle matrix"
    if down[1] != weight[1] or up[0] != weight[0]:
        return f"maps {down[1]} to {up[0]} where the base model maps {weight[1]} to {weight[0]}"
    return None


def _made_for(tensors: Mapping[str, TensorInfo], modules: list[LoraModule]) -> str:
    described = describe_lora(tensors, modules=modules)
    width = described.cross_attention
    if width is None:
        return f"The LoRA was made for {FAMILY_LABELS[described.family]}"
    return f"The LoRA was made for {width_label(width)} (cross attention {width})"

"""Does a LoRA fit a base model, and what is it? Answered from headers alone: no weight is read, no torch imported.

shapes = read_base_shapes(Path("models_cache/demo"))       # cached per folder content
check_lora(read_header(path), shapes)                      # LoraFit, or raises IncompatibleLora in words
describe_lora(read_header(path)).as_facts()                # JSON for the card
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from visionsuit.engine.base import Family, IncompatibleLora, ModelUnloadable
from visionsuit.engine.catalog import PIPELINES
from visionsuit.engine.change_shapes import PRODUCTS, changed_shape, factors, magnitude_shape
from visionsuit.engine.checkpoints import Checkpoint, read_checkpoint
from visionsuit.engine.describe import MODELS_BY_WIDTH, describe_lora, guess_kind
from visionsuit.engine.flux_names import Share, fused_layers
from visionsuit.engine.header import BadHeader, TensorInfo, read_header, tensors_of
from visionsuit.engine.lora_names import Component, LoraModule, ModuleIndex, Part, Shape, parse_names
from visionsuit.engine.whole_kinds import WHOLE

__all__ = ["BaseShapes", "LoraFit", "check_lora", "describe_lora", "guess_kind", "read_base_shapes"]

_FAMILY_LABELS = {
    Family.SD1: "SD 1.x",
    Family.SD2: "SD 2.x",
    Family.SDXL: "SDXL",
    Family.SD3: "SD 3",
    Family.FLUX: "Flux",
    Family.OTHER: "another architecture",
}
_PAIR = frozenset({Part.DOWN, Part.UP, Part.MID, Part.ALPHA})
_KIND_LABELS = {
    Part.BIAS: "a difference of its bias",
    Part.DORA: "a DoRA",
    Part.FULL: "a full difference",
    Part.LOHA: "a LoHa",
    Part.LOKR: "a LoKr",
    Part.OFT: "an OFT",
    Part.RESCALE: "an OFT",
}
_WEIGHT_FILES = ("diffusion_pytorch_model", "model")


@dataclass(frozen=True)
class BaseShapes:
    """A base model as LoRAs see it: the weight shape of every module that could be adapted, per component.

    Attributes:
        pairs_only: it takes pairs of matrices, and no other kind of change.
        shares: for names of modules that are several in the base model: which of their outputs is which.
    """

    family: Family
    index: ModuleIndex
    cross_attention: int | None
    pairs_only: bool = False
    shares: Mapping[str, tuple[Share, ...]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        if self.cross_attention is None:
            return _FAMILY_LABELS[self.family]
        return f"{_width_label(self.cross_attention)} ({self.cross_attention})"

    def places(self, component: Component, name: str) -> list[tuple[Component, Share]]:
        """Which layers of the base model a module means, by the one name that each of them has, and which rows of the
        module's outputs are theirs."""
        if component is Component.UNET and Component.TRANSFORMER in self.index.shapes:
            component = Component.TRANSFORMER
        all_rows = Share(name, ((0, self.index.shapes[component][name][0]),))
        return [(component, share) for share in self.shares.get(name, (all_rows,))]


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


def read_base_shapes(folder: Path) -> BaseShapes:
    """Shapes of the base model in a diffusers folder or checkpoint, from its configs and safetensors headers.

    Raises:
        ModelUnloadable: there is no UNet with safetensors weights.
    """
    if folder.is_file():
        return _shapes_of_checkpoint(read_checkpoint(folder))
    name = _class_name(folder)
    if name in WHOLE and not WHOLE[name].loras:
        return BaseShapes(PIPELINES.get(name, Family.OTHER), ModuleIndex({}), None)
    weights = _weight_files(folder)
    stamps = tuple(
        (str(file), file.stat().st_mtime_ns, file.stat().st_size) for files in weights.values() for file in files
    )
    return _read_base_shapes(folder, stamps)


@lru_cache(maxsize=32)
def _read_base_shapes(folder: Path, stamps: tuple[tuple[str, int, int], ...]) -> BaseShapes:
    # `stamps` is the cache's key: a folder whose files changed is read anew.
    shapes: dict[Component, dict[str, Shape]] = {}
    for component, files in _weight_files(folder).items():
        modules = shapes.setdefault(component, {})
        for file in files:
            try:
                tensors = tensors_of(read_header(file))
            except BadHeader as error:
                raise ModelUnloadable(f"{component} of the base model cannot be read: {error}") from error
            for name, tensor in tensors.items():
                if name.endswith(".weight") and len(tensor.shape) in (2, 4):
                    modules[name.removesuffix(".weight").removeprefix("text_model.")] = tensor.shape
    width, name = _cross_attention(folder), _class_name(folder)
    if name in WHOLE:
        return _shapes_of_whole(name, shapes, width)
    return BaseShapes(_family(folder, shapes, width), ModuleIndex(shapes), width)


def _shapes_of_whole(name: str, shapes: Mapping[Component, dict[str, Shape]], width: int | None) -> BaseShapes:
    taken = {
        # Of words' embeddings a LoRA has another form.
        component: {name: shape for name, shape in modules.items() if not name.endswith("_embedding")}
        for component, modules in shapes.items()
        if component in WHOLE[name].loras
    }
    fused = fused_layers(taken.get(Component.TRANSFORMER, {}))
    if Component.TRANSFORMER in taken:
        # kohya calls every denoiser a UNet.
        named = taken[Component.TRANSFORMER] | {own: layer.shape for own, layer in fused.items()}
        taken |= {Component.TRANSFORMER: named, Component.UNET: named}
    shares = {own: layer.shares for own, layer in fused.items()}
    return BaseShapes(PIPELINES.get(name, Family.OTHER), ModuleIndex(taken), width, pairs_only=True, shares=shares)


@lru_cache(maxsize=32)
def _shapes_of_checkpoint(checkpoint: Checkpoint) -> BaseShapes:
    shapes = {
        component: {
            name.removesuffix(".weight"): shape
            for name, shape in checkpoint.shapes[component].items()
            if name.endswith(".weight") and len(shape) in (2, 4)
        }
        for component in (Component.UNET, Component.TEXT_ENCODER, Component.TEXT_ENCODER_2)
        if component in checkpoint.shapes
    }
    return BaseShapes(checkpoint.family, ModuleIndex(shapes), checkpoint.configs["unet"]["cross_attention_dim"])


def _weight_files(folder: Path) -> dict[Component, list[Path]]:
    found: dict[Component, list[Path]] = {}
    for component in (Component.UNET, Component.TRANSFORMER, Component.TEXT_ENCODER, Component.TEXT_ENCODER_2):
        files = sorted(file for stem in _WEIGHT_FILES for file in (folder / component).glob(f"{stem}*.safetensors"))
        if files:
            found[component] = files
    if Component.UNET not in found and Component.TRANSFORMER not in found:
        raise ModelUnloadable(f"The base model in {folder.name} has no UNet weights in safetensors form.")
    return found


def _config(folder: Path, component: str) -> dict[str, Any]:
    return _json(folder / component / "config.json")


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _class_name(folder: Path) -> str:
    return str(_json(folder / "model_index.json").get("_class_name"))


def _cross_attention(folder: Path) -> int | None:
    width = _config(folder, "unet").get("cross_attention_dim")
    if isinstance(width, list) and width:
        width = width[0]
    return width if isinstance(width, int) else None


def _family(folder: Path, shapes: Mapping[Component, Mapping[str, Shape]], width: int | None) -> Family:
    if Component.TRANSFORMER in shapes:
        return Family.SD3
    if Component.TEXT_ENCODER_2 in shapes or _config(folder, "unet").get("addition_embed_type") == "text_time":
        return Family.SDXL
    return Family.SD2 if width == 1024 else Family.SD1


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
        if base.pairs_only and not problem and (others := module.keys.keys() - _PAIR):
            problem = f"is changed as {_KIND_LABELS[min(others)]}, and such a base model takes plain LoRAs only"
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
        return f"The LoRA was made for {_FAMILY_LABELS[described.family]}"
    return f"The LoRA was made for {_width_label(width)} (cross attention {width})"


def _width_label(width: int) -> str:
    return MODELS_BY_WIDTH.get(width, "a model of another size")

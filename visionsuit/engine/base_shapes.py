"""A base model as LoRAs see it: the shape of every weight that could be adapted, from headers alone."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from visionsuit.engine.base import Family, ModelUnloadable
from visionsuit.engine.catalog import PIPELINES
from visionsuit.engine.checkpoints import Checkpoint, read_checkpoint
from visionsuit.engine.describe import MODELS_BY_WIDTH
from visionsuit.engine.flux_names import Share, fused_layers
from visionsuit.engine.header import BadHeader, read_header, tensors_of
from visionsuit.engine.lora_names import Component, ModuleIndex, Shape
from visionsuit.engine.whole_kinds import WHOLE

FAMILY_LABELS = {
    Family.SD1: "SD 1.x",
    Family.SD2: "SD 2.x",
    Family.SDXL: "SDXL",
    Family.SD3: "SD 3",
    Family.FLUX: "Flux",
    Family.OTHER: "another architecture",
}
#: Ends of the names of those weights of two dimensions that are no layer's.
_EMBEDDINGS = ("_embedding", "shared", "embed_tokens", "relative_attention_bias")
_T5_LAYER = "encoder.block.0.layer.0.SelfAttention.q"
_WEIGHT_FILES = ("diffusion_pytorch_model", "model")


@dataclass(frozen=True)
class BaseShapes:
    """A base model as LoRAs see it: the weight shape of every module that could be adapted, per component.

    Attributes:
        shares: for names of modules that are several in the base model: which of their outputs is which.
        aliases: names that trainers give to a component, beside its own.
    """

    family: Family
    index: ModuleIndex
    cross_attention: int | None
    shares: Mapping[str, tuple[Share, ...]] = field(default_factory=dict)
    aliases: Mapping[Component, Component] = field(default_factory=dict)

    @property
    def label(self) -> str:
        if self.cross_attention is None:
            return FAMILY_LABELS[self.family]
        return f"{width_label(self.cross_attention)} ({self.cross_attention})"

    def component(self, spoken: Component) -> Component:
        """Which one of the base model's is meant."""
        return self.aliases.get(spoken, spoken)

    def places(self, component: Component, name: str) -> list[tuple[Component, Share]]:
        """Which layers of the base model a module means, by the one name that each of them has, and which rows of the
        module's outputs are theirs."""
        component = self.component(component)
        all_rows = Share(name, ((0, self.index.shapes[component][name][0]),))
        return [(component, share) for share in self.shares.get(name, (all_rows,))]


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
        # Of words' and places' embeddings a LoRA has another form.
        component: {name: shape for name, shape in modules.items() if not name.endswith(_EMBEDDINGS)}
        for component, modules in shapes.items()
        if component in WHOLE[name].loras
    }
    fused = fused_layers(taken.get(Component.TRANSFORMER, {}))
    aliases: dict[Component, Component] = {}
    if Component.TRANSFORMER in taken:
        # kohya calls every denoiser a UNet.
        taken[Component.TRANSFORMER] |= {own: layer.shape for own, layer in fused.items()}
        aliases[Component.UNET] = Component.TRANSFORMER
    for component, modules in taken.items():
        if _T5_LAYER in modules:
            # Trainers count the text encoders of SD 3, where T5 is the third, or those that there are. T5's layers
            # have names that no other encoder's have.
            counted = (Component.TEXT_ENCODER_2, Component.TEXT_ENCODER_3)
            aliases |= {other: component for other in counted if other not in taken}
    taken |= {other: taken[component] for other, component in aliases.items()}
    shares = {own: layer.shares for own, layer in fused.items()}
    family = PIPELINES.get(name, Family.OTHER)
    return BaseShapes(family, ModuleIndex(taken), width, shares=shares, aliases=aliases)


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


def width_label(width: int) -> str:
    return MODELS_BY_WIDTH.get(width, "a model of another size")

"""What the tensor names of a LoRA file mean, in every spelling that trainers write.

kohya (`lora_unet_down_blocks_0_...lora_down.weight`, also with the SDXL training code's own block names
`input_blocks_4_1_...`), diffusers old (`unet....attn1.processor.to_q_lora.down.weight`) and new
(`unet....to_q.lora_A.weight`), and bare PEFT (`base_model.model....`). No torch.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

Shape = tuple[int, ...]


class Component(StrEnum):
    UNET = "unet"
    TEXT_ENCODER = "text_encoder"
    TEXT_ENCODER_2 = "text_encoder_2"
    TEXT_ENCODER_3 = "text_encoder_3"
    TRANSFORMER = "transformer"


class Spelling(StrEnum):
    KOHYA = "kohya"
    DIFFUSERS = "diffusers"
    PEFT = "peft"


class Part(StrEnum):
    """What one tensor is to its module."""

    DOWN = "down"
    UP = "up"
    MID = "mid"
    ALPHA = "alpha"
    DORA = "dora"
    LOHA = "loha"
    LOKR = "lokr"
    OFT = "oft"
    FULL = "full"
    #: Added to the layer's bias, whatever else is done to its weight.
    BIAS = "bias"
    #: Factors of the outputs that an OFT comes with.
    RESCALE = "rescale"


_SUFFIXES: tuple[tuple[str, Part], ...] = (
    (".lora_down.weight", Part.DOWN),
    (".lora_up.weight", Part.UP),
    (".lora_mid.weight", Part.MID),
    (".lora_A.weight", Part.DOWN),
    (".lora_B.weight", Part.UP),
    (".lora_A.default.weight", Part.DOWN),
    (".lora_B.default.weight", Part.UP),
    (".lora_linear_layer.down.weight", Part.DOWN),
    (".lora_linear_layer.up.weight", Part.UP),
    (".lora.down.weight", Part.DOWN),
    (".lora.up.weight", Part.UP),
    ("_lora.down.weight", Part.DOWN),
    ("_lora.up.weight", Part.UP),
    (".alpha", Part.ALPHA),
    (".dora_scale", Part.DORA),
    (".lora_magnitude_vector", Part.DORA),
    (".lora_magnitude_vector.weight", Part.DORA),
    (".lora_magnitude_vector.default.weight", Part.DORA),
    (".diff", Part.FULL),
    (".diff_b", Part.BIAS),
    (".rescale", Part.RESCALE),
)
_LYCORIS = ((".hada_", Part.LOHA), (".lokr_", Part.LOKR), (".oft_", Part.OFT))
_KOHYA_PREFIXES: tuple[tuple[str, Component], ...] = (
    ("lora_unet_", Component.UNET),
    ("lora_te_", Component.TEXT_ENCODER),
    ("lora_te1_", Component.TEXT_ENCODER),
    ("lora_te2_", Component.TEXT_ENCODER_2),
    ("lora_te3_", Component.TEXT_ENCODER_3),
    ("lora_transformer_", Component.TRANSFORMER),
)
_DOTTED_PREFIXES: tuple[tuple[str, Component], ...] = (
    ("unet.", Component.UNET),
    ("text_encoder.", Component.TEXT_ENCODER),
    ("text_encoder_2.", Component.TEXT_ENCODER_2),
    ("text_encoder_3.", Component.TEXT_ENCODER_3),
    ("text_encoders.clip_l.transformer.", Component.TEXT_ENCODER),
    ("text_encoders.t5xxl.transformer.", Component.TEXT_ENCODER_3),
    ("transformer.", Component.TRANSFORMER),
    ("diffusion_model.", Component.TRANSFORMER),
)
_UNET_STARTS = ("down_blocks.", "mid_block.", "up_blocks.", "conv_in", "conv_out", "time_embedding.", "add_embedding.")
_TRANSFORMER_STARTS = ("transformer_blocks.", "single_transformer_blocks.", "double_blocks.", "single_blocks.")
_OLD_ATTENTION = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


@dataclass(slots=True)
class LoraModule:
    """One adapted module of a LoRA file: `name` as its spelling writes it, tensor names by part."""

    component: Component
    spelling: Spelling
    name: str
    keys: dict[Part, str] = field(default_factory=dict)


def parse_names(names: Iterable[str]) -> tuple[list[LoraModule], list[str]]:
    """Group tensor names by module. Returns the modules in file order, and the names that mean nothing here."""
    modules: dict[tuple[Component, Spelling, str], LoraModule] = {}
    unknown: list[str] = []
    for key in names:
        split = _split_part(key)
        place = _locate(split[0]) if split else None
        if split is None or place is None:
            unknown.append(key)
            continue
        modules.setdefault(place, LoraModule(*place)).keys.setdefault(split[1], key)
    return list(modules.values()), unknown


# The files of one trainer name the same thousands of tensors.
@lru_cache(1 << 14)
def _split_part(key: str) -> tuple[str, Part] | None:
    for suffix, part in _SUFFIXES:
        if key.endswith(suffix):
            stem = key[: -len(suffix)]
            # An alpha of the old diffusers spelling belongs to `to_q_lora`, as its weights do.
            old = suffix.startswith("_lora") or (part is Part.ALPHA and stem.endswith("_lora"))
            return (_unfold_old(stem.removesuffix("_lora")), part) if old else (stem, part)
    for marker, part in _LYCORIS:
        stem, found, _ = key.partition(marker)
        if found:
            return stem, part
    return None


def _unfold_old(stem: str) -> str:
    """`...attn1.processor.to_out` -> `...attn1.to_out.0`; in a text encoder `...self_attn.to_q` -> `...q_proj`."""
    head, _, last = stem.rpartition(".")
    if head.endswith("self_attn"):
        return f"{head}.{_OLD_ATTENTION.get(last, last)}"
    head = head.removesuffix(".processor")
    return f"{head}.{'to_out.0' if last == 'to_out' else last}"


@lru_cache(1 << 13)
def _locate(stem: str) -> tuple[Component, Spelling, str] | None:
    for prefix, component in _KOHYA_PREFIXES:
        if stem.startswith(prefix) and "." not in stem:
            return component, Spelling.KOHYA, stem[len(prefix) :].removeprefix("text_model_")
    spelling = Spelling.DIFFUSERS
    if stem.startswith("base_model.model."):
        spelling, stem = Spelling.PEFT, stem.removeprefix("base_model.model.")
    for prefix, component in _DOTTED_PREFIXES:
        if stem.startswith(prefix):
            inner = stem[len(prefix) :].removeprefix("base_model.model.").removeprefix("text_model.")
            return component, spelling, inner
    if stem.startswith(_UNET_STARTS):
        return Component.UNET, Spelling.PEFT, stem
    if stem.startswith(_TRANSFORMER_STARTS):
        return Component.TRANSFORMER, Spelling.PEFT, stem
    if stem.startswith(("text_model.", "encoder.layers.")):
        return Component.TEXT_ENCODER, Spelling.PEFT, stem.removeprefix("text_model.")
    return None


class ModuleIndex:
    """Finds the base model's module that a LoRA's module name means.

    Args:
        shapes: per component, module name (without `text_model.`) -> shape of its weight, [out, in] or
            [out, in, kernel, kernel].
    """

    def __init__(self, shapes: Mapping[Component, Mapping[str, Shape]]) -> None:
        self.shapes = shapes
        self._flat: dict[Component, dict[str, str]] = {}
        for component, modules in shapes.items():
            flat = {name.replace(".", "_"): name for name in modules}
            if component is Component.UNET:
                flat |= {alias.replace(".", "_"): name for alias, name in training_aliases(modules).items()}
            self._flat[component] = flat

    def find(self, module: LoraModule) -> str | None:
        """The base module's name, or None where the base model has no such module."""
        if module.spelling is Spelling.KOHYA:
            return self._flat.get(module.component, {}).get(module.name)
        return module.name if module.name in self.shapes.get(module.component, {}) else None


_RESNET_ALIASES = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_OUTER_ALIASES = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}


def training_aliases(modules: Iterable[str]) -> dict[str, str]:
    """Block names of the original training code (`input_blocks.4.1.proj_in`) -> diffusers module names.

    The numbering counts resnets and samplers one after another, so it follows from the modules that are there.
    """
    names = list(modules)
    per_block = 1 + max((int(parts[3]) for name in names if (parts := _block_parts(name, "down_blocks"))), default=0)
    attended = {name.rsplit(".attentions.", 1)[0] for name in names if ".attentions." in name}
    aliases: dict[str, str] = {}
    for name in names:
        alias = _OUTER_ALIASES.get(name) or _block_alias(name, per_block, attended)
        if alias:
            aliases[alias] = name
    return aliases


def _block_parts(name: str, blocks: str) -> list[str] | None:
    parts = name.split(".")
    if len(parts) > 4 and parts[0] == blocks and parts[2] == "resnets" and parts[1].isdigit() and parts[3].isdigit():
        return parts
    return None


def _block_alias(name: str, per_block: int, attended: set[str]) -> str | None:
    parts = name.split(".")
    if parts[0] == "mid_block" and len(parts) > 3 and parts[2].isdigit():
        slot = 1 if parts[1] == "attentions" else 2 * int(parts[2])
        return f"middle_block.{slot}.{_inner(parts[1], parts[3:])}"
    if parts[0] not in ("down_blocks", "up_blocks") or len(parts) < 5:
        return None
    if not (parts[1].isdigit() and parts[3].isdigit()):
        return None
    block, kind, layer = int(parts[1]), parts[2], int(parts[3])
    if parts[0] == "down_blocks":
        if kind == "downsamplers":
            return f"input_blocks.{(per_block + 1) * (block + 1)}.0.op"
        number = (per_block + 1) * block + layer + 1
        return f"input_blocks.{number}.{int(kind == 'attentions')}.{_inner(kind, parts[4:])}"
    if kind == "upsamplers":
        slot = 1 + int(f"up_blocks.{block}" in attended)
        return f"output_blocks.{(per_block + 1) * block + per_block}.{slot}.conv"
    number = (per_block + 1) * block + layer
    return f"output_blocks.{number}.{int(kind == 'attentions')}.{_inner(kind, parts[4:])}"


def _inner(kind: str, rest: list[str]) -> str:
    inner = ".".join(rest)
    return _RESNET_ALIASES.get(inner, inner) if kind == "resnets" else inner

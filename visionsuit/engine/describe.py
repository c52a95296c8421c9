"""Facts about a weights file, read off its header: family, ranks, format, what it adapts. Pure functions, no torch."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from visionsuit.engine.base import Family
from visionsuit.engine.header import TensorInfo, metadata_of, tensors_of
from visionsuit.engine.lora_names import Component, LoraModule, Part, Spelling, parse_names

_MAX_TEXT = 200
_TEXT_ENCODERS = {Component.TEXT_ENCODER, Component.TEXT_ENCODER_2, Component.TEXT_ENCODER_3}
_LYCORIS_PARTS = {Part.LOHA: "loha", Part.LOKR: "lokr", Part.OFT: "oft", Part.FULL: "full", Part.BIAS: "full"}
#: Trainer's metadata key -> name of the fact.
_TRAINING_FACTS = {
    "ss_output_name": "output_name",
    "ss_base_model_version": "base_model_version",
    "ss_sd_model_name": "trained_on",
    "ss_resolution": "resolution",
    "ss_num_epochs": "epochs",
    "ss_num_train_images": "images",
    "ss_steps": "steps",
    "ss_learning_rate": "learning_rate",
    "ss_optimizer": "optimizer",
    "ss_clip_skip": "clip_skip",
    "modelspec.title": "title",
    "modelspec.author": "author",
    "modelspec.architecture": "architecture",
    "modelspec.license": "license",
    "modelspec.trigger_phrase": "trigger",
    "modelspec.date": "date",
}
#: Width of the text embedding -> the model that people know by it.
MODELS_BY_WIDTH = {192: "VisionSuit Demo", 768: "SD 1.5", 1024: "SD 2.1", 2048: "SDXL"}
_LAYER_NAMES = (
    "to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj", "proj_in", "proj_out",
    "ff.net.0.proj", "ff.net.2", "fc1", "fc2", "conv1", "conv2", "conv_shortcut", "time_emb_proj", "conv",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LoraDescription:
    """What a file is.

    `kind` is `lora`, `locon`, `dora`, `loha`, `lokr`, `oft`, `full`, or None when it is no adapter. `parameters` counts
    numbers, `modules` adapted layers per component, `cross_attention` is the width of the text embedding.
    """

    family: Family
    base_model: str | None
    kind: str | None
    format: str | None
    rank: int | None
    ranks: tuple[int, ...]
    alpha: float | None
    modules: dict[str, int]
    targets: tuple[str, ...]
    text_encoder: bool
    convolutions: bool
    dtype: str | None
    parameters: int
    cross_attention: int | None
    training: dict[str, str]
    tags: tuple[str, ...]

    def as_facts(self) -> dict[str, Any]:
        """JSON for a card; what is not known is left out."""
        facts = {
            "family": self.family.value,
            "base_model": self.base_model,
            "kind": self.kind,
            "format": self.format,
            "rank": self.rank,
            "ranks": list(self.ranks) if len(self.ranks) > 1 else None,
            "alpha": self.alpha,
            "modules": self.modules,
            "targets": list(self.targets),
            "text_encoder": self.text_encoder,
            "convolutions": self.convolutions,
            "dtype": self.dtype,
            "parameters": self.parameters,
            "cross_attention": self.cross_attention,
            "training": self.training,
            "tags": list(self.tags),
        }
        return {key: value for key, value in facts.items() if value not in (None, [], {})}


def describe_lora(
    header: Mapping[str, Any], metadata: Mapping[str, str] | None = None, *, modules: list[LoraModule] | None = None
) -> LoraDescription:
    """Describe a safetensors header (raw, or names -> TensorInfo). Never raises on hostile content.

    Args:
        metadata: the header's `__metadata__`; taken from the header when not given.
        modules: the parsed names, where the caller has them.
    """
    metadata = metadata_of({"__metadata__": metadata}) if metadata is not None else metadata_of(header)
    tensors = tensors_of(header)
    if modules is None:
        modules = parse_names(tensors)[0]
    adapted = [module for module in modules if module.keys.keys() - {Part.ALPHA}]
    ranks = Counter(rank for module in adapted if (rank := _rank(module, tensors)))
    width = _cross_attention(adapted, tensors)
    counts = Counter(module.component.value for module in adapted)
    family = _family(adapted, width, metadata)
    return LoraDescription(
        family=family,
        base_model=_base_model(family, width, metadata),
        kind=_kind(adapted, tensors),
        format=Counter(module.spelling for module in adapted).most_common(1)[0][0].value if adapted else None,
        rank=ranks.most_common(1)[0][0] if ranks else None,
        ranks=tuple(sorted(ranks)),
        alpha=_number(metadata.get("ss_network_alpha")) or _adapter_alpha(metadata),
        modules=dict(counts),
        targets=_targets(adapted),
        text_encoder=any(module.component in _TEXT_ENCODERS for module in adapted),
        convolutions=any(_is_conv(module, tensors) for module in adapted),
        dtype=_dtype(tensors),
        parameters=sum(math.prod(tensor.shape) for tensor in tensors.values()),
        cross_attention=width,
        training={
            fact: metadata[key][:_MAX_TEXT]
            for key, fact in _TRAINING_FACTS.items()
            if metadata.get(key) not in (None, "", "None")
        },
        tags=_tags(metadata),
    )


def guess_kind(header: Mapping[str, Any]) -> str | None:
    """Card type of a weights file: LORA, LYCORIS, CHECKPOINT, TEXTUAL_INVERSION, or None when it is not clear."""
    tensors = tensors_of(header)
    adapted = [module for module in parse_names(tensors)[0] if module.keys.keys() - {Part.ALPHA}]
    kind = _kind(adapted, tensors)
    if kind in ("lora", "dora"):
        return "LORA"
    if kind is not None:
        return "LYCORIS"
    if any(name.startswith(("model.diffusion_model.", "first_stage_model.", "down_blocks.")) for name in tensors):
        return "CHECKPOINT"
    if 0 < len(tensors) <= 4 and any(name in ("emb_params", "clip_l", "clip_g", "<concept>") for name in tensors):
        return "TEXTUAL_INVERSION"
    return None


def _rank(module: LoraModule, tensors: Mapping[str, TensorInfo]) -> int | None:
    key = module.keys.get(Part.DOWN)
    shape = tensors[key].shape if key else ()
    return shape[0] if shape and 0 < shape[0] < 2**20 else None


def _kind(modules: list[LoraModule], tensors: Mapping[str, TensorInfo]) -> str | None:
    parts = {part for module in modules for part in module.keys}
    for part, kind in _LYCORIS_PARTS.items():
        if part in parts:
            return kind
    if Part.DORA in parts:
        return "dora"
    if Part.DOWN not in parts:
        return None
    kohya = any(module.spelling is Spelling.KOHYA for module in modules)
    return "locon" if kohya and any(_is_conv(module, tensors) for module in modules) else "lora"


def _is_conv(module: LoraModule, tensors: Mapping[str, TensorInfo]) -> bool:
    key = module.keys.get(Part.MID) or module.keys.get(Part.DOWN)
    return key is not None and any(side > 1 for side in tensors[key].shape[2:])


def _cross_attention(modules: list[LoraModule], tensors: Mapping[str, TensorInfo]) -> int | None:
    """Input width of the cross attention's keys, which tells SD 1.x (768), SD 2.x (1024) and SDXL (2048) apart."""
    for module in modules:
        key = module.keys.get(Part.DOWN)
        if module.component is Component.UNET and key and re.search(r"attn2[._]to_[kv]$", module.name):
            shape = tensors[key].shape
            if len(shape) >= 2:
                return shape[1]
    return None


def _family(modules: list[LoraModule], width: int | None, metadata: Mapping[str, str]) -> Family:
    version = " ".join((metadata.get("modelspec.architecture", ""), metadata.get("ss_base_model_version", ""))).lower()
    for family, spellings in (
        (Family.FLUX, ("flux",)),
        (Family.SD3, ("stable-diffusion-3", "stable-diffusion-v3", "sd3")),
        (Family.SDXL, ("stable-diffusion-xl", "sdxl")),
        (Family.SD2, ("stable-diffusion-v2", "sd_v2", "sd_2")),
        (Family.SD1, ("stable-diffusion-v1", "sd_v1", "sd_1")),
    ):
        if any(spelling in version for spelling in spellings):
            return family
    return _family_from_modules(modules, width)


def _family_from_modules(modules: list[LoraModule], width: int | None) -> Family:
    names = [module.name for module in modules if module.component in (Component.UNET, Component.TRANSFORMER)]
    if any(re.match(r"(double|single)_?blocks|single_transformer_blocks", name) for name in names):
        return Family.FLUX
    if any(name.startswith("joint_blocks") for name in names):
        return Family.SD3
    if any(module.component is Component.TRANSFORMER for module in modules):
        return Family.SD3 if any(module.component is Component.TEXT_ENCODER_3 for module in modules) else Family.OTHER
    if width in (768, 1024, 2048):
        return {768: Family.SD1, 1024: Family.SD2, 2048: Family.SDXL}[width]
    if any(module.component is Component.TEXT_ENCODER_2 for module in modules):
        return Family.SDXL
    if any(re.search(r"(attentions|blocks)[._]\d+[._](\d+[._])?transformer_blocks[._][1-9]", name) for name in names):
        return Family.SDXL
    if names or any(module.component is Component.TEXT_ENCODER for module in modules):
        return Family.SD1
    return Family.OTHER


def _base_model(family: Family, width: int | None, metadata: Mapping[str, str]) -> str | None:
    text = " ".join(metadata.get(key, "") for key in ("ss_base_model_version", "ss_sd_model_name", "modelspec.title"))
    for spelling, label in (("pony", "Pony"), ("illustrious", "Illustrious"), ("noob", "NoobAI")):
        if family is Family.SDXL and spelling in text.lower():
            return label
    if family in (Family.SD3, Family.FLUX):
        return {Family.SD3: "SD 3", Family.FLUX: "Flux"}[family]
    if width in MODELS_BY_WIDTH:
        return MODELS_BY_WIDTH[width]
    # Without cross attention layers the trainer's word is all there is.
    version = metadata.get("ss_base_model_version") or metadata.get("modelspec.architecture")
    return {Family.SD1: "SD 1.5", Family.SD2: "SD 2.1", Family.SDXL: "SDXL"}.get(family) if version else None


def _targets(modules: list[LoraModule]) -> tuple[str, ...]:
    found: set[str] = set()
    for module in modules:
        for layer in _LAYER_NAMES:
            if module.name.endswith((f".{layer}", f"_{layer.replace('.', '_')}")):
                found.add(layer)
                break
    return tuple(sorted(found))


def _dtype(tensors: Mapping[str, TensorInfo]) -> str | None:
    # Alphas are scalars and often of another type than the weights.
    counted = Counter(tensor.dtype for tensor in tensors.values() if tensor.shape)
    return counted.most_common(1)[0][0][:16] if counted else None


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text else None
    except ValueError:
        return None
    return number if number is not None and math.isfinite(number) else None


def _adapter_alpha(metadata: Mapping[str, str]) -> float | None:
    config = _json_object(metadata.get("lora_adapter_metadata"))
    for key in ("unet.lora_alpha", "lora_alpha", "transformer.lora_alpha"):
        value = config.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    return None


def _tags(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The commonest caption tags of kohya's `ss_tag_frequency`."""
    counted: Counter[str] = Counter()
    for folder in _json_object(metadata.get("ss_tag_frequency")).values():
        if isinstance(folder, dict):
            for tag, count in folder.items():
                if isinstance(count, int) and 0 < count < 2**40:
                    counted[tag.strip()[:_MAX_TEXT]] += count
    return tuple(tag for tag, _ in counted.most_common(20) if tag)


def _json_object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}

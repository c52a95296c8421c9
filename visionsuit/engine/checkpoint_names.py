"""What the tensors of a checkpoint in one file are called in diffusers' models. No torch.

SD 1.x, SD 2.x and SDXL came in the layout of their training code: blocks are numbered one after another, the VAE's
attention is a convolution, and OpenCLIP keeps query, key and value in one matrix.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from visionsuit.engine.lora_names import Component, Shape

UNET = "model.diffusion_model."
VAE = "first_stage_model."
#: What a checkpoint is made of; `vae` takes no LoRA.
PARTS = (Component.UNET, "vae", Component.TEXT_ENCODER, Component.TEXT_ENCODER_2)
_CLIP = (
    "cond_stage_model.transformer.text_model.",
    "cond_stage_model.transformer.",
    "conditioner.embedders.0.transformer.text_model.",
    "conditioner.embedders.0.transformer.",
)
OPEN_CLIP = "cond_stage_model.model."
OPEN_CLIP_2 = "conditioner.embedders.1.model."
_RESNET = (
    ("in_layers.0.", "norm1."),
    ("in_layers.2.", "conv1."),
    ("out_layers.0.", "norm2."),
    ("out_layers.3.", "conv2."),
    ("emb_layers.1.", "time_emb_proj."),
    ("skip_connection.", "conv_shortcut."),
    ("nin_shortcut.", "conv_shortcut."),
)
_UNET_ENDS = (
    ("time_embed.0.", "time_embedding.linear_1."),
    ("time_embed.2.", "time_embedding.linear_2."),
    ("label_emb.0.0.", "add_embedding.linear_1."),
    ("label_emb.0.2.", "add_embedding.linear_2."),
    ("input_blocks.0.0.", "conv_in."),
    ("out.0.", "conv_norm_out."),
    ("out.2.", "conv_out."),
)
_VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_OPEN_CLIP_ENDS = (
    ("token_embedding.", "embeddings.token_embedding."),
    ("ln_final.", "final_layer_norm."),
    ("text_projection.", "text_projection."),
)
_OPEN_CLIP_LAYER = (
    ("ln_1.", "layer_norm1."),
    ("ln_2.", "layer_norm2."),
    ("attn.out_proj.", "self_attn.out_proj."),
    ("mlp.c_fc.", "mlp.fc1."),
    ("mlp.c_proj.", "mlp.fc2."),
)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a weight lies: the tensor `key`, or a third of it along the first side, perhaps turned, or without the
    kernel of a 1x1 convolution."""

    key: str
    third: int | None = None
    turned: bool = False
    flat: bool = False

    def shape(self, shapes: Mapping[str, Shape]) -> Shape:
        shape = shapes[self.key]
        if self.third is not None:
            return (shape[0] // 3, *shape[1:])
        return shape[::-1] if self.turned else shape[:2] if self.flat else shape


#: part -> diffusers' name (without `text_model.`) -> where it lies
Sources = dict[str, dict[str, Source]]


def find_sources(shapes: Mapping[str, Shape]) -> Sources:
    """Of every tensor that an SD 1.x, SD 2.x or SDXL model needs; what else the file holds is left out."""
    resnets = _resnets_per_block(shapes)
    levels = 1 + max((int(match[1]) for match in _matches(rf"{re.escape(VAE)}decoder\.up\.(\d+)\.", shapes)), default=0)
    last = _last_layer(shapes)
    sources: Sources = {part: {} for part in PARTS}
    for key, shape in shapes.items():
        if key.startswith(UNET):
            _put(sources[Component.UNET], _unet_name(key.removeprefix(UNET), resnets), Source(key))
        elif key.startswith(VAE):
            flat = ".mid.attn_" in key and len(shape) == 4
            _put(sources["vae"], _vae_name(key.removeprefix(VAE), levels), Source(key, flat=flat))
        elif key.startswith(OPEN_CLIP):
            if not key.startswith((f"{OPEN_CLIP}transformer.resblocks.{last}.", f"{OPEN_CLIP}text_projection")):
                # SD 2.x was trained on what comes before the last layer, and never runs that.
                _put_open_clip(sources[Component.TEXT_ENCODER], key, key.removeprefix(OPEN_CLIP))
        elif key.startswith(OPEN_CLIP_2):
            _put_open_clip(sources[Component.TEXT_ENCODER_2], key, key.removeprefix(OPEN_CLIP_2))
        elif prefix := next((prefix for prefix in _CLIP if key.startswith(prefix)), None):
            name = key.removeprefix(prefix)
            if name.startswith(("embeddings.", "encoder.", "final_layer_norm.")) and not name.endswith("position_ids"):
                _put(sources[Component.TEXT_ENCODER], name, Source(key))
    return {part: found for part, found in sources.items() if found}


def _put(found: dict[str, Source], name: str | None, source: Source) -> None:
    if name is not None:
        found[name] = source


def _matches(pattern: str, keys: Iterable[str]) -> list[re.Match[str]]:
    return [match for key in keys if (match := re.match(pattern, key))]


def _resnets_per_block(keys: Iterable[str]) -> int:
    """The first sampler stands behind the first block's resnets, which stand behind the first convolution."""
    keys = list(keys)
    samplers = _matches(rf"{re.escape(UNET)}input_blocks\.(\d+)\.0\.op\.", keys)
    if samplers:
        return max(1, min(int(match[1]) for match in samplers) - 1)
    blocks = _matches(rf"{re.escape(UNET)}input_blocks\.(\d+)\.", keys)
    return max([1, *(int(match[1]) for match in blocks)])


def _last_layer(keys: Iterable[str]) -> int:
    layers = _matches(rf"{re.escape(OPEN_CLIP)}transformer\.resblocks\.(\d+)\.", keys)
    return max((int(match[1]) for match in layers), default=-1)


def _replace_start(name: str, pairs: Iterable[tuple[str, str]]) -> str | None:
    for old, new in pairs:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return None


def _unet_name(name: str, resnets: int) -> str | None:
    end = _replace_start(name, _UNET_ENDS)
    if end is not None:
        return end
    match = re.match(r"(input_blocks|output_blocks|middle_block)\.(\d+)\.(.+)", name)
    if match is None:
        return None
    number, rest = int(match[2]), match[3]
    if match[1] == "middle_block":
        return f"mid_block.attentions.0.{rest}" if number == 1 else f"mid_block.resnets.{number // 2}.{_resnet(rest)}"
    slot, _, inner = rest.partition(".")
    block, layer = divmod(number - (match[1] == "input_blocks"), resnets + 1)
    side = "down_blocks" if match[1] == "input_blocks" else "up_blocks"
    if inner.startswith("op."):
        return f"{side}.{block}.downsamplers.0.conv.{inner.removeprefix('op.')}"
    if inner.startswith("conv."):
        return f"{side}.{block}.upsamplers.0.{inner}"
    if slot == "0":
        return f"{side}.{block}.resnets.{layer}.{_resnet(inner)}"
    return f"{side}.{block}.attentions.{layer}.{inner}" if slot == "1" else None


def _resnet(inner: str) -> str:
    return _replace_start(inner, _RESNET) or inner


def _vae_name(name: str, levels: int) -> str | None:
    if name.startswith(("quant_conv.", "post_quant_conv.")):
        return name
    side, _, rest = name.partition(".")
    if side not in ("encoder", "decoder"):
        return None
    if match := re.match(r"(down|up)\.(\d+)\.block\.(\d+)\.(.+)", rest):
        return f"{side}.{_vae_block(match, levels)}.resnets.{match[3]}.{_resnet(match[4])}"
    if match := re.match(r"(down|up)\.(\d+)\.(downsample|upsample)\.(.+)", rest):
        return f"{side}.{_vae_block(match, levels)}.{match[3]}rs.0.{match[4]}"
    if match := re.match(r"mid\.block_(\d+)\.(.+)", rest):
        return f"{side}.mid_block.resnets.{int(match[1]) - 1}.{_resnet(match[2])}"
    if match := re.match(r"mid\.attn_1\.(\w+)\.(.+)", rest):
        return f"{side}.mid_block.attentions.0.{_VAE_ATTENTION.get(match[1], match[1])}.{match[2]}"
    if rest.startswith("norm_out."):
        return f"{side}.conv_{rest}"
    return name if rest.startswith(("conv_in.", "conv_out.")) else None


def _vae_block(match: re.Match[str], levels: int) -> str:
    # The decoder's blocks are numbered from the picture inwards, and run the other way.
    number = int(match[2])
    return f"down_blocks.{number}" if match[1] == "down" else f"up_blocks.{levels - 1 - number}"


def _put_open_clip(found: dict[str, Source], key: str, name: str) -> None:
    if name == "positional_embedding":
        found["embeddings.position_embedding.weight"] = Source(key)
    elif name == "text_projection":
        found["text_projection.weight"] = Source(key, turned=True)
    elif match := re.match(r"transformer\.resblocks\.(\d+)\.(.+)", name):
        layer = f"encoder.layers.{match[1]}"
        if match[2] in ("attn.in_proj_weight", "attn.in_proj_bias"):
            for third, part in enumerate("qkv"):
                found[f"{layer}.self_attn.{part}_proj.{match[2].rpartition('_')[2]}"] = Source(key, third)
        elif (inner := _replace_start(match[2], _OPEN_CLIP_LAYER)) is not None:
            found[f"{layer}.{inner}"] = Source(key)
    elif (end := _replace_start(name, _OPEN_CLIP_ENDS)) is not None:
        found[end] = Source(key)

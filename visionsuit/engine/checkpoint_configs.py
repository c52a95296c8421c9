"""Configurations of the models inside a checkpoint, from the shapes of their weights. No torch.

What no shape tells is what all models of the family have in common: heads, groups of the norms, activations.
"""

from collections.abc import Mapping
from typing import Any

from visionsuit.engine.base import Family
from visionsuit.engine.lora_names import Component, Shape

#: Pixels of a side that the family was trained on.
SIDES = {Family.SD1: 512, Family.SD2: 512, Family.SDXL: 1024}
_SCALES = {Family.SD1: 0.18215, Family.SD2: 0.18215, Family.SDXL: 0.13025}
_HEAD_WIDTH = 64

Shapes = Mapping[str, Shape]


def configure(
    family: Family, parts: Mapping[str, Shapes], *, side: int, prediction_type: str, zero_snr: bool
) -> dict[str, dict[str, Any]]:
    """Part -> configuration, with `scheduler`.

    Raises:
        KeyError, IndexError, ValueError: a weight is missing or has a shape that makes no sense.
    """
    vae = _vae(parts["vae"], family)
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    text = _text_encoder(parts[Component.TEXT_ENCODER], "gelu" if family is Family.SD2 else "quick_gelu")
    second = _text_encoder(parts[Component.TEXT_ENCODER_2], "gelu") if family is Family.SDXL else None
    pooled = second["projection_dim"] if second else 0
    configs = {
        "unet": _unet(parts[Component.UNET], family, side // factor, pooled),
        "vae": vae | {"sample_size": side},
        "text_encoder": text,
        "scheduler": {
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "num_train_timesteps": 1000,
            "prediction_type": prediction_type,
            "steps_offset": 1,
            "clip_sample": False,
            "set_alpha_to_one": False,
            "timestep_spacing": "trailing" if zero_snr else "leading",
            "rescale_betas_zero_snr": zero_snr,
        },
    }
    return configs | ({"text_encoder_2": second} if second else {})


def _unet(shapes: Shapes, family: Family, sample_size: int, pooled: int) -> dict[str, Any]:
    levels = _count(shapes, "down_blocks.", 1)
    widths = [shapes[f"down_blocks.{level}.resnets.0.conv1.weight"][0] for level in range(levels)]
    depths = [_depth(shapes, f"down_blocks.{level}") for level in range(levels)]
    ascending = [_depth(shapes, f"up_blocks.{level}") for level in range(levels)]
    mid = _depth(shapes, "mid_block")
    attended = "down_blocks.{}" if any(depths) else "mid_block"
    first = next((attended.format(level) for level in range(levels) if depths[level]), "mid_block")
    block = f"{first}.attentions.0"
    config: dict[str, Any] = {
        "sample_size": sample_size,
        "in_channels": shapes["conv_in.weight"][1],
        "out_channels": shapes["conv_out.weight"][0],
        "block_out_channels": widths,
        "layers_per_block": _count(shapes, "down_blocks.0.resnets.", 3),
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in ascending],
        "cross_attention_dim": shapes[f"{block}.transformer_blocks.0.attn2.to_k.weight"][1],
        "use_linear_projection": len(shapes[f"{block}.proj_in.weight"]) == 2,
        # diffusers takes these numbers as counts of heads.
        "attention_head_dim": 8 if family is Family.SD1 else [max(1, width // _HEAD_WIDTH) for width in widths],
        # The middle block is as deep as the last one says, even where that has no attention.
        "transformer_layers_per_block": [*(depth or 1 for depth in depths[:-1]), depths[-1] or mid],
    }
    if family is Family.SDXL:
        inputs = shapes["add_embedding.linear_1.weight"][1]
        config |= {
            "addition_embed_type": "text_time",
            # Six numbers (sizes and crop) behind the pooled prompt.
            "addition_time_embed_dim": (inputs - pooled) // 6,
            "projection_class_embeddings_input_dim": inputs,
        }
    return config


def _vae(shapes: Shapes, family: Family) -> dict[str, Any]:
    levels = _count(shapes, "encoder.down_blocks.", 2)
    return {
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "block_out_channels": [
            shapes[f"encoder.down_blocks.{level}.resnets.0.conv1.weight"][0] for level in range(levels)
        ],
        "layers_per_block": _count(shapes, "encoder.down_blocks.0.resnets.", 4),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "scaling_factor": _SCALES[family],
        "force_upcast": family is Family.SDXL,
    }


def _text_encoder(shapes: Shapes, activation: str) -> dict[str, Any]:
    words, width = shapes["embeddings.token_embedding.weight"]
    projection = shapes.get("text_projection.weight")
    return {
        "vocab_size": words,
        "hidden_size": width,
        "intermediate_size": shapes["encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": _count(shapes, "encoder.layers.", 2),
        "num_attention_heads": max(1, width // _HEAD_WIDTH),
        "max_position_embeddings": shapes["embeddings.position_embedding.weight"][0],
        "hidden_act": activation,
        "projection_dim": projection[0] if projection else width,
        "bos_token_id": words - 2,
        "eos_token_id": words - 1,
        "pad_token_id": 1,
    }


def _count(shapes: Shapes, prefix: str, place: int) -> int:
    """How many blocks there are whose number stands at `place` of the dotted name."""
    numbers = {int(name.split(".")[place]) for name in shapes if name.startswith(prefix)}
    if not numbers or numbers != set(range(len(numbers))):
        raise ValueError(prefix)
    return len(numbers)


def _depth(shapes: Shapes, block: str) -> int:
    prefix = f"{block}.attentions.0.transformer_blocks."
    place = prefix.count(".")
    return _count(shapes, prefix, place) if any(name.startswith(prefix) for name in shapes) else 0

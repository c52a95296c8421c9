"""A tiny Flux, and LoRAs for it as trainers write them: real classes, random weights."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from safetensors.torch import save_file
from transformers import CLIPTextModel

from tests.engine.tiny_sd3 import make_tiny_sd3
from visionsuit.engine.compat import read_base_shapes
from visionsuit.engine.lora_names import Component, Shape

Spelling = Literal["diffusers", "kohya", "comfy", "peft"]
_DOUBLE = ("img_attn.qkv", "txt_attn.qkv", "img_attn.proj", "txt_attn.proj", "img_mlp.0", "txt_mlp.2", "img_mod.lin")
#: What diffusers cannot convert at this width: it takes every Flux for as wide as the first.
_WIDE = ("linear1",)
_SINGLE = ("linear2", "modulation.lin")
_TEXT = ("q_proj", "v_proj", "out_proj", "fc1")


def make_tiny_flux(folder: Path) -> Path:
    """A FluxPipeline folder; CLIP and T5 of the tiny SD 3."""
    parts = make_tiny_sd3(folder.with_name("parts"), t5=True)
    torch.manual_seed(1)
    FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=96, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8),
    ).save_pretrained(folder / "transformer")  # fmt: skip
    AutoencoderKL(
        block_out_channels=(8, 8, 8, 16), layers_per_block=1, norm_num_groups=4, latent_channels=4, sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False,
    ).save_pretrained(folder / "vae")  # fmt: skip
    CLIPTextModel.from_pretrained(parts / "text_encoder").save_pretrained(folder / "text_encoder")
    for source, target in (
        ("tokenizer", "tokenizer"), ("text_encoder_3", "text_encoder_2"), ("tokenizer_3", "tokenizer_2"),
    ):  # fmt: skip
        shutil.copytree(parts / source, folder / target)
    FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "FluxPipeline",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "PreTrainedTokenizerFast"],
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "visionsuit.json").write_text(json.dumps({"default": {"width": 64, "height": 64}, "min_size": 64}))
    return folder


def make_flux_lora(
    path: Path,
    folder: Path,
    spelling: Spelling = "diffusers",
    *,
    text_encoder: bool = False,
    rank: int = 4,
    alpha: float | None = None,
    seed: int = 0,
    strength: float = 1.0,
    only: str = "",
    wide: bool = False,
) -> str:
    """Write a LoRA for the tiny Flux, none of its weights zero. Returns the file's SHA-256.

    Args:
        spelling: `kohya` with Flux's own names for its layers, `comfy` the same with dots, `diffusers` with what PEFT
            says of alpha in the header, `peft` bare.
        alpha: the rank if None.
        only: part of the names of the layers it adapts.
        wide: also the layers of which diffusers makes four.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    alpha = float(rank if alpha is None else alpha)
    tensors: dict[str, torch.Tensor] = {}
    for component, name, shape in _targets(folder, spelling, text_encoder, wide):
        if only not in name:
            continue
        down = torch.randn(rank, *shape[1:], generator=generator) / (shape[1] ** 0.5)
        up = torch.randn(shape[0], rank, generator=generator) * (strength / rank**0.5)
        if spelling in ("kohya", "comfy"):
            stem = f"{_PREFIXES[spelling, component]}{name.replace('.', '_') if spelling == 'kohya' else name}"
            tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
            tensors[f"{stem}.alpha"] = torch.tensor(alpha)
        else:
            stem = f"base_model.model.{name}" if spelling == "peft" else f"{component}.{name}"
            tensors |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
    metadata = {"format": "pt"}
    if spelling == "diffusers":
        metadata["lora_adapter_metadata"] = json.dumps(
            {
                f"{component}.{key}": value
                for component, targets in (
                    ("transformer", _transformer_targets(tensors)),
                    ("text_encoder", list(_TEXT)),
                )
                for key, value in {"r": rank, "lora_alpha": alpha, "target_modules": targets}.items()
                if any(name.startswith(f"{component}.") for name in tensors)
            }
        )
    save_file({name: tensor.to(torch.float16).contiguous() for name, tensor in tensors.items()}, path, metadata)
    return hashlib.sha256(path.read_bytes()).hexdigest()


_PREFIXES = {
    ("kohya", Component.TRANSFORMER): "lora_unet_",
    ("kohya", Component.TEXT_ENCODER): "lora_te1_",
    ("comfy", Component.TRANSFORMER): "diffusion_model.",
    ("comfy", Component.TEXT_ENCODER): "text_encoders.clip_l.transformer.",
}


def _targets(folder: Path, spelling: Spelling, text_encoder: bool, wide: bool) -> list[tuple[Component, str, Shape]]:
    shapes = read_base_shapes(folder).index.shapes
    transformer = shapes[Component.TRANSFORMER]
    fused = {
        f"{blocks}.0.{layer}"
        for blocks, layers in (("double_blocks", _DOUBLE), ("single_blocks", (*_SINGLE, *(_WIDE if wide else ()))))
        for layer in layers
    }
    chosen = (
        fused
        if spelling in ("kohya", "comfy")
        else {name for name in transformer if name.startswith(("transformer_blocks.", "single_transformer_blocks."))}
    )
    found = [(Component.TRANSFORMER, name, transformer[name]) for name in sorted(chosen)]
    if text_encoder:
        found += [
            (Component.TEXT_ENCODER, f"text_model.{name}", shape)
            for name, shape in sorted(shapes[Component.TEXT_ENCODER].items())
            if name.endswith(_TEXT)
        ]
    return found


def _transformer_targets(tensors: dict[str, Any]) -> list[str]:
    return sorted(
        {name.removeprefix("transformer.").rsplit(".lora_", 1)[0] for name in tensors if "transformer." in name}
    )

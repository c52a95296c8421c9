"""Tiny models that have what all of their family have in common (CLIP's vocabulary, 32 norm groups, heads), and their
checkpoints in one file, in the layout of the original training code."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from visionsuit.engine.base import Family
from visionsuit.engine.clip_vocabulary import clip_vocabulary

_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


def make_model(folder: Path, family: Family, *, prediction_type: str = "epsilon", seed: int = 0) -> Path:
    """A diffusers folder: 8 pixels a latent, text widths 64, 128 for SD 2, both for SDXL."""
    torch.manual_seed(seed)
    is_xl, width = family is Family.SDXL, 128 if family is Family.SD2 else 64
    unet = UNet2DConditionModel(
        sample_size=128 if is_xl else 64,
        block_out_channels=(64, 128) if is_xl else (32, 64),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D") if is_xl else ("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D") if is_xl else ("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=8 if family is Family.SD1 else (1, 2) if is_xl else (1, 1),
        cross_attention_dim=64 + 128 if is_xl else width,
        use_linear_projection=family is not Family.SD1,
        transformer_layers_per_block=(1, 2) if is_xl else 1,
        **(
            {
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 8,
                "projection_class_embeddings_input_dim": 128 + 6 * 8,
            }
            if is_xl
            else {}
        ),
    )
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if ".attn2." in name:
                parameter.mul_(3)  # fresh cross attention hardly listens to the prompt
    unet.save_pretrained(folder / "unet")
    AutoencoderKL(
        block_out_channels=(32, 32, 32, 64), layers_per_block=1, latent_channels=4, sample_size=512,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=0.13025 if is_xl else 0.18215,
    ).save_pretrained(folder / "vae")  # fmt: skip
    _save_text_encoder(folder, "", CLIPTextModel, width, "gelu" if family is Family.SD2 else "quick_gelu")
    parts: dict[str, Any] = {"text_encoder": ["transformers", "CLIPTextModel"]}
    if is_xl:
        _save_text_encoder(folder, "_2", CLIPTextModelWithProjection, 128, "gelu")
        parts |= {
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "force_zeros_for_empty_prompt": True,
        }
    else:
        parts["safety_checker"] = [None, None]
    DDIMScheduler(
        **_BETAS, prediction_type=prediction_type, steps_offset=1, clip_sample=False, set_alpha_to_one=False
    ).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionXLPipeline" if is_xl else "StableDiffusionPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        **parts,
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _save_text_encoder(folder: Path, suffix: str, encoder_class: Any, width: int, activation: str) -> None:
    config = CLIPTextConfig(
        vocab_size=49408, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=3,
        num_attention_heads=width // 64, projection_dim=width, hidden_act=activation,
        bos_token_id=49406, eos_token_id=49407, pad_token_id=1,
    )  # fmt: skip
    encoder = encoder_class(config)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "embedding" in name:
                parameter.normal_(0, 1)
    encoder.save_pretrained(folder / f"text_encoder{suffix}")
    pad = "!" if activation == "gelu" else "<|endoftext|>"
    tokenizer = CLIPTokenizer(*clip_vocabulary(), model_max_length=77, pad_token=pad)
    tokenizer.save_pretrained(folder / f"tokenizer{suffix}")


def write_checkpoint(
    path: Path, folder: Path, *, dtype: torch.dtype = torch.float32, metadata: dict[str, str] | None = None
) -> Path:
    """The folder's weights as the training code writes them."""
    tensors = {name: tensor.to(dtype).contiguous() for name, tensor in original_weights(folder).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata=metadata)
    return path


def original_weights(folder: Path) -> dict[str, torch.Tensor]:
    config = json.loads((folder / "unet" / "config.json").read_text())
    is_xl, is_sd2 = (folder / "text_encoder_2").is_dir(), config["use_linear_projection"]
    found = {
        f"model.diffusion_model.{unet_name(name, config)}": tensor for name, tensor in _weights(folder, "unet").items()
    }
    for name, tensor in _weights(folder, "vae").items():
        original = vae_name(name)
        is_matrix = ".attn_1." in original and name.endswith("weight") and tensor.dim() == 2
        found[f"first_stage_model.{original}"] = tensor[:, :, None, None] if is_matrix else tensor
    text = {name.removeprefix("text_model."): tensor for name, tensor in _weights(folder, "text_encoder").items()}
    if is_xl:
        found |= {f"conditioner.embedders.0.transformer.text_model.{name}": tensor for name, tensor in text.items()}
        found["conditioner.embedders.0.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
        second = {name.removeprefix("text_model."): t for name, t in _weights(folder, "text_encoder_2").items()}
        found |= {f"conditioner.embedders.1.model.{name}": t for name, t in _open_clip(second).items()}
        found["conditioner.embedders.1.model.logit_scale"] = torch.tensor(4.6)
    elif is_sd2:
        # The published files have one more layer than is used, and a projection.
        extra = {name.replace("layers.2.", "layers.3."): t.clone() for name, t in text.items() if "layers.2." in name}
        found |= {f"cond_stage_model.model.{name}": tensor for name, tensor in _open_clip(text | extra).items()}
        found["cond_stage_model.model.text_projection"] = torch.zeros(128, 128)
    else:
        found |= {f"cond_stage_model.transformer.text_model.{name}": tensor for name, tensor in text.items()}
    found["alphas_cumprod"] = torch.linspace(1, 0, 1000)
    found["model_ema.decay"] = torch.tensor(0.5)
    return found


def _weights(folder: Path, part: str) -> dict[str, torch.Tensor]:
    [file] = (folder / part).glob("*.safetensors")
    return load_file(file)


def unet_name(name: str, config: Mapping[str, Any]) -> str:
    """A weight's name in the training code; `config` of the diffusers UNet."""
    layers = config["layers_per_block"]
    for new, old in (
        ("time_embedding.linear_1", "time_embed.0"), ("time_embedding.linear_2", "time_embed.2"),
        ("add_embedding.linear_1", "label_emb.0.0"), ("add_embedding.linear_2", "label_emb.0.2"),
        ("conv_in", "input_blocks.0.0"), ("conv_norm_out", "out.0"), ("conv_out", "out.2"),
    ):  # fmt: skip
        if name.startswith(f"{new}."):
            return name.replace(new, old, 1)
    if ".resnets." in name:
        for new, old in (
            ("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("norm2", "out_layers.0"), ("conv2", "out_layers.3"),
            ("time_emb_proj", "emb_layers.1"), ("conv_shortcut", "skip_connection"),
        ):  # fmt: skip
            name = name.replace(f".{new}.", f".{old}.")
    name = re.sub(r"mid_block\.attentions\.0", "middle_block.1", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"middle_block.{2 * int(found[1])}", name)
    for block, kind in enumerate(config["up_block_types"]):
        # A sampler stands behind the attention, if there is one.
        slot = 2 if kind.startswith("CrossAttn") else 1
        name = name.replace(
            f"down_blocks.{block}.downsamplers.0.conv", f"input_blocks.{(layers + 1) * (block + 1)}.0.op"
        )
        for layer in range(layers + 1):
            down, up = block * (layers + 1) + layer + 1, block * (layers + 1) + layer
            name = name.replace(f"down_blocks.{block}.resnets.{layer}.", f"input_blocks.{down}.0.")
            name = name.replace(f"down_blocks.{block}.attentions.{layer}.", f"input_blocks.{down}.1.")
            name = name.replace(f"up_blocks.{block}.resnets.{layer}.", f"output_blocks.{up}.0.")
            name = name.replace(f"up_blocks.{block}.attentions.{layer}.", f"output_blocks.{up}.1.")
        last = block * (layers + 1) + layers
        name = name.replace(f"up_blocks.{block}.upsamplers.0.conv.", f"output_blocks.{last}.{slot}.conv.")
    return name


def vae_name(name: str) -> str:
    name = re.sub(r"down_blocks\.(\d)\.resnets\.", r"down.\1.block.", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.", lambda found: f"up.{3 - int(found[1])}.block.", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0\.", r"down.\1.downsample.", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0\.", lambda found: f"up.{3 - int(found[1])}.upsample.", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
    for new, old in (
        ("mid_block.attentions.0.", "mid.attn_1."), ("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"),
        ("to_v", "v"), ("to_out.0", "proj_out"), ("conv_norm_out", "norm_out"), ("conv_shortcut", "nin_shortcut"),
    ):  # fmt: skip
        name = name.replace(new, old)
    return name


def _open_clip(text: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for name, tensor in text.items():
        if "self_attn.q_proj" in name:
            whole = torch.cat([text[name.replace("q_proj", f"{part}_proj")] for part in "qkv"])
            kind = name.rpartition(".")[2]
            found[_resblock(name.split(".self_attn")[0]) + f".attn.in_proj_{kind}"] = whole
        elif "k_proj" in name or "v_proj" in name:
            continue
        elif name == "text_projection.weight":
            found["text_projection"] = tensor.t()
        elif name == "embeddings.position_embedding.weight":
            found["positional_embedding"] = tensor
        else:
            for new, old in (
                ("embeddings.token_embedding", "token_embedding"), ("final_layer_norm", "ln_final"),
                ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"), ("self_attn.out_proj", "attn.out_proj"),
                ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"),
            ):  # fmt: skip
                name = name.replace(new, old)
            found[_resblock(name)] = tensor
    return found


def _resblock(name: str) -> str:
    return name.replace("encoder.layers.", "transformer.resblocks.")

"""Tiny pipelines of other makes that are rendered whole: real classes, random weights."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import ChromaTransformer2DModel, LCMScheduler, PixArtTransformer2DModel, UNet2DConditionModel

from tests.engine.tiny import make_tiny_sd
from tests.engine.tiny_flux import make_tiny_flux

_T5 = {"text_encoder": ["transformers", "T5EncoderModel"], "tokenizer": ["transformers", "PreTrainedTokenizerFast"]}


def make_tiny_chroma(folder: Path) -> Path:
    """A ChromaPipeline folder; VAE and T5 of the tiny Flux."""
    torch.manual_seed(2)
    make_tiny_flux(folder)
    _keep_t5(folder)
    ChromaTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=96, axes_dims_rope=(4, 4, 8), approximator_num_channels=64, approximator_hidden_dim=32,
        approximator_layers=1,
    ).save_pretrained(folder / "transformer")  # fmt: skip
    return _index(folder, "ChromaPipeline", transformer=["diffusers", "ChromaTransformer2DModel"])


def make_tiny_pixart(folder: Path) -> Path:
    """A PixArtAlphaPipeline folder, which takes nothing but a prompt."""
    torch.manual_seed(3)
    make_tiny_flux(folder)
    _keep_t5(folder)
    PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16, in_channels=4, out_channels=8,
        num_layers=1, sample_size=8, patch_size=2, caption_channels=96, use_additional_conditions=False,
    ).save_pretrained(folder / "transformer")  # fmt: skip
    return _index(folder, "PixArtAlphaPipeline", transformer=["diffusers", "PixArtTransformer2DModel"])


def make_tiny_lcm(folder: Path) -> Path:
    """A LatentConsistencyModelPipeline folder: the tiny SD with the UNet told how much guidance is wanted."""
    make_tiny_sd(folder)
    torch.manual_seed(4)
    config = json.loads((folder / "unet" / "config.json").read_text("utf-8"))
    UNet2DConditionModel.from_config(config | {"time_cond_proj_dim": 8}).save_pretrained(folder / "unet")
    LCMScheduler(num_train_timesteps=1000).save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    index |= {"_class_name": "LatentConsistencyModelPipeline", "scheduler": ["diffusers", "LCMScheduler"]}
    (folder / "model_index.json").write_text(json.dumps(index | {"requires_safety_checker": False}))
    return folder


def _keep_t5(folder: Path) -> None:
    for part in ("transformer", "text_encoder", "tokenizer"):
        shutil.rmtree(folder / part)
    for part in ("text_encoder", "tokenizer"):
        (folder / f"{part}_2").rename(folder / part)


def _index(folder: Path, name: str, **parts: list[str]) -> Path:
    common = {"scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"], "vae": ["diffusers", "AutoencoderKL"]}
    index = {"_class_name": name, **common, **_T5, **parts}
    if name == "ChromaPipeline":
        index |= {"feature_extractor": [None, None], "image_encoder": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder

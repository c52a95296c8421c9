"""A tiny Stable Diffusion 3: real classes, random weights, the demo model's words."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from tests.engine.tiny import save_text_encoder

_WORDS = ["<pad>", "</s>", "<unk>", "a", "red", "blue", "heart", "cat", "on", "sofa", "big"]


def make_tiny_sd3(folder: Path, *, t5: bool = False, seed: int = 0) -> Path:
    """A StableDiffusion3Pipeline folder: 8 pixels a latent, two latents a patch."""
    torch.manual_seed(seed)
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=4, joint_attention_dim=96, caption_projection_dim=32, pooled_projection_dim=80,
        pos_embed_max_size=24, qk_norm="rms_norm",
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            # Fresh gates are all but shut, and fresh words hardly heard.
            if "norm" in name and "linear" in name:
                parameter.mul_(8)
            elif "context_embedder" in name or "add_" in name:
                parameter.mul_(3)
    transformer.save_pretrained(folder / "transformer")
    for suffix, width in (("", 32), ("_2", 48)):
        save_text_encoder(folder, suffix, CLIPTextModelWithProjection, width)
    third: dict[str, Any] = {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}
    if t5:
        third = _save_t5(folder)
    AutoencoderKL(
        block_out_channels=(8, 8, 8, 16), layers_per_block=1, norm_num_groups=4, latent_channels=4, sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False,
    ).save_pretrained(folder / "vae")  # fmt: skip
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusion3Pipeline",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "transformer": ["diffusers", "SD3Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        **third,
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _save_t5(folder: Path) -> dict[str, Any]:
    encoder = T5EncoderModel(
        T5Config(vocab_size=len(_WORDS), d_model=96, d_kv=8, d_ff=64, num_layers=2, num_heads=4, pad_token_id=0)
    )
    encoder.save_pretrained(folder / "text_encoder_3")
    make_tokenizer().save_pretrained(folder / "tokenizer_3")
    return {
        "text_encoder_3": ["transformers", "T5EncoderModel"],
        "tokenizer_3": ["transformers", "PreTrainedTokenizerFast"],
    }


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Of the demo model's words, without a begin token."""
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(_WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )

"""Tiny pipelines of the families that are rendered whole, as diffusers saves them: real classes, random weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import (
    AuraFlowTransformer2DModel,
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLQwenImage,
    CogVideoXDDIMScheduler,
    CogView3PlusTransformer2DModel,
    CogView4Transformer2DModel,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    HunyuanDiT2DModel,
    Kandinsky3UNet,
    Lumina2Transformer2DModel,
    LuminaNextDiT2DModel,
    PixArtTransformer2DModel,
    QwenImageTransformer2DModel,
    SanaTransformer2DModel,
    VQModel,
)
from transformers import (
    BertConfig,
    BertModel,
    Gemma2Config,
    Gemma2Model,
    GlmConfig,
    GlmModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    T5Config,
    T5EncoderModel,
)

from tests.engine.tiny_sd3 import make_tokenizer

Parts = dict[str, Any]
_SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def make_tiny_family(folder: Path, name: str) -> Path:
    """A folder of the pipeline class of that name."""
    torch.manual_seed(0)
    pipeline_class: Any = getattr(diffusers, f"{name}Pipeline")
    pipeline = pipeline_class(**FAMILIES[name]())
    pipeline.save_pretrained(folder)
    own = {"default": {"width": 64, "height": 64}, "min_size": 64}
    (folder / "visionsuit.json").write_text(json.dumps(own))
    return folder


def _t5() -> Parts:
    config = T5Config(vocab_size=16, d_model=32, d_kv=8, d_ff=16, num_layers=2, num_heads=4, pad_token_id=0)
    return {"text_encoder": T5EncoderModel(config).eval(), "tokenizer": make_tokenizer()}


def _gemma() -> Parts:
    config = Gemma2Config(vocab_size=16, head_dim=8, num_key_value_heads=2, **_SMALL)
    return {"text_encoder": Gemma2Model(config).eval(), "tokenizer": make_tokenizer()}


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 16), layers_per_block=1, norm_num_groups=4, latent_channels=4,
        sample_size=64, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=0.3611, shift_factor=0.1159,
    )  # fmt: skip


def _pixart(**more: Any) -> Parts:
    transformer = PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16, in_channels=4, out_channels=8,
        num_layers=1, sample_size=8, patch_size=2, caption_channels=32, **more,
    )  # fmt: skip
    scheduler = DPMSolverMultistepScheduler(num_train_timesteps=1000)
    return {**_t5(), "transformer": transformer, "vae": _vae(), "scheduler": scheduler}


def _pixart_alpha() -> Parts:
    return _pixart(use_additional_conditions=False)


def _aura_flow() -> Parts:
    transformer = AuraFlowTransformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_mmdit_layers=1, num_single_dit_layers=1, attention_head_dim=8,
        num_attention_heads=4, joint_attention_dim=32, caption_projection_dim=32, out_channels=4, pos_embed_max_size=64,
    )  # fmt: skip
    return {**_t5(), "transformer": transformer, "vae": _vae(), "scheduler": FlowMatchEulerDiscreteScheduler()}


def _kandinsky3() -> Parts:
    unet = Kandinsky3UNet(
        in_channels=4, time_embedding_dim=4, groups=2, attention_head_dim=4, layers_per_block=3,
        block_out_channels=(32, 64), cross_attention_dim=4, encoder_hid_dim=32,
    )  # fmt: skip
    movq = VQModel(
        block_out_channels=(32, 32, 64, 64), down_block_types=("DownEncoderBlock2D",) * 4, in_channels=3,
        latent_channels=4, layers_per_block=1, norm_num_groups=8, norm_type="spatial", num_vq_embeddings=12,
        out_channels=3, up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 3, vq_embed_dim=4,
    )  # fmt: skip
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=True, thresholding=False)
    return {**_t5(), "unet": unet, "movq": movq, "scheduler": scheduler}


def _sana() -> Parts:
    transformer = SanaTransformer2DModel(
        patch_size=1, in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2, attention_head_dim=4,
        num_cross_attention_heads=2, cross_attention_head_dim=4, cross_attention_dim=8, caption_channels=16,
        sample_size=32,
    )  # fmt: skip
    vae = AutoencoderDC(
        in_channels=3, latent_channels=4, attention_head_dim=2, encoder_block_types=("ResBlock",) * 6,
        decoder_block_types=("ResBlock",) * 6, encoder_block_out_channels=(8,) * 6, decoder_block_out_channels=(8,) * 6,
        encoder_qkv_multiscales=((),) * 6, decoder_qkv_multiscales=((),) * 6, encoder_layers_per_block=(1,) * 6,
        decoder_layers_per_block=(1,) * 6, downsample_block_type="conv", upsample_block_type="interpolate",
        decoder_norm_types="rms_norm", decoder_act_fns="silu", scaling_factor=0.41407,
    )  # fmt: skip
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, algorithm_type="dpmsolver++"
    )
    return {**_gemma(), "transformer": transformer, "vae": vae, "scheduler": scheduler}


def _lumina() -> Parts:
    transformer = LuminaNextDiT2DModel(
        sample_size=8, patch_size=2, in_channels=4, hidden_size=16, num_layers=1, num_attention_heads=2,
        num_kv_heads=1, multiple_of=8, ffn_dim_multiplier=None, norm_eps=1e-5, learn_sigma=True, qk_norm=True,
        cross_attention_dim=16,
    )  # fmt: skip
    return {**_gemma(), "transformer": transformer, "vae": _vae(), "scheduler": FlowMatchEulerDiscreteScheduler()}


def _lumina2() -> Parts:
    transformer = Lumina2Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, hidden_size=16, num_layers=1, num_refiner_layers=1,
        num_attention_heads=2, num_kv_heads=1, multiple_of=8, axes_dim_rope=(4, 2, 2), axes_lens=(300, 64, 64),
        cap_feat_dim=16,
    )  # fmt: skip
    return {**_gemma(), "transformer": transformer, "vae": _vae(), "scheduler": FlowMatchEulerDiscreteScheduler()}


def _cogview3() -> Parts:
    transformer = CogView3PlusTransformer2DModel(
        patch_size=2, in_channels=4, num_layers=1, attention_head_dim=4, num_attention_heads=2, out_channels=4,
        text_embed_dim=32, time_embed_dim=8, condition_dim=2, pos_embed_max_size=8, sample_size=8,
    )  # fmt: skip
    scheduler = CogVideoXDDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, prediction_type="v_prediction", rescale_betas_zero_snr=True,
        snr_shift_scale=4.0, set_alpha_to_one=True, timestep_spacing="trailing", clip_sample=False,
    )  # fmt: skip
    return {**_t5(), "transformer": transformer, "vae": _vae(), "scheduler": scheduler}


def _cogview4() -> Parts:
    transformer = CogView4Transformer2DModel(
        patch_size=2, in_channels=4, num_layers=1, attention_head_dim=4, num_attention_heads=4, out_channels=4,
        text_embed_dim=16, time_embed_dim=8, condition_dim=4, sample_size=8, rope_axes_dim=(8, 8),
    )  # fmt: skip
    config = GlmConfig(vocab_size=16, head_dim=8, num_key_value_heads=2, pad_token_id=0, **_SMALL)
    scheduler = FlowMatchEulerDiscreteScheduler(
        base_shift=0.25, max_shift=0.75, base_image_seq_len=256, use_dynamic_shifting=True, time_shift_type="linear"
    )
    text = {"text_encoder": GlmModel(config).eval(), "tokenizer": make_tokenizer()}
    return {**text, "transformer": transformer, "vae": _vae(), "scheduler": scheduler}


def _qwen() -> Parts:
    transformer = QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, guidance_embeds=False, axes_dims_rope=(8, 4, 4),
    )  # fmt: skip
    vae = AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config={
            **_SMALL, "num_key_value_heads": 2, "vocab_size": 16, "max_position_embeddings": 512,
            "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
        },
        vision_config={
            "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16,
        },
        hidden_size=16, vocab_size=16, vision_end_token_id=1, vision_start_token_id=2, vision_token_id=3,
    )  # fmt: skip
    text = {"text_encoder": Qwen2_5_VLForConditionalGeneration(config).eval(), "tokenizer": make_tokenizer()}
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    return {**text, "transformer": transformer, "vae": vae, "scheduler": scheduler}


def _hunyuan() -> Parts:
    transformer = HunyuanDiT2DModel(
        sample_size=8, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=3, in_channels=4,
        cross_attention_dim=16, cross_attention_dim_t5=32, pooled_projection_dim=4, hidden_size=24,
        activation_fn="gelu-approximate", learn_sigma=True, text_len=77, text_len_t5=256,
    )  # fmt: skip
    config = BertConfig(vocab_size=16, max_position_embeddings=128, **_SMALL)
    t5 = _t5()
    return {
        "text_encoder": BertModel(config).eval(),
        "tokenizer": make_tokenizer(),
        "text_encoder_2": t5["text_encoder"],
        "tokenizer_2": t5["tokenizer"],
        "transformer": transformer,
        "vae": _vae(),
        "scheduler": DDPMScheduler(prediction_type="v_prediction", beta_schedule="scaled_linear", beta_end=0.02),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


FAMILIES: dict[str, Callable[[], Parts]] = {
    "AuraFlow": _aura_flow,
    "CogView3Plus": _cogview3,
    "CogView4": _cogview4,
    "HunyuanDiT": _hunyuan,
    "Kandinsky3": _kandinsky3,
    "Lumina": _lumina,
    "Lumina2": _lumina2,
    "PixArtAlpha": _pixart_alpha,
    "PixArtSigma": _pixart,
    "QwenImage": _qwen,
    "Sana": _sana,
}

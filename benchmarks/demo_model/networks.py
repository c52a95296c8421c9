"""The parts of the pipeline, untrained, and the noise that they are trained on."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from transformers import CLIPTokenizer

from benchmarks.demo_model.vocabulary import SIZE

LATENT_CHANNELS = 4
LATENT_SIDE = 16
LATENT_NUMBERS = LATENT_CHANNELS * LATENT_SIDE**2
TEXT_WIDTH = 192
CONTEXT = 32


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(where: torch.device) -> torch.autocast:
    """bf16 on a GPU; on the CPU half precision is the slow way."""
    return torch.autocast(where.type, torch.bfloat16, enabled=where.type == "cuda")


def make_vae() -> AutoencoderKL:
    """0.65 M parameters, 64 px -> 16x16x4."""
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=SIZE,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )
    silence_residuals(vae)
    return vae


def make_unet() -> UNet2DConditionModel:
    """11 M parameters, 0.84 GFLOP a call."""
    unet = UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 128, 192),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )
    silence_residuals(unet)
    nn.init.zeros_(unet.conv_out.weight)
    return unet


def silence_residuals(module: nn.Module) -> None:
    """Residual branches begin at zero: both networks learn faster so."""
    for block in module.modules():
        if isinstance(block, ResnetBlock2D):
            nn.init.zeros_(block.conv2.weight)
            nn.init.zeros_(block.conv2.bias)


def make_scheduler() -> DDPMScheduler:
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
    )


def load_tokenizer(work: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(work / "tokenizer")


def load_vae(folder: Path, where: torch.device) -> AutoencoderKL:
    """Frozen, fp32."""
    vae = AutoencoderKL.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)
    return vae.to(where, memory_format=torch.channels_last)


def add_noise(latents: Tensor, skew: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy latents, their timesteps [n], and the velocity that the UNet shall predict.

    Timesteps are spread evenly over the batch; a `skew` below 1 draws more of the noisy ones.
    """
    count, where = len(latents), latents.device
    noise = torch.randn_like(latents)
    even = (torch.arange(count, device=where) + torch.rand(count, device=where)) / count
    steps = (even**skew * 1000).long().clamp(max=999)
    kept = make_scheduler().alphas_cumprod.to(where)[steps][:, None, None, None]
    signal, rest = kept.sqrt(), (1 - kept).sqrt()
    noisy = (signal * latents + rest * noise).contiguous(memory_format=torch.channels_last)
    return noisy, steps, signal * noise - rest * latents

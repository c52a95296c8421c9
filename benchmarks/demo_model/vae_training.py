"""The VAE: trained on all artwork on many backgrounds, its latents whitened, its decoder polished."""

import random
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from benchmarks.demo_model import networks
from benchmarks.demo_model.fitting import Fit
from benchmarks.demo_model.scenes import on_background
from benchmarks.demo_model.vocabulary import SIZE, load_art


def train(work: Path, minutes: float) -> None:
    """Leaves `vae/` in `work`; latents have mean 0 and deviation 1 per channel, scaling factor 1."""
    if (work / "vae").exists():
        return
    where = networks.device()
    pictures = load_art(work, list(range(len(np.load(work / "artwork.npy", mmap_mode="r")))))
    vae = networks.make_vae().to(where, memory_format=torch.channels_last)
    fit = Fit("vae", [vae], work / "vae.pt", minutes * 0.75, lr=1.5e-3)
    for _ in fit.steps():
        # Crops at first: four times as many pictures for the same work.
        is_early = fit.budget.progress < 0.6
        batch = 32 if where.type == "cpu" and is_early else 8 if where.type == "cpu" else 128
        x = _augmented(pictures, batch, crop=is_early).to(where)
        with networks.autocast(where):
            posterior = vae.encode(x).latent_dist
            y = vae.decode(posterior.sample()).sample
        mean, log_variance = posterior.mean.float(), posterior.logvar.float()
        prior = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        fit.learn(_difference(y.float(), x) + 1e-3 * prior, batch)
    whiten(vae, pictures)
    _polish(vae, pictures, work, minutes * 0.25)
    vae.save_pretrained(work / "vae")


def _augmented(pictures: Tensor, count: int, *, crop: bool) -> Tensor:
    """[count, 3, side, side]: white or random backgrounds, mirrored, shifted, and cropped to half the side."""
    colours = torch.rand(count, 3) * 255
    colours[torch.rand(count) < 0.6] = 255
    x = on_background(pictures[torch.randint(len(pictures), (count,))], colours)
    x = x.flip(-1) if random.random() < 0.5 else x
    if crop:
        top, left = (random.randrange(0, SIZE // 2 + 1, 4) for _ in range(2))
        x = x[..., top : top + SIZE // 2, left : left + SIZE // 2]
    x = torch.roll(x, (random.randint(-3, 3), random.randint(-3, 3)), (2, 3))
    return x.contiguous(memory_format=torch.channels_last)


def _difference(y: Tensor, x: Tensor) -> Tensor:
    """Pixels and edges: squares alone blur."""
    pixels = (y - x).abs().mean() + (y - x).square().mean()
    across = (y.diff(dim=-1) - x.diff(dim=-1)).abs().mean()
    down = (y.diff(dim=-2) - x.diff(dim=-2)).abs().mean()
    return pixels + 0.25 * (across + down)


@torch.no_grad()
def whiten(vae: AutoencoderKL, pictures: Tensor) -> None:
    """Fold mean and deviation of the latents into the 1x1 convolutions on both sides of them."""
    where = next(vae.parameters()).device
    white = torch.full((256, 3), 255)
    parts = [on_background(part, white[: len(part)]).to(where) for part in pictures[:2048].split(256)]
    means = [vae.encode(part).latent_dist.mean for part in parts]
    latents = torch.cat(means)
    mean, spread = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    channels = len(mean)
    before, after = vae.quant_conv, vae.post_quant_conv
    before.weight[:channels] /= spread[:, None, None, None]
    before.bias[:channels] = (before.bias[:channels] - mean) / spread
    before.bias[channels:] -= 2 * spread.log()
    after.bias += (after.weight[:, :, 0, 0] * mean).sum(1)
    after.weight *= spread[None, :, None, None]


def _polish(vae: AutoencoderKL, pictures: Tensor, work: Path, minutes: float) -> None:
    """Train the decoder alone; latents stay what they are. Worth 0.9 dB."""
    where = next(vae.parameters()).device
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    fit = Fit("decoder", [vae.decoder, vae.post_quant_conv], work / "decoder.pt", minutes, lr=1.2e-3)
    batch = 8 if where.type == "cpu" else 128
    for _ in fit.steps():
        x = _augmented(pictures, batch, crop=False).to(where)
        with networks.autocast(where):
            with torch.no_grad():
                posterior = vae.encode(x).latent_dist
                latents = posterior.mean + 0.5 * posterior.std * torch.randn_like(posterior.mean)
            y = vae.decode(latents).sample.float()
        fit.learn(_difference(y, x), batch)

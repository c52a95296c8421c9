"""Finished latents -> pixels."""

import numpy as np
import torch
from numpy.typing import NDArray

from visionsuit.engine.base import InitPicture
from visionsuit.engine.base_models import LoadedModel


def decode(model: LoadedModel, latent: torch.Tensor, *, tiled: bool = False) -> NDArray[np.uint8]:
    """[1, C, h, w] -> uint8 [height, width, 3]. `tiled` takes less memory, and may show faint seams."""
    config = model.vae.config
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is not None and std is not None:
        shape = (1, -1, 1, 1)
        latent = latent * torch.tensor(std, device=latent.device).view(shape) / config.scaling_factor
        latent = latent + torch.tensor(mean, device=latent.device).view(shape)
    else:
        latent = latent / config.scaling_factor + (getattr(config, "shift_factor", None) or 0.0)
    (model.vae.enable_tiling if tiled else model.vae.disable_tiling)()
    with model.pictures.visit():
        image = model.vae.decode(latent.to(model.vae.dtype), return_dict=False)[0][0]
    pixels = (image.float() / 2 + 0.5).clamp(0, 1).nan_to_num_().movedim(0, -1).mul(255).round()
    array: NDArray[np.uint8] = pixels.to(torch.uint8).cpu().numpy()
    return array


def paste(pixels: NDArray[np.uint8], init: InitPicture, number: int = 0) -> NDArray[np.uint8]:
    """The request's finished picture `number` where the mask repaints, what it began with elsewhere;
    [height, width, 3]."""
    mask = init.soft_mask()
    if mask is None:
        return pixels
    share = mask[:, :, None]
    mixed: NDArray[np.uint8] = (pixels * share + init.picture(number) * (1 - share)).round().astype(np.uint8)
    return mixed

"""A small picture of a latent without the VAE: a linear map from latent channels to red, green and blue."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from visionsuit.engine.base import Family

#: Least squares fits of the published VAEs: rows are latent channels, the last row is the offset; RGB in -1..1.
_SD1 = (
    (0.3512, 0.2297, 0.3227),
    (0.3250, 0.4974, 0.2350),
    (-0.2829, 0.1762, 0.2721),
    (-0.2120, -0.2616, -0.7177),
    (0.0, 0.0, 0.0),
)
_SDXL = (
    (0.3651, 0.4232, 0.4341),
    (-0.2533, -0.0042, 0.1068),
    (0.1076, 0.1111, -0.0362),
    (-0.3165, -0.2492, -0.2188),
    (0.1084, -0.0175, -0.0011),
)


class LatentPreview:
    """Paints denoised latents of one model.

    Args:
        matrix: [channels + 1, 3] float32 on the CPU, offset last, RGB in -1..1 as the VAE gives it.
    """

    def __init__(self, matrix: torch.Tensor) -> None:
        self._matrix = matrix

    def paint(self, latent: torch.Tensor) -> NDArray[np.uint8]:
        """[C, h, w] float latent -> uint8 [h, w, 3]."""
        pixels = latent.float().cpu().movedim(0, -1) @ self._matrix[:-1] + self._matrix[-1]
        return (pixels.clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8).numpy()


def load_preview(folder: Path, family: Family, vae_config: Any) -> LatentPreview | None:
    """The map in `latent_rgb.json` beside the model, else the published one of its family, else None.

    The file holds [channels + 1][3] numbers, offset last, RGB in -1..1. The published maps are used only where the
    model's latents are scaled as its family's.
    """
    channels = vae_config.latent_channels
    rows = _read_rows(folder / "latent_rgb.json", channels)
    if rows is None and channels == 4:
        scale = vae_config.scaling_factor
        if family in (Family.SD1, Family.SD2) and abs(scale - 0.18215) < 1e-3:
            rows = _SD1
        elif family is Family.SDXL and abs(scale - 0.13025) < 1e-3:
            rows = _SDXL
    return LatentPreview(torch.tensor(rows, dtype=torch.float32)) if rows else None


def _read_rows(path: Path, channels: int) -> Any:
    try:
        matrix = np.asarray(json.loads(path.read_text("utf-8")), dtype=np.float32)
    except (OSError, ValueError, TypeError):
        return None
    return matrix.tolist() if matrix.shape == (channels + 1, 3) and bool(np.isfinite(matrix).all()) else None


def denoised(
    noisy: torch.Tensor, prediction: torch.Tensor, alpha_cumulative: float, prediction_type: str
) -> torch.Tensor:
    """What the model believes the finished latent to be.

    Args:
        noisy: the model's input, scaled to unit variance.
        prediction: the model's output after guidance, same shape.
        alpha_cumulative: signal share of the variance at this timestep, in 0..1.
    """
    signal, noise = alpha_cumulative**0.5, (1 - alpha_cumulative) ** 0.5
    if prediction_type == "v_prediction":
        return signal * noisy - noise * prediction
    if prediction_type == "sample":
        return prediction
    return (noisy - noise * prediction) / max(signal, 1e-3)

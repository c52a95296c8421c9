"""The denoising loop: several pictures of one request through the UNet together, each with a scheduler and random
numbers of its own, so that a picture is what it would be alone."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from visionsuit.engine.base import Phase, Progress, RenderCancelled, RenderRequest
from visionsuit.engine.base_models import LoadedModel
from visionsuit.engine.previews import denoised
from visionsuit.engine.prompts import Conditioning
from visionsuit.engine.samplers import create_scheduler, start_scheduler, takes_generator

#: A preview costs a copy from the device; eyes need no more of them than this.
PREVIEW_EVERY_S = 0.25


@dataclass(slots=True)
class Report:
    """Progress of one request over all its pictures."""

    request: RenderRequest
    on_progress: Callable[[Progress], None]
    is_cancelled: Callable[[], bool]
    done: int = 0
    _previewed_at: float = field(default=0.0)

    @property
    def total(self) -> int:
        return self.request.steps * len(self.request.seeds)

    def check(self) -> None:
        if self.is_cancelled():
            raise RenderCancelled("The render was cancelled.")

    def phase(self, phase: Phase) -> None:
        self.check()
        self.on_progress(Progress(phase, self.done, self.total))

    def wants_preview(self) -> bool:
        now = time.monotonic()
        if now - self._previewed_at < PREVIEW_EVERY_S:
            return False
        self._previewed_at = now
        return True

    def step(self, done: int, preview: NDArray[np.uint8] | None) -> None:
        self.on_progress(Progress(Phase.DENOISING, self.done + done, self.total, preview))


@dataclass(slots=True)
class _Row:
    """One picture on its way: `latent` [1, C, h, w] fp32 on the device."""

    scheduler: Any
    generator: torch.Generator
    latent: torch.Tensor
    step_options: dict[str, Any]


def denoise(
    model: LoadedModel,
    request: RenderRequest,
    seeds: tuple[int, ...],
    sides: tuple[Conditioning, Conditioning | None],
    report: Report,
) -> list[torch.Tensor]:
    """Finished latents [1, C, h, w] in the order of `seeds`.

    Raises:
        RenderCancelled: asked before every call of the UNet.
    """
    rows = [_start(model, request, seed) for seed in seeds]
    timesteps = start_scheduler(rows[0].scheduler, request.steps, model.device)
    for row in rows[1:]:
        start_scheduler(row.scheduler, request.steps, model.device)
    for row in rows:
        row.latent = row.latent * row.scheduler.init_noise_sigma
    guided = sides[1] is not None
    inputs = _conditioning_inputs(model, request, sides, len(rows))
    for number, timestep in enumerate(timesteps):
        report.check()
        scaled = torch.cat([row.scheduler.scale_model_input(row.latent, timestep) for row in rows])
        doubled = torch.cat([scaled, scaled]) if guided else scaled
        output = model.unet(doubled.to(model.dtype), timestep, return_dict=False, **inputs)[0].float()
        if guided:
            without, with_prompt = output.chunk(2)
            output = without + request.guidance * (with_prompt - without)
        for i, row in enumerate(rows):
            row.latent = row.scheduler.step(
                output[i : i + 1], timestep, row.latent, return_dict=False, **row.step_options
            )[0]
        done = (number + 1) * request.steps // len(timesteps) * len(rows)
        preview = None
        if model.preview is not None and report.wants_preview():
            alpha = _signal_share(rows[0].scheduler, timestep)
            preview = model.preview.paint(denoised(scaled[0], output[0], alpha, model.prediction_type))
        report.step(done, preview)
    report.done += request.steps * len(rows)
    return [row.latent for row in rows]


def _start(model: LoadedModel, request: RenderRequest, seed: int) -> _Row:
    scheduler = create_scheduler(model.scheduler_config, request.sampler, request.schedule)
    # On the CPU, in fp32: the same seed gives the same noise on every device and in every number format.
    generator = torch.Generator().manual_seed(seed)
    shape = (1, model.unet.config.in_channels, request.height // model.vae_factor, request.width // model.vae_factor)
    noise = torch.randn(shape, generator=generator)
    options = {"generator": generator} if takes_generator(scheduler) else {}
    return _Row(scheduler, generator, noise.to(model.device), options)


def _conditioning_inputs(
    model: LoadedModel, request: RenderRequest, sides: tuple[Conditioning, Conditioning | None], count: int
) -> dict[str, Any]:
    """Rows of the UNet's batch: first the negative side of all pictures, then the positive one."""
    positive, negative = sides
    ordered = [side for side in (negative, positive) if side is not None]
    inputs: dict[str, Any] = {
        "encoder_hidden_states": torch.cat([side.embeds.expand(count, -1, -1) for side in ordered])
    }
    if positive.pooled is not None:
        # SDXL is told the size it was asked for and that nothing was cropped.
        size = [request.height, request.width, 0, 0, request.height, request.width]
        inputs["added_cond_kwargs"] = {
            "text_embeds": torch.cat([side.pooled.expand(count, -1) for side in ordered if side.pooled is not None]),
            "time_ids": torch.tensor([size] * (count * len(ordered)), dtype=model.dtype, device=model.device),
        }
    if model.unet.config.time_cond_proj_dim is not None:
        scale = torch.full((count * len(ordered),), request.guidance - 1.0)
        embedding = _guidance_embedding(scale, model.unet.config.time_cond_proj_dim)
        inputs["timestep_cond"] = embedding.to(model.device, model.dtype)
    return inputs


def _guidance_embedding(scale: torch.Tensor, width: int) -> torch.Tensor:
    """Sinusoids of the guidance scale, for distilled models that take it as an input: [n] -> [n, width]."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half) * -(np.log(10000.0) / (half - 1)))
    angles = scale[:, None] * 1000.0 * frequencies[None, :]
    embedding = torch.cat([angles.sin(), angles.cos()], dim=1)
    return torch.nn.functional.pad(embedding, (0, width - 2 * half))


def _signal_share(scheduler: Any, timestep: torch.Tensor) -> float:
    share = scheduler.alphas_cumprod
    return float(share[min(len(share) - 1, max(0, round(float(timestep))))])

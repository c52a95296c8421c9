"""One picture on its way, with a scheduler and random numbers of its own, so that it is what it would be alone."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from visionsuit.engine.base_models import LoadedModel
from visionsuit.engine.conditioning import Inputs
from visionsuit.engine.flow_schedulers import flow_denoised, is_flow
from visionsuit.engine.latents import Start, first_latent, latent_shape
from visionsuit.engine.lora_packs import Mix
from visionsuit.engine.previews import denoised
from visionsuit.engine.samplers import create_scheduler, start_scheduler, takes_generator
from visionsuit.engine.slots import ranks_of
from visionsuit.engine.tickets import Ticket

#: A preview costs a copy from the device; eyes need no more of them than this.
PREVIEW_EVERY_S = 0.25
_CPU = torch.device("cpu")


class Row:
    """
    Args:
        number: which of the ticket's seeds.
        mix: what the request's LoRAs do to the UNet.
        start: the picture to begin with.

    Attributes:
        ranks: of the whole mix, per weight shape.
        latent: [1, C, h, w] fp32 on the device.
        extra: [1, E, h, w] fp32: what a UNet made for inpainting is told beside the latent, else None.
        calls: how many calls of the UNet it had, of `timesteps` in all.
    """

    def __init__(
        self, ticket: Ticket, number: int, model: LoadedModel, inputs: Inputs, mix: Mix, start: Start | None = None
    ) -> None:
        request = ticket.request
        self.ticket, self.number, self.seed = ticket, number, request.seeds[number]
        self.inputs, self.mix = inputs, mix
        self.ranks = ranks_of(mix.parts)
        self.guidance = request.guidance
        self.calls = 0
        self._steps = request.steps_run
        self._previewed_at = 0.0
        self._scheduler = create_scheduler(model.scheduler_config, request.sampler, request.schedule, model.family)
        # Timesteps stay on the CPU: schedulers look them up, which would wait for the device each time.
        patches = (request.height // model.size_step) * (request.width // model.size_step)
        timesteps = start_scheduler(self._scheduler, request.steps, _CPU, patches)
        skipped = (request.steps - self._steps) * self._scheduler.order
        self.timesteps = timesteps[skipped:]
        # On the CPU, in fp32: the same seed gives the same noise on every device and in every number format.
        generator = torch.Generator().manual_seed(self.seed)
        if hasattr(self._scheduler, "set_begin_index"):
            # Or they look for it by the first timestep, which many steps from pure noise have twice.
            self._scheduler.set_begin_index(skipped)
        shape = latent_shape(model, request.width, request.height)
        first = first_latent(request, number, shape, start, self._scheduler, self.timesteps, generator, model.device)
        self.latent, self.extra, self._unmasked = first.latent, first.extra, first.unmasked
        self._options: dict[str, Any] = {"generator": generator} if takes_generator(self._scheduler) else {}

    @property
    def is_denoised(self) -> bool:
        return self.calls == len(self.timesteps)

    @property
    def calls_left(self) -> int:
        return len(self.timesteps) - self.calls

    @property
    def timestep(self) -> torch.Tensor:
        timestep: torch.Tensor = self.timesteps[self.calls]
        return timestep

    def forget_projections(self) -> None:
        """Give the memory back that its prompt's layers take; other pictures of the request keep theirs."""
        self.inputs = replace(self.inputs, projected=[])

    def model_input(self) -> torch.Tensor:
        """[1, C, h, w] fp32."""
        scaled: torch.Tensor = self._scheduler.scale_model_input(self.latent, self.timestep)
        return scaled

    def advance(self, model_input: torch.Tensor, prediction: torch.Tensor) -> None:
        """Take the UNet's answer after guidance, [1, C, h, w] fp32, and tell the ticket."""
        timestep = self.timestep
        self.latent = self._scheduler.step(prediction, timestep, self.latent, return_dict=False, **self._options)[0]
        self.calls += 1
        if self._unmasked is not None:
            self.latent = self._unmasked.put_into(self.latent, self._scheduler, self.timesteps[self.calls :][:1])
        preview = self._paint(model_input, prediction, timestep) if self._wants_preview() else None
        self.ticket.step(self.number, self.calls * self._steps // len(self.timesteps), preview)

    def _wants_preview(self) -> bool:
        now = time.monotonic()
        # One picture's preview is enough for a request of several.
        leads = self.ticket.leads(self.number)
        if not leads or self.ticket.model.preview is None or now - self._previewed_at < PREVIEW_EVERY_S:
            return False
        self._previewed_at = now
        return True

    def _paint(
        self, model_input: torch.Tensor, prediction: torch.Tensor, timestep: torch.Tensor
    ) -> NDArray[np.uint8] | None:
        # Not kept: who stands may go on with the model loaded anew.
        model: LoadedModel = self.ticket.model
        preview = model.preview
        if preview is None:
            return None
        if is_flow(model.scheduler_config):
            return preview.paint(flow_denoised(self._scheduler, model_input, prediction, timestep)[0])
        share = self._scheduler.alphas_cumprod
        alpha = float(share[min(len(share) - 1, max(0, round(float(timestep))))])
        return preview.paint(denoised(model_input[0], prediction[0], alpha, model.prediction_type))

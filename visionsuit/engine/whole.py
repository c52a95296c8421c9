"""Pipelines that the batches know nothing of: diffusers renders them from end to end, one picture at a time."""

import inspect
import json
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import DiffusionPipeline
from transformers import CLIPTextModel

from visionsuit.engine.base import BaseModelRef, EngineError, Family, Picture, RenderCancelled, RenderRequest
from visionsuit.engine.base_shapes import read_base_shapes
from visionsuit.engine.catalog import BaseModelInfo
from visionsuit.engine.devices import Device
from visionsuit.engine.flow_schedulers import is_flow
from visionsuit.engine.lora_names import Component
from visionsuit.engine.prompt_cache import PromptCache
from visionsuit.engine.prompt_syntax import plain_text
from visionsuit.engine.residence import PipelineResidence
from visionsuit.engine.samplers import create_scheduler
from visionsuit.engine.tickets import CalledOff, Ticket
from visionsuit.engine.whole_init import Siblings, init_arguments
from visionsuit.engine.whole_kinds import WHOLE, WholeKind
from visionsuit.engine.whole_loras import WholeLoras
from visionsuit.engine.whole_packs import AdapterPacks


@dataclass(slots=True)
class WholeModel:
    """A loaded pipeline; its `residence` brings it onto the device. Used by the device thread alone."""

    key: str
    label: str
    family: Family
    kind: WholeKind
    siblings: Siblings
    size_step: int
    residence: PipelineResidence
    loras: WholeLoras
    prompts: PromptCache = field(default_factory=PromptCache)

    def check(self, request: RenderRequest) -> None:
        """Raises: EngineError for what such a pipeline is not asked here."""
        if request.loras and not self.kind.loras:
            raise EngineError(f"{self.label} takes no LoRAs.")
        if request.variation is not None:
            raise EngineError(f"{self.label} renders no variations.")
        if request.init is not None and self.kind.from_picture is None:
            raise EngineError(f"{self.label} renders from a prompt alone.")
        if request.init is not None and request.init.mask is not None and self.kind.inpainting is None:
            raise EngineError(f"{self.label} begins with a picture as a whole, without a mask.")
        if request.steps < self.kind.least_steps:
            raise EngineError(f"{self.label} takes {self.kind.least_steps} steps at least.")
        if request.width % self.size_step or request.height % self.size_step:
            raise EngineError(
                f"{self.label} renders sizes that are multiples of {self.size_step}, "
                f"not {request.width}x{request.height}."
            )

    def render(self, ticket: Ticket, number: int) -> Picture:
        """The request's picture `number`, with progress at every step. With a mask, what it keeps is not pasted yet.

        Raises:
            RenderCancelled: nobody waits for it any more.
            CalledOff: others go first.
            LoraUnloadable: it does not go into this pipeline.
            EngineError: a sampler that the pipeline does not go with.
        """
        with self.loras.under(ticket.request.loras, ticket.packs or {}):
            return self._render(ticket, number)

    def _render(self, ticket: Ticket, number: int) -> Picture:
        request = ticket.request
        pipeline = self.siblings.of(request.init)

        def on_step(_: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
            if ticket.withdrawn:
                raise RenderCancelled("The render was cancelled.")
            if ticket.called_off():
                raise CalledOff
            ticket.step(number, min(step + 1, request.steps_run))
            return kwargs

        wanted = {
            "prompt": plain_text(request.prompt),
            "width": request.width,
            "height": request.height,
            # It would render a size that is near, and cut and stretch that.
            "use_resolution_binning": False,
            "num_inference_steps": request.steps,
            # On the CPU: the same seed gives the same noise on every device.
            "generator": torch.Generator().manual_seed(request.seeds[number]),
            "output_type": "np",
            "callback_on_step_end": on_step,
            # Of older pipelines.
            "callback": lambda step, timestep, _: on_step(None, step, timestep, {}),
            "callback_steps": 1,
            **_guidance(pipeline, self.kind, request),
            **init_arguments(self.kind, request, number),
        }
        known = inspect.signature(pipeline.__call__).parameters
        original = pipeline.scheduler
        pipeline.scheduler = _scheduler(original, self.kind, request)
        try:
            image = pipeline(**{name: value for name, value in wanted.items() if name in known}).images[0]
        finally:
            pipeline.scheduler = original
            self.residence.settle()
        ticket.step(number, request.steps_run)
        pixels = (torch.as_tensor(image).float().clamp(0, 1) * 255).round().to(torch.uint8)
        return Picture(pixels.cpu().numpy(), request.seeds[number])


def load_whole(ref: BaseModelRef, info: BaseModelInfo, device: Device, dtype: torch.dtype) -> WholeModel:
    """Raises: whatever diffusers raises for a folder that it cannot read."""
    index = json.loads((ref.path / "model_index.json").read_text("utf-8"))
    pipeline: Any = DiffusionPipeline.from_pretrained(
        ref.path, torch_dtype=dtype, local_files_only=True, use_safetensors=True, **_absent(index)
    )
    kind, residence = WHOLE[index["_class_name"]], PipelineResidence(pipeline, device)
    packs = AdapterPacks(read_base_shapes(ref.path), _loaded(pipeline, kind), dtype, device.lora_budget())
    loras = WholeLoras(info.label, pipeline, kind.loras, residence, packs, device)
    siblings = Siblings(pipeline, kind)
    return WholeModel(ref.key, info.label, info.family, kind, siblings, info.size_step, residence, loras)


def _loaded(pipeline: Any, kind: WholeKind) -> frozenset[Component]:
    """Components whose pairs of matrices the pipeline's loader takes; of text encoders it knows CLIP alone."""
    names = [name for name in kind.loras if name in getattr(pipeline, "_lora_loadable_modules", ())]
    parts = {name: getattr(pipeline, name) for name in names}
    return frozenset(
        Component(name)
        for name, part in parts.items()
        if hasattr(part, "load_lora_adapter") or isinstance(part, CLIPTextModel)
    )


def _absent(index: dict[str, Any]) -> dict[str, None]:
    """Parts that the folder says it has not, which some pipelines want to be told."""
    return {name: None for name, value in index.items() if isinstance(value, list) and not any(value)}


def _guidance(pipeline: Any, kind: WholeKind, request: RenderRequest) -> dict[str, Any]:
    """What to move towards, how far, and away from what."""
    negative = plain_text(request.negative_prompt)
    if kind.true_guidance and not pipeline.transformer.config.guidance_embeds:
        # Without a negative prompt there would be none.
        return {"true_cfg_scale": request.guidance, "negative_prompt": negative or " "}
    # Where there is none, each pipeline knows best what to say instead.
    return {"guidance_scale": request.guidance} | ({"negative_prompt": negative} if negative else {})


def _scheduler(original: Any, kind: WholeKind, request: RenderRequest) -> Any:
    """The wished sampler where it can stand in for the pipeline's own, else a fresh copy of that."""
    config = dict(original.config) | {"_class_name": type(original).__name__}
    # Those that flow and have another's class keep their own spacing: any other is not of a flow.
    schedule = "default" if config.get("use_flow_sigmas") else request.schedule
    wished = create_scheduler(config, request.sampler, schedule)
    if is_flow(config):
        return wished
    knows_flow = "use_flow_sigmas" in inspect.signature(type(wished)).parameters or not config.get("use_flow_sigmas")
    if knows_flow and not kind.own_sampler and type(wished) in getattr(original, "compatibles", []):
        return wished
    return type(original).from_config(original.config)

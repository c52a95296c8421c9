"""Text to image with diffusers' models and schedulers on this machine's device. Importing this imports torch.

engine = DiffusersEngine(device="auto")
engine.start()
pictures = engine.render(request, on_progress=print, is_cancelled=lambda: False)
"""

import logging
import threading
import warnings
from collections.abc import Callable

import diffusers
import numpy as np
import torch
import transformers

from visionsuit.engine.base import (
    EngineError,
    EngineNotReady,
    EngineStatus,
    OutOfDeviceMemory,
    Phase,
    Picture,
    Progress,
    RenderRequest,
)
from visionsuit.engine.base_models import LoadedModel, ModelCache
from visionsuit.engine.denoising import Report, denoise
from visionsuit.engine.devices import Device, choose_device, is_out_of_memory, set_threads
from visionsuit.engine.prompts import encode_prompts


class DiffusersEngine:
    """Renders one request at a time; other threads wait.

    Args:
        device: `auto`, `cuda`, `mps` or `cpu`.
        threads: CPU threads of torch; the number of cores if None.
        model_budget_bytes: memory for base models; part of what the device has if None.
    """

    concurrency = 1

    def __init__(self, device: str = "auto", threads: int | None = None, model_budget_bytes: int | None = None) -> None:
        self._wish = device
        self._threads = threads
        self._model_budget_bytes = model_budget_bytes
        self._device: Device | None = None
        self._models: ModelCache | None = None
        self._rendering = threading.Lock()
        self._detail = "Not started."
        self._labels: tuple[str, ...] = ()
        self._extra: dict[str, int] = {}

    def start(self) -> None:
        """Raises: EngineError when the wished device is not there."""
        _quieten()
        self._threads = set_threads(self._threads)
        device = choose_device(self._wish)
        self._models = ModelCache(device, self._model_budget_bytes or device.memory_budget())
        self._detail = "Ready."
        self._device = device

    def render(
        self, request: RenderRequest, *, on_progress: Callable[[Progress], None], is_cancelled: Callable[[], bool]
    ) -> list[Picture]:
        models, device = self._models, self._device
        if models is None or device is None:
            raise EngineNotReady(f"The generator is not ready. {self._detail}")
        with self._rendering:
            report = Report(request, on_progress, is_cancelled)
            self._detail = "Rendering."
            try:
                return self._render(request, report, models, device)
            finally:
                self._detail = "Ready."
                self._labels = models.labels

    def status(self) -> EngineStatus:
        device = self._device
        memory = device.memory() if device else None
        return EngineStatus(
            name="diffusers",
            device=device.label if device else "",
            ready=device is not None,
            detail=self._detail,
            memory_used_bytes=memory[0] if memory else None,
            memory_total_bytes=memory[1] if memory else None,
            loaded_models=self._labels,
            extra=dict(self._extra),
        )

    def close(self) -> None:
        with self._rendering:
            if self._models is not None:
                self._models.keep_only(None)
            self._models = self._device = None
            self._labels = ()
            self._detail = "Closed."

    def _render(self, request: RenderRequest, report: Report, models: ModelCache, device: Device) -> list[Picture]:
        batch = min(device.batch_for(request.width, request.height), len(request.seeds))
        try:
            return self._attempt(request, report, models, batch)
        except Exception as error:  # only CUDA has a type of its own for this
            if not is_out_of_memory(error):
                raise
        # After the handler, when the failed attempt's tensors are no longer held by its traceback.
        models.keep_only(request.base_model.key)
        report.done = 0
        try:
            return self._attempt(request, report, models, batch=1, frugal=True)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfDeviceMemory(
                f"{request.width}x{request.height} pixels need more memory than {device.owner} has free, "
                "even one picture at a time. Choose a smaller size."
            ) from error
        finally:
            device.free_cached()

    def _attempt(
        self, request: RenderRequest, report: Report, models: ModelCache, batch: int, *, frugal: bool = False
    ) -> list[Picture]:
        report.phase(Phase.LOADING)
        model = models.get(request.base_model)
        self._labels = models.labels
        _check_size(request, model)
        model.adapters.activate(request.loras)
        self._extra = {"loras_kept": len(model.adapters.hashes), "lora_loads": model.adapters.loads, "batch": batch}
        with torch.inference_mode():
            report.phase(Phase.ENCODING)
            # Distilled models take the guidance scale as an input and need no second row.
            guided = request.guidance > 1 and model.unet.config.time_cond_proj_dim is None
            sides = encode_prompts(model, request.prompt, request.negative_prompt, guided=guided)
            (model.vae.enable_tiling if frugal else model.vae.disable_tiling)()
            pictures: list[Picture] = []
            for start in range(0, len(request.seeds), batch):
                seeds = request.seeds[start : start + batch]
                latents = denoise(model, request, seeds, sides, report)
                for seed, latent in zip(seeds, latents, strict=True):
                    report.phase(Phase.DECODING)
                    pictures.append(Picture(_decode(model, latent), seed))
            return pictures


def _check_size(request: RenderRequest, model: LoadedModel) -> None:
    factor = model.vae_factor
    if request.width % factor or request.height % factor or min(request.width, request.height) < factor:
        raise EngineError(
            f"{model.label} renders sizes that are multiples of {factor}, not {request.width}x{request.height}."
        )
    if not request.seeds or request.steps < 1:
        raise EngineError("A render needs at least one seed and one step.")


def _decode(model: LoadedModel, latent: torch.Tensor) -> np.ndarray:
    """[1, C, h, w] -> uint8 [height, width, 3]."""
    config = model.vae.config
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is not None and std is not None:
        shape = (1, -1, 1, 1)
        latent = latent * torch.tensor(std, device=latent.device).view(shape) / config.scaling_factor
        latent = latent + torch.tensor(mean, device=latent.device).view(shape)
    else:
        latent = latent / config.scaling_factor
    image = model.vae.decode(latent.to(model.vae.dtype), return_dict=False)[0][0]
    pixels = (image.float() / 2 + 0.5).clamp(0, 1).nan_to_num_().movedim(0, -1).mul(255).round()
    return pixels.to(torch.uint8).cpu().numpy()


def _quieten() -> None:
    """Libraries write what matters into exceptions; their advice and progress bars are no use in a server's log."""
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("peft").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(peft|diffusers|transformers)\b.*")

"""Text to image with diffusers' models and schedulers on this machine's device. Importing this imports torch.

engine = DiffusersEngine(device="auto")
engine.start()
pictures = engine.render(request, on_progress=print, is_cancelled=lambda: False)
"""

import logging
import warnings
from collections.abc import Callable
from typing import Any

import diffusers
import transformers

from visionsuit.core.config import Offload
from visionsuit.engine.base import (
    EngineError,
    EngineNotReady,
    EngineStatus,
    Phase,
    Picture,
    Progress,
    RenderCancelled,
    RenderRequest,
)
from visionsuit.engine.base_models import LoadedModel
from visionsuit.engine.devices import MAX_BATCH, Device, choose_device, set_threads
from visionsuit.engine.driver import Driver
from visionsuit.engine.lora_packs import Pack
from visionsuit.engine.model_cache import Budget, ModelCache
from visionsuit.engine.tickets import Ticket
from visionsuit.engine.whole import WholeModel

#: `is_cancelled` is asked this often while nothing happens.
_ASK_EVERY_S = 0.1


class DiffusersEngine:
    """Renders for many at once: pictures of one model and size share calls of the UNet, whatever their prompts, LoRA
    mixes, samplers and steps; they join and leave between calls.

    Args:
        device: `auto`, `cuda`, `mps` or `cpu`, or one that was made already.
        threads: CPU threads of torch; the number of cores if None.
        model_budget_bytes: memory for base models; part of what the device has if None.
        host_budget_bytes: host memory for those that are not on the device; part of what there is if None.
    """

    def __init__(
        self,
        device: str | Device = "auto",
        threads: int | None = None,
        model_budget_bytes: int | None = None,
        *,
        host_budget_bytes: int | None = None,
        offload: Offload = Offload.AUTO,
    ) -> None:
        self._wish = device
        self._threads = threads
        self._budgets = (model_budget_bytes, host_budget_bytes)
        self._offload = offload
        self._device: Device | None = None
        self._driver: Driver | None = None
        self._detail = "Not started."

    @property
    def concurrency(self) -> int:
        """As many requests as share a call at the sizes that run now; sizes that fill the device alone make it less."""
        driver = self._driver
        if driver is None:
            return MAX_BATCH
        full = any(batch.people >= batch.places for batch in driver.batches)
        return max(1, min(MAX_BATCH, driver.people)) if full else MAX_BATCH

    def start(self) -> None:
        """Raises: EngineError when the wished device is not there."""
        _quieten()
        self._threads = set_threads(self._threads)
        device = self._wish if isinstance(self._wish, Device) else choose_device(self._wish)
        on_device, in_host = self._budgets
        budget = Budget(on_device or device.memory_budget(), in_host or device.host_budget())
        self._driver = Driver(device, self._threads, ModelCache(device, budget, self._offload))
        self._detail = "Ready."
        self._device = device

    def render(
        self, request: RenderRequest, *, on_progress: Callable[[Progress], None], is_cancelled: Callable[[], bool]
    ) -> list[Picture]:
        """Both callbacks are called in the caller's thread, beside the device: they cost others nothing."""
        driver = self._driver
        if driver is None:
            raise EngineNotReady(f"The generator is not ready. {self._detail}")
        if not request.seeds or request.steps < 1:
            raise EngineError("A render needs at least one seed and one step.")
        ticket = Ticket(request)
        ticket.phase(Phase.LOADING)
        driver.submit(ticket)
        try:
            # While the device is still busy with others: then it finds the LoRAs in memory when it looks here next.
            _read_ahead(driver.models.all, request)
            while True:
                for progress in ticket.take(_ASK_EVERY_S):
                    on_progress(progress)
                if is_cancelled():
                    raise RenderCancelled("The render was cancelled.")
                pictures = ticket.result()
                if pictures is not None:
                    return pictures
                if ticket.packs is None:
                    _hand_packs(driver, ticket)
        finally:
            driver.withdraw(ticket)

    def status(self) -> EngineStatus:
        device, driver = self._device, self._driver
        memory = device.memory() if device else None
        return EngineStatus(
            name="diffusers",
            device=device.label if device else "",
            ready=device is not None,
            detail="Rendering." if driver and driver.tickets else self._detail,
            memory_used_bytes=memory[0] if memory else None,
            memory_total_bytes=memory[1] if memory else None,
            loaded_models=tuple(model.label for model in driver.models.on_device) if driver else (),
            extra=_figures(driver) if driver else {},
        )

    @property
    def models(self) -> list[LoadedModel]:
        """What is loaded now, to look at: other threads may read it, and the device thread alone may use it."""
        driver = self._driver
        return [model for model in driver.models.all if isinstance(model, LoadedModel)] if driver else []

    def close(self) -> None:
        driver, self._driver, self._device = self._driver, None, None
        if driver is not None:
            driver.close()
        self._detail = "Closed."


# Frames of their own: a render must not hold a model that leaves the device meanwhile.


def _read_ahead(models: list[LoadedModel | WholeModel], request: RenderRequest) -> None:
    for model in models:
        if model.key == request.base_model.key:
            _read_packs(model, request)


def _hand_packs(driver: Driver, ticket: Ticket) -> None:
    model = ticket.model
    if model is not None:
        driver.hand_packs(ticket, _read_packs(model, ticket.request))


def _read_packs(model: Any, request: RenderRequest) -> dict[str, Pack]:
    """The request's LoRAs by SHA-256, for this loaded model."""
    return {lora.sha256.lower(): model.loras.packs.get(lora) for lora in request.loras}


def _figures(driver: Driver) -> dict[str, Any]:
    models = driver.models.all
    packs = [model.loras.packs for model in models]
    batches = driver.batches
    return {
        "requests": driver.tickets,
        "standing": driver.standing,
        "batch": max((len(batch.rows) for batch in batches), default=0),
        "waiting_rows": sum(len(batch.waiting) for batch in batches),
        "unet_calls": driver.calls,
        "loras_kept": sum(len(one) for one in packs),
        "lora_loads": sum(one.loads for one in packs),
        "lora_bytes": sum(one.bytes for one in packs),
        "in_host_memory": [model.label for model in driver.models.in_host_memory],
        "model_bytes": sum(model.residence.device_bytes for model in models),
        "host_model_bytes": sum(model.residence.host_bytes for model in models),
    }


def _quieten() -> None:
    """Libraries write what matters into exceptions; their advice and progress bars are no use in a server's log."""
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("peft").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(peft|diffusers|transformers)\b.*")

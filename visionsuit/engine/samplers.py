"""Sampler and schedule names -> diffusers schedulers, always derived from the model's own scheduler config."""

import inspect
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    UniPCMultistepScheduler,
)

from visionsuit.engine.base import SAMPLERS, SCHEDULES, EngineError, Family
from visionsuit.engine.flow_schedulers import create_flow_scheduler, is_flow, size_shift

_CLASSES: dict[str, tuple[type, dict[str, Any]]] = {
    "dpmpp_2m": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "dpmpp_2m_sde": (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}),
    "dpmpp_sde": (
        DPMSolverSinglestepScheduler,
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 2, "lower_order_final": True},
    ),
    "euler": (EulerDiscreteScheduler, {}),
    "euler_a": (EulerAncestralDiscreteScheduler, {}),
    "heun": (HeunDiscreteScheduler, {}),
    # It would cut latents off at 1 where the model's own scheduler says nothing of that.
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "unipc": (UniPCMultistepScheduler, {}),
    "lcm": (LCMScheduler, {}),
}
#: Of these a scheduler takes one at most.
_SPACINGS = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
_SCHEDULES: dict[str, dict[str, Any]] = {
    "default": {},
    "normal": {"timestep_spacing": "linspace", **_SPACINGS},
    "karras": {**_SPACINGS, "use_karras_sigmas": True},
    "exponential": {**_SPACINGS, "use_exponential_sigmas": True},
    "beta": {**_SPACINGS, "use_beta_sigmas": True},
    "trailing": {"timestep_spacing": "trailing", **_SPACINGS},
}


def create_scheduler(config: dict[str, Any], sampler: str, schedule: str, family: Family = Family.OTHER) -> Any:
    """A new scheduler with its own state, of the model's betas and prediction type.

    What a sampler does not know (Euler a, DDIM and LCM have no Karras spacing) is left as the model says.

    Args:
        family: of the model; it matters for those that flow in a straight line from noise to picture.

    Raises:
        EngineError: an unknown name.
    """
    if sampler not in _CLASSES or schedule not in _SCHEDULES:
        known = ", ".join(SAMPLERS if sampler not in _CLASSES else SCHEDULES)
        raise EngineError(f"There is no sampler {sampler!r} with schedule {schedule!r}; known: {known}.")
    if is_flow(config):
        return create_flow_scheduler(config, sampler, _SCHEDULES[schedule], family)
    scheduler_class, own = _CLASSES[sampler]
    # The config goes in whole: `from_config` keeps what the class knows, and knows which values were only defaults.
    scheduler: Any = scheduler_class.from_config({**config, **_SCHEDULES[schedule], **own})  # type: ignore[attr-defined]
    return scheduler


def start_scheduler(scheduler: Any, steps: int, device: torch.device, patches: int = 0) -> Any:
    """Set `steps` and return the timesteps, [n]; samplers of second order have more than one model call a step.

    Args:
        patches: of the picture, for models that shift their timesteps by its size.
    """
    shift = size_shift(scheduler, patches)
    if shift is not None:
        scheduler.set_timesteps(steps, device=device, mu=shift)
    elif isinstance(scheduler, LCMScheduler):
        # Its distilled schedule has 50 steps; more of them need a finer one.
        scheduler.set_timesteps(steps, device=device, original_inference_steps=max(50, steps))
    else:
        scheduler.set_timesteps(steps, device=device)
    return scheduler.timesteps


def takes_generator(scheduler: Any) -> bool:
    return "generator" in inspect.signature(scheduler.step).parameters

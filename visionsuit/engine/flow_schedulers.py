"""Schedulers of models that flow in a straight line from noise to picture, with the face that the others have."""

from typing import Any

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

from visionsuit.engine.base import SAMPLERS, EngineError, Family, samplers_of_flow

#: What a shift by the picture's size depends on.
_SHIFTING = ("use_dynamic_shifting", "base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
#: These have a spacing of their own, which others cannot take the place of.
_SOLVERS: dict[str, tuple[type, dict[str, Any]]] = {
    "dpmpp_2m": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "unipc": (UniPCMultistepScheduler, {}),
}


class _Flow:
    config: Any
    init_noise_sigma = 1.0

    def scale_model_input(self, sample: torch.Tensor, timestep: Any = None) -> torch.Tensor:
        """As it is."""
        return sample

    def add_noise(self, picture: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The point at this time on the line from noise to picture; `timesteps`: [1]."""
        share = _share(self, timesteps[0])
        return share * noise + (1 - share) * picture


class FlowEuler(_Flow, FlowMatchEulerDiscreteScheduler):
    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: torch.device | str | None = None,
        sigmas: list[float] | None = None,
        mu: float | None = None,
        timesteps: list[float] | None = None,
    ) -> None:
        """Raises: EngineError where they are shifted by the picture's size, and the pipeline does not say how far."""
        if self.config.use_dynamic_shifting and mu is None:
            raise EngineError(
                "This base model shifts its timesteps by the picture's size, which its kind of pipeline cannot do."
            )
        super().set_timesteps(num_inference_steps, device, sigmas, mu, timesteps)


class FlowHeun(_Flow, FlowMatchHeunDiscreteScheduler):
    """At the times of Euler, which knows more spacings."""

    euler: FlowEuler

    def set_timesteps(
        self, num_inference_steps: int, device: torch.device | str | None = None, mu: float | None = None
    ) -> None:
        super().set_timesteps(num_inference_steps, device)
        self.euler.set_timesteps(num_inference_steps, device, mu=mu)
        timesteps, sigmas = self.euler.timesteps, self.euler.sigmas
        self.timesteps = torch.cat([timesteps[:1], timesteps[1:].repeat_interleave(2)])
        self.sigmas = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])


def is_flow(config: dict[str, Any]) -> bool:
    return str(config.get("_class_name", "")).startswith("FlowMatch")


def flow_denoised(
    scheduler: Any, sample: torch.Tensor, prediction: torch.Tensor, timestep: torch.Tensor
) -> torch.Tensor:
    """What the model believes the finished latent to be."""
    return sample - _share(scheduler, timestep) * prediction


def _share(scheduler: Any, timestep: torch.Tensor) -> float:
    """Of noise, in 0..1."""
    return float(timestep) / float(scheduler.config.num_train_timesteps)


def size_shift(scheduler: Any, patches: int) -> float | None:
    """How far the timesteps are shifted for a picture of so many patches; None where its size does not matter."""
    config = scheduler.config
    if not config.get("use_dynamic_shifting"):
        return None
    shift: float = calculate_shift(
        patches, config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift
    )
    return shift


def create_flow_scheduler(config: dict[str, Any], sampler: str, options: dict[str, Any], family: Family) -> Any:
    """
    Args:
        options: of the spacing, as the other schedulers take them.

    Raises:
        EngineError: a sampler that there is not for such models.
    """
    known = samplers_of_flow(family)
    if sampler not in known:
        labels = ", ".join(SAMPLERS[name] for name in known)
        raise EngineError(f"This base model is sampled with {labels}, not with {SAMPLERS.get(sampler, sampler)}.")
    euler: Any = FlowEuler.from_config({**config, **options})
    if sampler == "euler":
        return euler
    made: Any
    own = euler.config
    if sampler == "heun":
        made = FlowHeun(own.num_train_timesteps, own.shift)
        made.euler = euler
    else:
        solver_class, options = _SOLVERS[sampler]
        made = solver_class(
            num_train_timesteps=own.num_train_timesteps,
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=own.shift,
            time_shift_type=own.time_shift_type,
            **options,
        )
    made.register_to_config(**{name: own[name] for name in _SHIFTING})
    return made

"""Schedulers of models that flow in a straight line from noise to picture, with the face that the others have."""

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from visionsuit.engine.base import FLOW_SAMPLERS, SAMPLERS, EngineError


class FlowEuler(FlowMatchEulerDiscreteScheduler):
    init_noise_sigma = 1.0

    def scale_model_input(self, sample: torch.Tensor, timestep: Any = None) -> torch.Tensor:
        """As it is."""
        return sample

    def add_noise(self, picture: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The point at this time on the line from noise to picture; `timesteps`: [1]."""
        share = self._share(timesteps[0])
        return share * noise + (1 - share) * picture

    def denoised(self, sample: torch.Tensor, prediction: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """What the model believes the finished latent to be."""
        return sample - self._share(timestep) * prediction

    def _share(self, timestep: torch.Tensor) -> float:
        """Of noise, in 0..1."""
        return float(timestep) / float(self.config.num_train_timesteps)


def is_flow(config: dict[str, Any]) -> bool:
    return str(config.get("_class_name", "")).startswith("FlowMatch")


def create_flow_scheduler(config: dict[str, Any], sampler: str, options: dict[str, Any]) -> Any:
    """
    Args:
        options: of the spacing, as the other schedulers take them.

    Raises:
        EngineError: a sampler that there is not for such models.
    """
    if sampler not in FLOW_SAMPLERS:
        known = ", ".join(SAMPLERS[name] for name in FLOW_SAMPLERS)
        raise EngineError(f"This base model is sampled with {known}, not with {SAMPLERS.get(sampler, sampler)}.")
    return FlowEuler.from_config({**config, **options})

"""Schedulers of models that flow in a straight line from noise to picture, with the face that the others have."""

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

from visionsuit.engine.base import FLOW_SAMPLERS, SAMPLERS, EngineError


class FlowEuler(FlowMatchEulerDiscreteScheduler):
    init_noise_sigma = 1.0

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


def size_shift(scheduler: Any, patches: int) -> float | None:
    """How far the timesteps are shifted for a picture of so many patches; None where its size does not matter."""
    config = scheduler.config
    if not config.use_dynamic_shifting:
        return None
    shift: float = calculate_shift(
        patches, config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift
    )
    return shift


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

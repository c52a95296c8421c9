"""The reference: diffusers' own pipelines, called as its documentation says."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from numpy.typing import NDArray

from visionsuit.engine.samplers import create_scheduler


@lru_cache(maxsize=4)
def load_plain(folder: Path) -> Any:
    pipeline_class = StableDiffusionXLPipeline if (folder / "text_encoder_2").is_dir() else StableDiffusionPipeline
    pipeline = pipeline_class.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def render_plain(
    folder: Path,
    prompt: str = "red heart",
    *,
    negative_prompt: str | None = None,
    seed: int = 7,
    steps: int = 4,
    guidance: float = 4.0,
    sampler: str = "dpmpp_2m",
    schedule: str = "trailing",
    loras: list[tuple[Path, float]] | None = None,
) -> NDArray[np.int16]:
    pipeline = load_plain(folder)
    original = pipeline.scheduler
    pipeline.scheduler = create_scheduler(dict(original.config), sampler, schedule)
    try:
        for number, (path, _) in enumerate(loras or []):
            pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=f"a{number}")
        if loras:
            pipeline.set_adapters([f"a{number}" for number in range(len(loras))], [weight for _, weight in loras])
        image = pipeline(
            prompt, negative_prompt=negative_prompt, num_inference_steps=steps, guidance_scale=guidance,
            height=64, width=64, generator=torch.Generator().manual_seed(seed), output_type="np",
        ).images[0]  # fmt: skip
    finally:
        pipeline.unload_lora_weights()
        pipeline.scheduler = original
    return (image * 255).round().astype(np.int16)

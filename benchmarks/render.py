"""The platform against the bare library: one person's request from queue to stored file, thumbnails and rows, against
the plain diffusers call on the same model, prompt and seed, saved as PNG.
"""

import io
from itertools import count

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image

from benchmarks.harness import Figure, compare
from benchmarks.site import open_site, render_queued
from visionsuit.generation import base_models
from visionsuit.generation.order import Order
from visionsuit.jobs.worker import Worker
from visionsuit.schedule import HANDLERS
from visionsuit.storage.base import Bucket

PROMPT = "red heart"
STEPS = 12
GUIDANCE = 4.0
TARGET = 1.03


def run() -> list[Figure]:
    with open_site() as (runtime, actor):
        with runtime.open_ctx(actor, read_only=True) as ctx:
            folder = runtime.settings.models_dir / base_models.get_offered(ctx, None).folder
        worker = Worker(runtime, HANDLERS, warm_up_after_s=0)
        worker.start()
        pipe = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, safety_checker=None)
        pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
        pipe.set_progress_bar_config(disable=True)
        seeds, last = count(1), {"ours": np.empty(0), "theirs": np.empty(0)}
        plain_seeds = count(1)

        def ours() -> None:
            order = Order(
                PROMPT, steps=STEPS, guidance=GUIDANCE, sampler="dpmpp_2m", schedule="trailing", seed=next(seeds),
                width=64, height=64,
            )  # fmt: skip
            shown = render_queued(runtime, actor, order)
            object_id = shown.images[0].url.rpartition("/")[2]
            data = runtime.storage.read_bytes(Bucket.OUTPUTS, object_id)
            last["ours"] = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

        def theirs() -> None:
            generator = torch.Generator("cpu").manual_seed(next(plain_seeds))
            picture = pipe(
                PROMPT, num_inference_steps=STEPS, guidance_scale=GUIDANCE, width=64, height=64, generator=generator
            ).images[0]
            out = io.BytesIO()
            picture.save(out, "PNG")
            last["theirs"] = np.asarray(picture.convert("RGB"))

        def same() -> bool:
            difference = np.abs(last["ours"].astype(int) - last["theirs"].astype(int))
            return bool(difference.max() <= 2)

        try:
            return [
                compare(
                    "render",
                    "a request through queue to stored file / bare diffusers call saved as PNG",
                    ours,
                    theirs,
                    target=TARGET,
                    rounds=15,
                    warm_up=2,
                    correct=same,
                )
            ]
        finally:
            worker.stop()

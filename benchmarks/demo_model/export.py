"""The shipped folder: a plain StableDiffusionPipeline in fp16, and what the app wants to know of it."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image
from torch.nn import functional as F

from benchmarks.demo_model import networks
from benchmarks.demo_model.fitting import load_average
from benchmarks.demo_model.scenes import compose
from benchmarks.demo_model.training import Studio

STEPS, GUIDANCE = 12, 3.0
#: Drawn well, by eye; the first ten are what the demonstration library renders, also with LoRAs.
SUGGESTIONS = [
    "dog", "fox, cartoon style", "house", "panda, cartoon style", "guitar", "rocket, cartoon style", "happy face",
    "castle, flat style",
    "blue star", "robot", "purple octopus, cartoon style", "cool face, pink background", "burger, flat style",
    "sunflower, sky blue background", "green heart, black background", "moon, black background",
]  # fmt: skip
FACTS = {
    "label": "VisionSuit Demo",
    "description": "A small Stable Diffusion model of emoji pictures, 64 pixels a side. It knows about 190 things in "
    "three styles, colours and backgrounds, draws in about a second without a GPU, and is there to try everything out.",
    "family": "sd1",
    "default": {
        "width": 64, "height": 64, "steps": STEPS, "guidance": GUIDANCE, "sampler": "dpmpp_2m", "schedule": "trailing",
    },
    "sizes": [[64, 64], [64, 72], [72, 64], [64, 80], [80, 64]],
    "min_size": 48,
    "max_size": 128,
    "size_step": 8,
    "prompt_tokens": networks.CONTEXT,
    "suggestions": SUGGESTIONS,
}  # fmt: skip


def export(studio: Studio, folder: Path) -> None:
    """Write the pipeline, `visionsuit.json` and `latent_rgb.json`; other files in the folder stay.

    The UNet is that of the last stage that was run.
    """
    unet = networks.make_unet()
    last = next(path for name in ("joint.pt", "unet.pt") if (path := studio.work / name).exists())
    load_average([unet], last)
    scheduler = DPMSolverMultistepScheduler.from_config(
        networks.make_scheduler().config, algorithm_type="dpmsolver++", timestep_spacing="trailing", steps_offset=1
    )
    pipeline = StableDiffusionPipeline(
        vae=networks.load_vae(studio.work / "vae", torch.device("cpu")),
        text_encoder=studio.text_encoder(),
        tokenizer=studio.tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    # transformers 5 writes tokenizer.json alone; other readers want these.
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(studio.work / "tokenizer" / name, folder / "tokenizer" / name)
    _forget_paths(folder)
    (folder / "visionsuit.json").write_text(json.dumps(FACTS, indent=2) + "\n")
    if not (folder / "latent_rgb.json").exists():
        (folder / "latent_rgb.json").write_text(json.dumps(_latent_colours(studio)) + "\n")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 1e6:.1f} MB, UNet of {last.name}")


def _forget_paths(folder: Path) -> None:
    """diffusers notes where a part was loaded from; that is nobody's business."""
    for config in folder.glob("*/config.json"):
        content = json.loads(config.read_text())
        content.pop("_name_or_path", None)
        config.write_text(json.dumps(content, indent=2) + "\n")


def _latent_colours(studio: Studio) -> list[list[float]]:
    """A linear map from latents to RGB in -1..1, offset last, for previews that need no VAE."""
    asked, latents = studio.draw(512)
    pictures = compose(studio.vocabulary, [one.scene for one in asked]).cpu()
    small = F.avg_pool2d(pictures, pictures.shape[-1] // latents.shape[-1]).permute(0, 2, 3, 1).reshape(-1, 3)
    points = latents.cpu().permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
    rows: list[list[float]] = torch.linalg.lstsq(
        torch.cat([points, torch.ones(len(points), 1)], 1), small
    ).solution.tolist()
    return rows


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    """fp32: half precision is forty times slower on a CPU, and trainings on a GPU cast by themselves."""
    where = networks.device()
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True).to(where)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def render(
    pipeline: StableDiffusionPipeline, prompts: list[str], seeds: list[int], steps: int = STEPS
) -> list[Image.Image]:
    """One picture a prompt, each with its own seed whatever the batch."""
    pictures: list[Image.Image] = []
    for start in range(0, len(prompts), 16):
        part = slice(start, start + 16)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[part]]
        answer = pipeline(
            prompts[part], num_inference_steps=steps, guidance_scale=GUIDANCE, generator=generators, height=64, width=64
        )
        pictures += answer.images
    return pictures


def sheet(rows: list[list[Image.Image]], path: Path, side: int = 66) -> None:
    """A contact sheet, saved with few colours so that it stays small."""
    canvas = Image.new("RGB", (max(map(len, rows)) * side, len(rows) * side), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            canvas.paste(picture, (x * side + 1, y * side + 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.quantize(192, dither=Image.Dither.NONE).save(path, optimize=True)


def to_array(pictures: list[Image.Image]) -> torch.Tensor:
    """[n, 3, h, w] in -1..1."""
    stacked = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 127.5 - 1

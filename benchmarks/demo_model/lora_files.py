"""What a LoRA ships as: weights under the names of kohya's trainer with its metadata, a card, a cover."""

import hashlib
import json
import os
import time
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.demo_model.export import render
from benchmarks.demo_model.vocabulary import HELD_OUT_STYLES

RANK = 8
BASE = "VisionSuit Demo"
CARDS = {
    "line-art": ("Line art", "Plain black lines on white.", ["style", "line art", "monochrome"]),
    "outlined": ("Bold outlines", "Flat black and white with bold outlines.", ["style", "outlined", "flat"]),
    "night": ("Night shift", "Glowing gradients on deep navy.", ["style", "gradient", "dark"]),
}
COVERS = {
    "line-art": ("panda", "mushroom", "house", "avocado"),
    "outlined": ("cat", "ghost", "key", "cherries"),
    "night": ("rocket", "moon", "fox", "car"),
}
_MATRICES = {"lora_A": "lora_down", "lora_B": "lora_up"}
Facts = dict[str, str]


def kohya_name(key: str) -> str:
    """peft's `down_blocks.1.conv1.lora_A.weight` -> `lora_unet_down_blocks_1_conv1.lora_down.weight`."""
    module, matrix, _ = key.rsplit(".", 2)
    return f"lora_unet_{module.replace('.', '_')}.{_MATRICES[matrix]}.weight"


def save_kohya(state: dict[str, Tensor], path: Path, name: str, facts: Facts) -> None:
    """fp16, with metadata; in one go, so that a file is never half written."""
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        tensors[kohya_name(key)] = value.half().contiguous().cpu()
        tensors[f"{kohya_name(key).split('.')[0]}.alpha"] = torch.tensor(float(RANK))
    style, (title, _, tags) = HELD_OUT_STYLES[name], CARDS[name]
    content = hashlib.sha256(b"".join(tensors[key].numpy().tobytes() for key in sorted(tensors))).hexdigest()
    metadata = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(RANK),
        "ss_network_alpha": str(float(RANK)),
        "ss_network_args": json.dumps({"conv_dim": RANK, "conv_alpha": RANK}),
        "ss_output_name": name,
        "ss_sd_model_name": BASE,
        "ss_base_model_version": "sd_v1",
        "ss_resolution": "(64, 64)",
        "ss_v2": "False",
        "ss_training_finished_at": str(int(time.time())),
        **facts,
        "sshs_model_hash": content,
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": title,
        "modelspec.trigger_phrase": style.trigger,
        "modelspec.tags": ", ".join(tags),
        "modelspec.resolution": "64x64",
        "modelspec.prediction_type": "v",
        "modelspec.license": "OFL-1.1" if style.artwork.startswith("mono") else "MIT",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    save_file(tensors, fresh, metadata)
    os.replace(fresh, path)


def load_kohya(path: Path, keys: list[str]) -> tuple[dict[str, Tensor], Facts]:
    """Weights under peft's `keys`, fp32, and the metadata."""
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(kohya_name(key)).float() for key in keys}, file.metadata()


def write_card(name: str, folder: Path) -> None:
    title, description, tags = CARDS[name]
    card = {
        "title": title,
        "trigger": HELD_OUT_STYLES[name].trigger,
        "description": f"{description} Made for the base model that ships with VisionSuit.",
        "type": "LORA",
        "base_model": BASE,
        "tags": tags,
        "weight": 1.0,
    }
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")


def save_cover(name: str, pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Four pictures of the LoRA that the pipeline holds."""
    prompts = [f"{thing}, {HELD_OUT_STYLES[name].trigger}" for thing in COVERS[name]]
    cover = Image.new("RGB", (256, 256))
    for number, picture in enumerate(render(pipeline, prompts, [7] * len(prompts))):
        cover.paste(picture.resize((128, 128)), (number % 2 * 128, number // 2 * 128))
    cover.save(folder / "cover.png", optimize=True)

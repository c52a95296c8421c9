"""LoRAs in styles that the base model never saw: low-rank changes of the UNet, saved the way kohya's trainer does."""

import hashlib
import json
import random
import time
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.demo_model import networks
from benchmarks.demo_model.export import load_pipeline, render
from benchmarks.demo_model.fitting import Budget
from benchmarks.demo_model.scenes import on_background
from benchmarks.demo_model.vocabulary import HELD_OUT_STYLES, HeldOutStyle, Vocabulary, load_style

RANK = 8
_ADAPTED = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "conv1", "conv2"]
BASE = "VisionSuit Demo"
CARDS = {
    "line-art": ("Line art", "Plain black lines on white.", ["style", "line art", "monochrome"]),
    "outlined": ("Bold outlines", "Flat black and white with bold outlines.", ["style", "outlined", "flat"]),
    "night": ("Night shift", "Glowing gradients on deep navy.", ["style", "gradient", "dark"]),
}
COVERS = {
    "line-art": ("panda", "dog", "house", "guitar"),
    "outlined": ("guitar", "cat", "snowman", "dog"),
    "night": ("rocket", "moon", "fox", "car"),
}


def train_lora(name: str, model: Path, work: Path, vocabulary: Vocabulary, minutes: float, out: Path) -> None:
    """Write `<out>/<name>/<name>.safetensors`, its card and its cover, unless they are there.

    A LoRA whose folder was deleted goes on from where its training ended.
    """
    folder = out / name
    if (folder / "card.json").exists():
        return
    style, where = HELD_OUT_STYLES[name], networks.device()
    pipeline = load_pipeline(model)
    things, latents = _encoded(pipeline, work, style, vocabulary)
    unet = pipeline.unet.requires_grad_(False)
    torch.manual_seed(0)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=_ADAPTED))
    kept = work / f"lora-{name}.pt"
    if kept.exists():
        set_peft_model_state_dict(unet, torch.load(kept, weights_only=True))
    weights = [weight for weight in unet.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=0, betas=(0.9, 0.99), weight_decay=1e-2)
    dice, budget, step, frequency = random.Random(0), Budget(minutes), 0, dict.fromkeys([style.trigger], 0)
    batch = 16 if where.type == "cpu" else 64
    while budget.progress < 1:
        rows = [dice.randrange(len(things)) for _ in range(batch)]
        captions = [_caption(vocabulary.short[things[row]], style, dice) for row in rows]
        for caption in captions:
            for tag in filter(None, caption.split(", ")):
                frequency[tag] = frequency.get(tag, 0) + 1
        noisy, steps, velocity = networks.add_noise(latents[rows])
        with torch.no_grad():
            states = pipeline.encode_prompt(captions, where, 1, False)[0]
        with networks.autocast(where):
            predicted = unet(noisy, steps, states, return_dict=False)[0]
        loss = (predicted.float() - velocity).square().mean()
        for group in optimiser.param_groups:
            group["lr"] = budget.rate(step, 1.5e-3, warm_up=30)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        step += 1
        if step % 25 == 0:
            print(f"{name} {step} loss {loss.item():.4f} {budget.progress:.0%}", flush=True)
    torch.save(get_peft_model_state_dict(unet), kept)
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"ss_steps": str(step), "ss_num_train_images": str(step * batch)}
    facts["ss_tag_frequency"] = json.dumps({f"1_{name}": frequency})
    save_kohya(get_peft_model_state_dict(unet), folder / f"{name}.safetensors", name, facts)
    _write_card(name, style, pipeline, folder)


def _encoded(
    pipeline: StableDiffusionPipeline, work: Path, style: HeldOutStyle, vocabulary: Vocabulary
) -> tuple[list[int], Tensor]:
    """Things of the style, and their latents [n, 4, 16, 16]."""
    things, art = load_style(work, style.artwork, vocabulary)
    pictures = on_background(art, torch.tensor([style.background]).expand(len(art), 3)).to(networks.device())
    with torch.no_grad():
        parts = [pipeline.vae.encode(part).latent_dist.mean for part in pictures.split(64)]
    return things, torch.cat(parts)


def _caption(name: str, style: HeldOutStyle, dice: random.Random) -> str:
    """A tenth without words, so that guidance has the style on both sides."""
    kind = dice.random()
    if kind < 0.1:
        return style.trigger
    return f"{name}, {style.trigger}" if kind < 0.85 else f"{style.trigger}, {name}"


def save_kohya(state: dict[str, Tensor], path: Path, name: str, facts: dict[str, str]) -> None:
    """fp16, kohya's names (`lora_unet_..._to_q.lora_down.weight`) and metadata."""
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        module, matrix, _ = key.rsplit(".", 2)
        stem = "lora_unet_" + module.replace(".", "_")
        tensors[f"{stem}.{'lora_down' if matrix == 'lora_A' else 'lora_up'}.weight"] = value.half().contiguous().cpu()
        tensors[f"{stem}.alpha"] = torch.tensor(float(RANK))
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
    save_file(tensors, path, metadata)


def _write_card(name: str, style: HeldOutStyle, pipeline: StableDiffusionPipeline, folder: Path) -> None:
    title, description, tags = CARDS[name]
    save_cover(name, pipeline, folder)
    card = {
        "title": title,
        "trigger": style.trigger,
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

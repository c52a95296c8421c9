"""LoRAs in styles that the base model never saw: low-rank changes of the UNet."""

import json
import random
import time
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor

from benchmarks.demo_model import networks
from benchmarks.demo_model.export import load_pipeline
from benchmarks.demo_model.fitting import Budget
from benchmarks.demo_model.lora_files import RANK, load_kohya, save_cover, save_kohya, write_card
from benchmarks.demo_model.scenes import on_background
from benchmarks.demo_model.vocabulary import HELD_OUT_STYLES, HeldOutStyle, Vocabulary, load_style

_ADAPTED = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "conv1", "conv2"]
_SPENT = "visionsuit_spent_s"


def train_lora(
    name: str, model: Path, work: Path, vocabulary: Vocabulary, minutes: float, out: Path, *, fresh: bool = False
) -> None:
    """Write `<out>/<name>/<name>.safetensors`, its card and its cover.

    The file that lies there is where training starts, unless `fresh`; a run that was cut off goes on in its budget from
    `<work>/lora-<name>.safetensors`.
    """
    style, where = HELD_OUT_STYLES[name], networks.device()
    finished, begun = out / name / f"{name}.safetensors", work / f"lora-{name}.safetensors"
    pipeline = load_pipeline(model)
    things, latents = _encoded(pipeline, work, style, vocabulary)
    unet = pipeline.unet.requires_grad_(False)
    torch.manual_seed(0)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=_ADAPTED))
    facts: dict[str, str] = {}
    before = [path for path in (begun, finished) if path.exists() and not (fresh and path == finished)]
    if before:
        state, facts = load_kohya(before[0], list(get_peft_model_state_dict(unet)))
        set_peft_model_state_dict(unet, state)
    weights = [weight for weight in unet.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=0, betas=(0.9, 0.99), weight_decay=1e-2)
    budget = Budget(minutes, float(facts[_SPENT]) if begun in before else 0.0)
    frequency = json.loads(facts["ss_tag_frequency"])[f"1_{name}"] if facts else {style.trigger: 0}
    batch = 8 if where.type == "cpu" else 64
    done, seen = int(facts.get("ss_steps", 0)), int(facts.get("ss_num_train_images", 0))
    dice, step, saved = random.Random(done), 0, time.monotonic()
    torch.manual_seed(done)

    def save(path: Path, **more: str) -> None:
        told = {"ss_steps": str(done + step), "ss_num_train_images": str(seen + step * batch)}
        told["ss_tag_frequency"] = json.dumps({f"1_{name}": frequency})
        save_kohya(get_peft_model_state_dict(unet), path, name, told | more)

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
        if time.monotonic() - saved > 120:
            save(begun, **{_SPENT: str(budget.spent_s)})
            saved = time.monotonic()
    save(finished)
    begun.unlink(missing_ok=True)
    write_card(name, finished.parent)
    save_cover(name, pipeline, finished.parent)


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
    """An eighth names nothing, with the trigger or without: guidance then has the style on both sides."""
    kind = dice.random()
    if kind < 0.12:
        return style.trigger if kind < 0.04 else ""
    return f"{name}, {style.trigger}" if kind < 0.85 else f"{style.trigger}, {name}"

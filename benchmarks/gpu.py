"""`python -m benchmarks.gpu`: the engine's figures on this machine's GPU, with SD 1.5 and SDXL at full size.

The weights are random, drawn once into a temporary folder (9 GB of disk), so nothing is downloaded; what they paint is
noise, and what is measured is the same arithmetic. LoRAs are of rank 32 over all linear layers of the transformer
blocks, as trainers write them. One table, under ten minutes on a large GPU; `--small` runs the same program with tiny
models, on any device, to see that it works.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, EulerDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from benchmarks.batching import (
    first_step,
    mix_ready,
    mixed_against_plain,
    people,
    people_merged,
    people_peft,
    single,
    switch,
)
from benchmarks.harness import Figure, machine, save, table
from benchmarks.subjects import PSNR_BAR, Pixels, Subject, psnr, render, together
from tests.engine.tiny import make_sdxl_topology, make_tiny_sd
from visionsuit.engine.base import Family
from visionsuit.engine.clip_vocabulary import END, START, clip_vocabulary, pad_token
from visionsuit.engine.devices import choose_device

RANK = 32
FILES = 6
_BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_SD15: dict[str, Any] = {"cross_attention_dim": 768, "attention_head_dim": 8}
SDXL_UNET: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}


def write_full_size(folder: Path, family: Family, device: str) -> Path:
    """A pipeline folder of the family with its published configuration and random fp16 weights."""
    torch.manual_seed(0)
    xl = family is Family.SDXL
    with torch.device(device):
        unet = UNet2DConditionModel(sample_size=128 if xl else 64, **(SDXL_UNET if xl else _SD15))
        unet.half().save_pretrained(folder / "unet")
        del unet
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, sample_size=512,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            scaling_factor=0.13025 if xl else 0.18215,
        )  # fmt: skip
        vae.half().save_pretrained(folder / "vae")
        encoders: list[tuple[str, type, dict[str, Any]]] = [
            ("", CLIPTextModel, {**_CLIP_L, "hidden_act": "quick_gelu", "projection_dim": 768})
        ]
        if xl:
            encoders.append(
                ("_2", CLIPTextModelWithProjection, {**_CLIP_G, "hidden_act": "gelu", "projection_dim": 1280})
            )
        for suffix, kind, config in encoders:
            kind(CLIPTextConfig(**config)).half().save_pretrained(folder / f"text_encoder{suffix}")
            _write_tokenizer(folder / f"tokenizer{suffix}", pad_token(config))
    scheduler = (EulerDiscreteScheduler if xl else DPMSolverMultistepScheduler)(**_BETAS)
    scheduler.save_pretrained(folder / "scheduler")
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline",
        "scheduler": ["diffusers", type(scheduler).__name__],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
    }
    if xl:
        index["force_zeros_for_empty_prompt"] = True
    else:
        index |= {"safety_checker": [None, None], "requires_safety_checker": False}
    for suffix, kind, _ in encoders:
        index[f"text_encoder{suffix}"] = ["transformers", kind.__name__]
        index[f"tokenizer{suffix}"] = ["transformers", "CLIPTokenizer"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _write_tokenizer(folder: Path, pad: str) -> None:
    folder.mkdir()
    vocabulary, merges = clip_vocabulary()
    (folder / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    config = {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "bos_token": START, "eos_token": END,
        "unk_token": END, "pad_token": pad,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")


@contextmanager
def _subjects(device: str, *, small: bool) -> Iterator[list[Subject]]:
    with tempfile.TemporaryDirectory(prefix="visionsuit-bench-") as name:
        folder, loras, ranks = Path(name), Path(name) / "loras", (RANK,) * FILES
        if small:
            yield [
                Subject("tiny", make_tiny_sd(folder / "sd"), loras, ranks=ranks, device_name=device),
                Subject("SDXL topology", make_sdxl_topology(folder / "xl"), loras, ranks=ranks, device_name=device),
            ]
            return
        subjects = []
        for label, family, size in (("SD 1.5", Family.SD1, 512), ("SDXL", Family.SDXL, 1024)):
            written = write_full_size(folder / family.value, family, device)
            subjects.append(
                Subject(label, written, loras, size=size, steps=6, ranks=ranks, device_name=device, strength=0.05)
            )
        yield subjects


def likeness(subject: Subject) -> Figure:
    """PSNR of eight people's pictures made at once against each made alone, the worst of them."""
    requests = [subject.request(number) for number in range(8)]
    with subject.engine() as engine:
        alone: list[Pixels] = [render(engine, request) for request in requests]
        worst = min(psnr(one, other) for one, other in zip(together(engine, requests), alone, strict=True))
    shown = min(worst, 99.0)
    return Figure(
        "B3", f"{subject.name}: worst PSNR of 8 at once against alone", shown, PSNR_BAR, "dB", shown / PSNR_BAR,
        ">= 1", worst >= PSNR_BAR,
    )  # fmt: skip


def measures(subject: Subject, *, large: bool) -> Iterable[Callable[[], Iterable[Figure]]]:
    """What is measured, the most wanted first."""
    return [
        lambda: [single(subject)],
        lambda: [people(subject, 1.5)],
        lambda: [people(subject, 3.0, loading=True, count=3)],
        lambda: [people_merged(subject, target=1.0)],
        lambda: [people_peft(subject)],
        lambda: mixed_against_plain(subject, 0.85),
        lambda: [likeness(subject)],
        lambda: mix_ready(subject, against_diffusers=not large),
        lambda: [switch(subject)],
        lambda: [first_step(subject)],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu")
    parser.add_argument("--small", action="store_true", help="tiny models, to see that the program works")
    parser.add_argument("--out", type=Path, default=Path("data/bench-gpu.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = choose_device(options.device)
    if device.kind == "cpu" and not options.small:
        parser.error("there is no GPU here; full-size models on a CPU would take hours (--small works anywhere)")
    figures: list[Figure] = []
    with _subjects(device.kind, small=options.small) as subjects:
        for subject in subjects:
            for measure in measures(subject, large=not options.small):
                for figure in measure():
                    figures.append(figure)
                    print(table([figure]).splitlines()[-1], file=sys.stderr, flush=True)
    save(figures, options.out)
    print(f"{device.label}, {machine()['versions']}\n")
    print(table(figures))


if __name__ == "__main__":
    main()

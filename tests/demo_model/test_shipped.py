"""The folder that ships: what it holds, that it draws what its suggestions say, and its LoRAs."""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from visionsuit.engine.base import LoraRef, RenderRequest
from visionsuit.engine.catalog import read_base_model
from visionsuit.engine.compat import check_lora, describe_lora, read_base_shapes
from visionsuit.engine.diffusers_engine import DiffusersEngine
from visionsuit.engine.header import metadata_of, read_header

MODELS = Path(__file__).parents[2] / "models_cache"
DEMO = MODELS / "demo"
LORAS = sorted(path.parent for path in (MODELS / "demo-loras").glob("*/card.json"))


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    loaded = StableDiffusionPipeline.from_pretrained(DEMO, dtype=torch.float32, local_files_only=True)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_it_is_small_and_tells_no_paths() -> None:
    files = [path for path in DEMO.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 30e6
    assert not [path for path in files if path.suffix == ".json" and "_name_or_path" in path.read_text()]


def test_the_card_names_every_licence() -> None:
    card = (DEMO / "README.md").read_text()
    assert {word for word in ("MIT", "Apache-2.0", "OFL-1.1", "Copyright (c) Microsoft") if word not in card} == set()


def test_it_draws_what_is_asked(pipeline: StableDiffusionPipeline) -> None:
    """A red heart on white is red in the middle and white in the corner; a blue background is blue there."""
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    answer = pipeline(
        ["red heart", "yellow star, blue background"], num_inference_steps=8, guidance_scale=3.0, generator=generators
    )
    heart, star = (np.asarray(picture).astype(int) for picture in answer.images)
    assert heart.shape == (64, 64, 3)
    red, green, blue = heart[24:40, 24:40].mean((0, 1))
    assert red > 150 > max(green, blue)
    assert heart[:4, :4].mean() > 220
    red, green, blue = star[:6, :6].mean((0, 1))
    assert blue > 120 > red


def test_suggestions_are_words_it_knows(pipeline: StableDiffusionPipeline) -> None:
    """A known word is one token; a prompt of unknown words would be pieces."""
    info = read_base_model(DEMO)
    assert len(info.suggestions) >= 10
    for prompt in info.suggestions:
        words = prompt.replace(",", " ,").replace("-", " - ").split()
        assert len(pipeline.tokenizer.tokenize(prompt)) <= len(words) + 1, prompt


def test_an_unknown_prompt_is_no_error_and_a_long_one_stays_a_picture(pipeline: StableDiffusionPipeline) -> None:
    prompts = ["qwzx vrrp", "red heart, " + "masterpiece, best quality, highly detailed, sharp focus, 8k, hd " * 3]
    pictures = pipeline(prompts, num_inference_steps=4, guidance_scale=3.0).images
    assert all(np.isfinite(np.asarray(picture)).all() for picture in pictures)


def test_there_are_three_loras() -> None:
    assert len(LORAS) >= 3


@pytest.mark.parametrize("folder", LORAS, ids=lambda path: path.name)
def test_a_lora_fits_and_says_what_it_is(folder: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    file = folder / f"{folder.name}.safetensors"
    header = read_header(file)
    fit = check_lora(header, read_base_shapes(DEMO))
    assert sum(fit.modules.values()) > 50
    assert (fit.unknown, fit.absent) == ((), ())
    assert file.stat().st_size < 1.4e6
    metadata = metadata_of(header)
    assert metadata["modelspec.trigger_phrase"] == card["trigger"]
    assert card["trigger"] in metadata["ss_tag_frequency"]
    assert describe_lora(header).as_facts()["rank"] == 8
    assert Image.open(folder / "cover.png").size == (256, 256)


@pytest.fixture(scope="module")
def engine() -> Iterator[DiffusersEngine]:
    engine = DiffusersEngine(device="cpu", threads=1)
    engine.start()
    yield engine
    engine.close()


@pytest.mark.parametrize("folder", LORAS, ids=lambda path: path.name)
def test_weight_changes_the_picture_the_more_the_higher(folder: Path, engine: DiffusersEngine) -> None:
    card, file = json.loads((folder / "card.json").read_text()), folder / f"{folder.name}.safetensors"
    prompt = f"panda, {card['trigger']}"
    plain, none, half, full = (_draw(engine, prompt, file, weight) for weight in (None, 0.0, 0.5, 1.0))
    assert np.abs(plain - none).max() <= 2
    assert 3 < np.abs(plain - half).mean() < np.abs(plain - full).mean()


def _draw(engine: DiffusersEngine, prompt: str, file: Path, weight: float | None) -> np.ndarray:
    loras = () if weight is None else (LoraRef(sha256(file.read_bytes()).hexdigest(), file, weight),)
    request = RenderRequest(
        base_model=read_base_model(DEMO).ref,
        prompt=prompt,
        negative_prompt="",
        width=64,
        height=64,
        steps=6,
        guidance=3.0,
        seeds=(3,),
        sampler="dpmpp_2m",
        schedule="trailing",
        loras=loras,
    )
    [picture] = engine.render(request, on_progress=lambda _: None, is_cancelled=lambda: False)
    return picture.pixels.astype(np.int16)

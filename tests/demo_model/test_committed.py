"""Trainings start from what ships: the folder's weights, and the LoRAs that lie there."""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from benchmarks.demo_model.__main__ import main
from benchmarks.demo_model.assembly import assemble, disassemble
from benchmarks.demo_model.codes import CELLS, CODE, Codes, from_cells, to_cells
from benchmarks.demo_model.committed import adopt
from benchmarks.demo_model.lora_files import kohya_name, load_kohya
from benchmarks.demo_model.textcoder import TextCoder

MODELS = Path(__file__).parents[2] / "models_cache"
DEMO = MODELS / "demo"
Run = Callable[..., None]


@pytest.fixture
def run(work: Path, tmp_path: Path) -> Run:
    """A stage of the program on copies of what ships."""
    copytree(DEMO, tmp_path / "model")
    copytree(MODELS / "demo-loras", tmp_path / "loras")

    def run(stage: str, *options: str) -> None:
        folders = ["--work", work, "--model", tmp_path / "model", "--loras", tmp_path / "loras"]
        main([stage, *map(str, folders), *options])

    return run


def test_cells_come_back_as_they_were() -> None:
    latents = torch.arange(2 * 4 * 16 * 16).float().view(2, 4, 16, 16)
    assert torch.equal(from_cells(to_cells(latents)), latents)


def test_a_text_encoder_comes_apart_into_what_it_was_made_of() -> None:
    tokenizer, seed = CLIPTokenizer.from_pretrained(DEMO / "tokenizer"), torch.Generator().manual_seed(2)
    basis, _ = torch.linalg.qr(torch.randn(1024, CODE, generator=seed))
    codes = Codes(torch.randn(1024, generator=seed), basis, torch.rand(CODE, generator=seed) + 0.5)
    coder = TextCoder(tokenizer)
    made = assemble(coder, codes, tokenizer)
    again, found = disassemble(made, tokenizer)
    assert torch.allclose(found.basis, codes.basis, atol=1e-5)
    assert torch.allclose(found.mean, codes.mean, atol=1e-5)
    measured = found.measured(torch.randn(1000, 4, 16, 16, generator=seed))
    assert measured.spread.isfinite().all()
    ids = tokenizer(["red car, flat style"], padding="max_length", max_length=32, return_tensors="pt").input_ids
    remade = assemble(again, Codes(found.mean, found.basis, codes.spread), tokenizer)
    assert torch.allclose(made(ids)[0], remade(ids)[0], atol=1e-3)


def test_an_adopted_folder_is_the_checkpoint(tmp_path: Path) -> None:
    """Taken apart and put together again, the shipped text encoder says the same; the UNet's weights are the same."""
    work = tmp_path / "new"
    assert adopt(DEMO, work)
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    coder = TextCoder(tokenizer)
    coder.load_state_dict(torch.load(work / "text.pt", weights_only=True)["modules"][0], strict=False)
    shipped = CLIPTextModel.from_pretrained(DEMO / "text_encoder", dtype=torch.float32)
    ids = tokenizer(["red heart, flat style", ""], padding="max_length", max_length=32, return_tensors="pt").input_ids
    said, wanted = (model(ids)[0] for model in (assemble(coder, Codes.load(work / "basis.pt"), tokenizer), shipped))
    assert (said - wanted)[:, CELLS:].abs().max() < 0.05 * wanted.abs().max(), "but for half precision"
    assert torch.equal(_weights(work / "unet.pt")[0], _unet(DEMO)[0])


def test_a_work_folder_with_a_training_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "unet.pt").touch()
    assert not adopt(DEMO, tmp_path)
    assert not adopt(tmp_path / "nothing", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["unet.pt"]


@pytest.mark.timeout(600)
def test_training_goes_on_from_the_folder(run: Run, work: Path, tmp_path: Path) -> None:
    """After a moment of training the UNet that is exported is still nearly the one that ships."""
    run("train", "--only", "joint", "--budget", "0.001")
    assert torch.load(work / "joint.pt", weights_only=True)["step"] > 0
    run("export")
    before, after = _unet(DEMO), _unet(tmp_path / "model")
    moved = [float((a - b).norm() / (b.norm() + 1e-6)) for a, b in zip(after, before, strict=True)]
    assert max(moved) > 0, "it was trained"
    assert sorted(moved)[len(moved) // 2] < 0.02


@pytest.mark.timeout(600)
def test_loras_go_on_from_their_files_unless_told_otherwise(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "loras" / "night" / "night.safetensors"
    key = "down_blocks.1.resnets.0.conv1.lora_B.weight"
    assert kohya_name(key) == "lora_unet_down_blocks_1_resnets_0_conv1.lora_up.weight"
    before, facts = load_kohya(path, [key])
    run("loras", "--only", "night", "--budget", "0.001")
    after, told = load_kohya(path, [key])
    assert int(told["ss_steps"]) > int(facts["ss_steps"])
    assert (after[key] - before[key]).norm() < 0.1 * before[key].norm()
    assert "visionsuit_spent_s" not in told, "finished files say nothing of interruptions"
    assert (
        json.loads((path.parent / "card.json").read_text())["trigger"]
        in json.loads(told["ss_tag_frequency"])["1_night"]
    )
    run("loras", "--only", "night", "--budget", "0.001", "--fresh")
    fresh, _ = load_kohya(path, [key])
    assert fresh[key].norm() < 0.1 * before[key].norm(), "as good as untrained"


def _weights(checkpoint: Path) -> list[Tensor]:
    weights: list[Tensor] = torch.load(checkpoint, weights_only=True)["average"]
    return weights


def _unet(folder: Path) -> list[Tensor]:
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", dtype=torch.float32)
    return list(unet.requires_grad_(False).parameters())

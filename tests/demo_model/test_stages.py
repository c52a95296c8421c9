"""The whole program, from random weights to contact sheets, with seconds for each stage."""

import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.demo_model.__main__ import main


@pytest.mark.timeout(600)
def test_the_program_goes_from_nothing_to_figures_and_sheets(work: Path, tmp_path: Path) -> None:
    model, loras, out = tmp_path / "model", tmp_path / "loras", tmp_path / "out"

    def run(stage: str, *options: str) -> None:
        folders = ["--work", work, "--model", model, "--loras", loras, "--out", out]
        main([stage, *map(str, folders), *options])

    run("data")
    run("train", "--budget", "0.06")
    run("export")
    run("loras", "--only", "line-art", "--budget", "0.01")
    run("evaluate", "--budget", "0.01", "--asked", "8")
    run("sheet", "--prompt", "fox", "--prompt", "rocket, flat style")
    assert Image.open(out / "sheet.png").size == (132, 66)
    sizes = {name: Image.open(out / f"{name}.png").size for name in ("training", "unseen", "loras")}
    assert sizes == {"training": (8 * 66, 66), "unseen": (3 * 66, 66), "loras": (66, 3 * 66)}
    figures = json.loads((out / "evaluation.json").read_text())
    assert {"training prompts", "unseen combinations", "few steps", "seeds", "LoRA line-art"} <= figures.keys()
    assert figures["training prompts"]["pictures"] == 8
    assert json.loads((loras / "line-art" / "card.json").read_text())["title"] == "Line art"
    assert json.loads((model / "visionsuit.json").read_text())["label"] == "VisionSuit Demo"

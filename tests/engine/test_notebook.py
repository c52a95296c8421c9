"""The engine without the app, as the README shows it."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.engine.conftest import Renderer
from tests.engine.tiny import DEMO, make_lora
from visionsuit.engine import EngineError, Painter, open_painter
from visionsuit.engine.catalog import read_base_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def paint(renderer: Renderer) -> Painter:
    return Painter(renderer.engine, read_base_model(DEMO))


def test_the_readme_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    section = text.partition("## From a notebook")[2].partition("\n## ")[0]
    [code] = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (tmp_path / "models_cache").symlink_to(ROOT / "models_cache")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert Image.open(tmp_path / "heart.png").size == (64, 64)


def test_importing_it_loads_no_torch() -> None:
    code = "import visionsuit.engine, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr


def test_calls_side_by_side_are_those_one_by_one(paint: Painter, tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    make_lora(file, DEMO, 4, text_encoder=True, seed=3)
    calls = [
        {"prompt": "red heart", "seed": (1, 2), "steps": 4},
        {"prompt": "blue heart", "seed": 3, "steps": 5, "loras": {file: 0.5}},
        {"prompt": "blue heart", "seed": 3, "steps": 5, "loras": {str(file): (0.5, 0.0)}},
    ]
    together = paint.many(calls)
    assert [len(pictures) for pictures in together] == [2, 1, 1]
    for options, pictures in zip(calls, together, strict=True):
        for ours, alone in zip(pictures, paint(**options), strict=True):  # type: ignore[arg-type]
            assert np.abs(np.asarray(ours, np.int16) - np.asarray(alone, np.int16)).max() <= 2
    assert np.asarray(together[1][0]).tolist() != np.asarray(together[2][0]).tolist()


def test_a_picture_to_begin_with(paint: Painter) -> None:
    [first] = paint("red heart", seed=1)
    [near] = paint("blue heart", seed=2, init=first, strength=0.2)
    [far] = paint("blue heart", seed=2, init=first, strength=1.0)
    difference = [np.abs(np.asarray(one, np.int16) - np.asarray(first, np.int16)).mean() for one in (near, far)]
    assert difference[0] * 2 < difference[1]


def test_what_is_wrong_is_said(tmp_path: Path, paint: Painter) -> None:
    with pytest.raises(EngineError, match="multiples of"):
        paint("red heart", width=65)
    with pytest.raises(EngineError), open_painter(tmp_path):
        pass

"""From npm archives to artwork, with archives of our own."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("resvg_py", reason="the renderer of SVG is not installed: pip install '.[demo-model]'")
pytest.importorskip("fontTools", reason="fonts cannot be read: pip install '.[demo-model]'")

from benchmarks.demo_model.__main__ import main
from tests.demo_model.packages import write_all
from tests.demo_model.things import THINGS


def test_packages_become_pictures_of_six_styles(tmp_path: Path) -> None:
    write_all(tmp_path / "packages")
    main(["data", "--work", str(tmp_path / "work"), "--packages", str(tmp_path / "packages")])
    about = json.loads((tmp_path / "work" / "artwork.json").read_text())
    styles = ("noto", "fluent-flat", "fluent-hc", "fluent-3d", "fluent-color", "mono-700")
    assert [(entry["style"], entry["name"]) for entry in about] == [(s, name) for s in styles for name in THINGS]
    assert about[0]["tags"] == ["sly one", "animal"], "without the name itself, in one order"
    pictures = np.load(tmp_path / "work" / "artwork.npy")
    assert pictures.shape == (6 * len(THINGS), 128, 128, 4)
    drawn, bitmap, glyph = (pictures[styles.index(name) * len(THINGS)] for name in ("noto", "fluent-3d", "mono-700"))
    assert tuple(drawn[64, 64]) == (208, 48, 48, 255)
    assert drawn[2, 2, 3] == 0
    assert tuple(bitmap[64, 64]) == (40, 160, 60, 255)
    assert bitmap[10, 64, 3] == 0, "centred on a square"
    assert (glyph[..., :3] == 0).all()
    assert glyph[64, 64, 3] == 255


def test_a_package_that_npm_cannot_get_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    with pytest.raises(FileNotFoundError, match="put unicode-emoji-json-"):
        main(["data", "--work", str(tmp_path / "work")])

"""Artwork small enough to train on in seconds: eight coloured shapes in all six styles."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.demo_model.artwork import SIDE
from benchmarks.demo_model.vocabulary import HELD_OUT_STYLES, STYLES
from tests.demo_model.things import THINGS

COLOURS = ((220, 40, 40), (40, 160, 60), (50, 90, 220), (240, 200, 40))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work folder whose data stage is done, with a vocabulary of its own."""
    folder = tmp_path / "work"
    folder.mkdir()
    styles = [*(style.artwork for style in STYLES), *(style.artwork for style in HELD_OUT_STYLES.values())]
    about = [{"style": style, "name": name, "tags": [f"{name} thing"]} for style in styles for name in THINGS]
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    pictures = np.zeros((len(about), SIDE, SIDE, 4), np.uint8)
    for row, picture in enumerate(pictures):
        thing, style = row % len(THINGS), row // len(THINGS)
        shape = np.abs(x) ** (1 + thing % 3) + np.abs(y) ** (1 + thing % 3) < (20 + 5 * style) ** (1 + thing % 3)
        picture[shape] = (*COLOURS[thing % len(COLOURS)], 255)
    np.save(folder / "artwork.npy", pictures)
    (folder / "artwork.json").write_text(json.dumps(about))
    (folder / "concepts.txt").write_text("\n".join(THINGS) + "\n")
    return folder

"""Pictures and masks on a canvas."""

import numpy as np
import pytest
from PIL import Image

from visionsuit.generation.canvas import MaskEmpty, make_canvas

RED, BLUE = (255, 0, 0), (0, 0, 255)


def halves(width: int = 64, height: int = 64) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def mask_of(box: tuple[int, int, int, int], size: tuple[int, int] = (64, 64)) -> Image.Image:
    image = Image.new("L", size)
    image.paste(255, box)
    return image


def test_of_the_same_size_nothing_is_done() -> None:
    canvas = make_canvas(halves(), None, (64, 64))
    assert np.array_equal(canvas.pixels, np.asarray(halves()))
    assert canvas.mask is None


def test_crop_stretch_and_fit() -> None:
    wide = halves(128, 64)
    crop = make_canvas(wide, None, (64, 64), resize="crop").pixels
    assert crop.shape == (64, 64, 3)
    assert tuple(crop[32, 2]) == RED
    stretched = make_canvas(wide, None, (64, 64), resize="stretch").pixels
    assert tuple(stretched[32, 20]) == RED
    assert tuple(stretched[32, 44]) == BLUE
    fitted = make_canvas(wide, None, (64, 64), resize="fit").pixels
    assert tuple(fitted[32, 10]) == RED
    above = fitted[:12, :24].astype(int)
    assert above[..., 0].mean() > 180, "the border is not an extension of the picture"
    assert above.std() > 1


def test_borders_are_mirrored_noisy_and_repainted() -> None:
    canvas = make_canvas(
        halves(), None, (96, 72), outpaint={"left": 16, "top": 8, "right": 16, "bottom": 0}, mask_blur=4, seed=3
    )
    assert np.array_equal(canvas.pixels[8:, 16:80], np.asarray(halves()))
    assert canvas.pixels[8:, :16, 0].mean() > 200
    assert canvas.pixels[8:, 80:, 2].mean() > 200
    assert canvas.pixels[8:, :16].astype(int).std(axis=(0, 1)).max() > 5
    mask = canvas.mask
    assert mask is not None
    assert mask[:8].min() == mask[:, :16].min() == mask[:, 80:].min() == 255
    assert mask[40:, 40:56].max() == 0
    assert 0 < mask[40, 18] < 255, "the seam has no soft edge"
    again = make_canvas(
        halves(), None, (96, 72), outpaint={"left": 16, "top": 8, "right": 16, "bottom": 0}, mask_blur=4, seed=3
    )
    assert np.array_equal(canvas.pixels, again.pixels)


def test_a_mask_is_placed_as_its_picture() -> None:
    mask = mask_of((0, 0, 16, 32), (64, 32)).resize((128, 64))
    canvas = make_canvas(halves(64, 32), mask, (64, 64), resize="stretch")
    assert canvas.mask is not None
    assert canvas.mask[:, :15].min() == 255
    assert canvas.mask[:, 18:].max() == 0
    soft = make_canvas(halves(), mask_of((0, 0, 32, 64)), (64, 64), mask_blur=8).mask
    assert soft is not None
    assert 0 < soft[32, 34] < soft[32, 30] < 255
    assert soft[32, 60] == 0


def test_borders_of_a_fitted_picture_are_repainted_with_its_mask() -> None:
    canvas = make_canvas(halves(64, 32), mask_of((0, 0, 8, 32), (64, 32)), (64, 64), resize="fit")
    assert canvas.mask is not None
    assert canvas.mask[:15].min() == 255
    assert canvas.mask[20:44, 12:].max() == 0


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(MaskEmpty):
        make_canvas(halves(), mask_of((0, 0, 0, 0)), (64, 64))

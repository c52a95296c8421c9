"""Stored pictures and masks -> what the engine begins with: brought to size, with borders, with a soft edge."""

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from visionsuit.core.errors import InvalidInput
from visionsuit.generation.sources import Source
from visionsuit.runtime import Runtime

#: Of the noise in borders, in levels of 255: enough for the model to make something of them.
_BORDER_NOISE = 24.0
_LANCZOS = Image.Resampling.LANCZOS


class MaskEmpty(InvalidInput):
    code = "mask_empty"


@dataclass(frozen=True, slots=True)
class Canvas:
    """`pixels`: uint8 [height, width, 3]; `mask`: uint8 [height, width], 255 is repainted, or None for all of it."""

    pixels: NDArray[np.uint8]
    mask: NDArray[np.uint8] | None


def read_pixels(runtime: Runtime, source: Source) -> Image.Image:
    """The picture as it is shown: turned as it says, RGB, on white where something shows through.

    Raises:
        ObjectMissing, StorageUnavailable
    """
    return _flat(_open(runtime, source), "white").convert("RGB")


def read_mask(runtime: Runtime, source: Source) -> Image.Image:
    """Brightness, 255 is repainted; what is transparent counts as black.

    Raises:
        ObjectMissing, StorageUnavailable
    """
    return _flat(_open(runtime, source), "black").convert("L")


def make_canvas(
    picture: Image.Image,
    mask: Image.Image | None,
    size: tuple[int, int],
    *,
    resize: str = "crop",
    outpaint: Mapping[str, int] | None = None,
    mask_blur: float = 0.0,
    seed: int = 0,
) -> Canvas:
    """Put `picture` on a canvas.

    Args:
        mask: what of the picture is repainted; it is placed as the picture is, and may have another size.
        size: (width, height) of the canvas with its borders.
        resize: `crop`, `fit` or `stretch`.
        outpaint: left, top, right, bottom pixels of the canvas beyond the picture; always repainted.
        seed: of the noise in borders.

    Raises:
        MaskEmpty: nothing is to be repainted.
    """
    sides = outpaint or {"left": 0, "top": 0, "right": 0, "bottom": 0}
    inner = (size[0] - sides["left"] - sides["right"], size[1] - sides["top"] - sides["bottom"])
    placed, edges = _place(picture, inner, resize)
    left, top = sides["left"] + edges[0], sides["top"] + edges[1]
    right, bottom = size[0] - left - placed.width, size[1] - top - placed.height
    pixels = _extend(np.asarray(placed), (left, top, right, bottom), seed)
    if mask is None and outpaint is None:
        return Canvas(pixels, None)
    # Where the picture does not reach is new, whatever the mask says.
    frame = (left, top, size[0] - right, size[1] - bottom)
    beyond = _outside(size, frame)
    # The seam's soft edge lies within the picture.
    reach = round(mask_blur)
    seam = _outside(
        size,
        (
            frame[0] + (reach if left else 0),
            frame[1] + (reach if top else 0),
            frame[2] - (reach if right else 0),
            frame[3] - (reach if bottom else 0),
        ),
    )
    wanted = np.zeros_like(beyond)
    if mask is not None:
        if mask.size != picture.size:
            mask = mask.resize(picture.size, Image.Resampling.BILINEAR)
        wanted[frame[1] : frame[3], frame[0] : frame[2]] = np.asarray(_place(mask, inner, resize)[0])
    soft = np.maximum(_soften(wanted, mask_blur), np.maximum(_soften(seam, mask_blur), beyond))
    if int(soft.max()) < 128:
        raise MaskEmpty("The mask is black all over, so nothing would be repainted. Paint what is to change in white.")
    return Canvas(pixels, soft)


def _place(image: Image.Image, size: tuple[int, int], resize: str) -> tuple[Image.Image, tuple[int, int]]:
    """`image` for a frame of `size`, and its left and top edge in it."""
    if resize == "stretch" or image.size == size:
        return image.resize(size, _LANCZOS), (0, 0)
    if resize == "fit":
        scale = min(size[0] / image.width, size[1] / image.height)
        fitted = max(1, min(size[0], round(image.width * scale))), max(1, min(size[1], round(image.height * scale)))
        return image.resize(fitted, _LANCZOS), ((size[0] - fitted[0]) // 2, (size[1] - fitted[1]) // 2)
    return ImageOps.fit(image, size, _LANCZOS), (0, 0)


def _extend(pixels: NDArray[np.uint8], borders: tuple[int, int, int, int], seed: int) -> NDArray[np.uint8]:
    """Mirrored beyond the edges, with noise there."""
    left, top, right, bottom = borders
    if not any(borders):
        return np.ascontiguousarray(pixels)
    wide = np.pad(pixels, ((top, bottom), (left, right), (0, 0)), mode="symmetric")
    noisy = wide + np.random.default_rng(seed).normal(0, _BORDER_NOISE, wide.shape)
    made = np.clip(np.round(noisy), 0, 255).astype(np.uint8)
    height, width = pixels.shape[:2]
    made[top : top + height, left : left + width] = pixels
    return made


def _outside(size: tuple[int, int], frame: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """255 outside of the frame of left, top, right and bottom edge, 0 in it."""
    mask = np.full((size[1], size[0]), 255, np.uint8)
    mask[max(0, frame[1]) : max(0, frame[3]), max(0, frame[0]) : max(0, frame[2])] = 0
    return mask


def _soften(mask: NDArray[np.uint8], pixels: float) -> NDArray[np.uint8]:
    if not pixels or not mask.any():
        return mask
    return np.asarray(Image.fromarray(mask).filter(ImageFilter.GaussianBlur(pixels / 2)))


def _open(runtime: Runtime, source: Source) -> Image.Image:
    data = b"".join(runtime.storage.read(source.bucket, source.object_id))
    # What is stored was verified when it came, also its number of pixels.
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
        image.load()
        return ImageOps.exif_transpose(image)


def _flat(image: Image.Image, background: str) -> Image.Image:
    """Eight bits a channel; on the background where something shows through."""
    if image.mode in ("RGBA", "LA", "PA", "P") or "transparency" in image.info:
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, background), layered)
    return _eight_bits(image)


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "F"):
        # Pillow's own conversion cuts everything above 255 off instead of scaling.
        values = np.asarray(image).astype(np.float32)
        return Image.fromarray((values.clip(0, 65535) / 257).astype(np.uint8))
    return image

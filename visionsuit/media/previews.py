"""What tiles and pages show before and instead of a picture: two thumbnails, a placeholder, a perceptual hash."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

SMALL_PIXELS = 320
LARGE_PIXELS = 1024
_QUALITY = 82
#: Twice the bytes of WebP at the same quality and a fifth of the time; only a page with one picture shows it.
_LARGE_QUALITY = 85
_PLACEHOLDER_PIXELS = 12
#: Profiles up to this size travel with the thumbnail; larger ones (print) are converted away.
_MAX_PROFILE_BYTES = 8 * 1024
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class Preview:
    """An encoded thumbnail; `suffix` (".webp") is what its file's name ends in."""

    data: bytes
    mime: str
    suffix: str


@dataclass(frozen=True, slots=True)
class Previews:
    """Attributes:
    small: WebP, long side at most SMALL_PIXELS, never larger than the picture.
    large: JPEG, or WebP where something shows through; long side at most LARGE_PIXELS. `small` itself, if as large.
    placeholder: data URI of a dozen pixels, at most 400 characters.
    dhash: 64 bits as 16 hexadecimal digits; near pictures differ in few bits.
    width, height: of the whole picture as it is shown, in pixels.
    """

    small: Preview
    large: Preview
    placeholder: str
    dhash: str
    width: int
    height: int


def fit(width: int, height: int, longest: int) -> tuple[int, int]:
    """The largest size within `longest` of the same shape; never larger than given."""
    scale = min(1.0, longest / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def make_previews(image: Image.Image, orientation: int = 1) -> Previews:
    """Previews of an open image, which may not be decoded yet (JPEG then decodes at a fraction of its size).

    Raises:
        OSError, SyntaxError, ValueError: the pixels are damaged or cut off.
    """
    width, height = image.size
    target = fit(width, height, LARGE_PIXELS)
    if image.format == "JPEG":
        image.draft(None, target)
    # Converted before it is resized: palettes and 16-bit values cannot be averaged as they are.
    plain = _as_plain(image)
    large = plain if plain.size == target else plain.resize(target, Image.Resampling.BICUBIC, reducing_gap=1.5)
    if orientation in _TURNS:
        large = large.transpose(_TURNS[orientation])
        if orientation >= 5:
            width, height = height, width
    small_size = fit(*large.size, SMALL_PIXELS)
    small = large if large.size == small_size else large.resize(small_size, Image.Resampling.BICUBIC, reducing_gap=1.1)
    profile = image.info.get("icc_profile") if plain.mode in ("RGB", "RGBA") and image.mode != "CMYK" else None
    kept = profile if isinstance(profile, bytes) and len(profile) <= _MAX_PROFILE_BYTES else None
    small_file = Preview(encode_webp(small, kept), "image/webp", ".webp")
    return Previews(
        small=small_file,
        large=small_file if small is large else _encode_large(large, kept),
        placeholder=_placeholder(small),
        dhash=_dhash(small),
        width=width,
        height=height,
    )


def preview_array(pixels: NDArray[np.uint8]) -> Previews:
    """Previews of a picture that is in memory: uint8 [height, width, 3], RGB."""
    return make_previews(Image.fromarray(pixels))


def encode_webp(image: Image.Image, profile: bytes | None = None) -> bytes:
    """The quickest method: at thumbnail size the slower ones save a few percent for many times the work."""
    out = io.BytesIO()
    image.save(out, "WEBP", quality=_QUALITY, method=0, icc_profile=profile or b"")
    return out.getvalue()


def _encode_large(image: Image.Image, profile: bytes | None) -> Preview:
    if image.mode != "RGB":
        return Preview(encode_webp(image, profile), "image/webp", ".webp")
    out = io.BytesIO()
    image.save(out, "JPEG", quality=_LARGE_QUALITY, icc_profile=profile or b"")
    return Preview(out.getvalue(), "image/jpeg", ".jpg")


def _as_plain(image: Image.Image) -> Image.Image:
    """RGB, or RGBA where something shows through."""
    if image.mode == "RGB":
        image.load()
        return image
    if image.mode == "CMYK":
        return _from_cmyk(image)
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "F"):
        # Pillow's own conversion cuts everything above 255 off instead of scaling.
        values = np.asarray(image).astype(np.float32)
        return Image.fromarray((values.clip(0, 65535) / 257).astype(np.uint8)).convert("RGB")
    has_alpha = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    return image.convert("RGBA" if has_alpha else "RGB")


def _from_cmyk(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            turned = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if turned is not None:
                return turned
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # a profile that makes no sense: the plain conversion will do
    return image.convert("RGB")


def _placeholder(small: Image.Image) -> str:
    size = fit(*small.size, _PLACEHOLDER_PIXELS)
    dot = small.convert("RGB").resize(size, Image.Resampling.BOX)
    out = io.BytesIO()
    dot.save(out, "WEBP", quality=20, method=4)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"


def _dhash(small: Image.Image) -> str:
    grey = np.asarray(small.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    return np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes().hex()

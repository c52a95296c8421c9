"""A picture file from a stranger -> verified, cleaned, previewed, with its recipe. Start reading at `read_picture`."""

import io
import struct
import threading
from contextlib import nullcontext
from dataclasses import dataclass

from PIL import Image

from visionsuit.media import png
from visionsuit.media.cleaning import clean_jpeg, clean_png, clean_webp, public_exif
from visionsuit.media.errors import BadPicture, PictureTooLarge, UnsupportedPicture, short_name
from visionsuit.media.exif import read_exif
from visionsuit.media.previews import Previews, make_previews
from visionsuit.media.recipe import Recipe
from visionsuit.media.recipes import decode_user_comment, find_recipe

MIMES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}
DEFAULT_MAX_PIXELS = 64_000_000

_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP"),
    (b"II*\0", "a TIFF"),
    (b"MM\0*", "a TIFF"),
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\0\0\x01\0", "an icon"),
    (b"8BPS", "a Photoshop file"),
)
#: A progressive JPEG may ask for any number of passes over all its pixels; cameras and tools write about ten.
_MAX_JPEG_SCANS = 100
#: Decoded pictures above this are read one at a time: each needs hundreds of megabytes.
_LARGE_PIXELS = 16_000_000
_large_pictures = threading.Lock()


@dataclass(frozen=True, slots=True)
class ReadPicture:
    """Attributes:
    data: the file for the public: same pixels, no private EXIF, nothing behind the picture.
    width, height: as shown, after orientation, in pixels.
    """

    data: bytes
    kind: str
    mime: str
    width: int
    height: int
    recipe: Recipe | None
    previews: Previews


def sniff_kind(data: bytes, name: str = "") -> str:
    """`PNG`, `JPEG` or `WEBP`, by content and not by name.

    Raises:
        UnsupportedPicture: anything else, named.
    """
    label = short_name(name)
    if data.startswith(png.SIGNATURE):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    what = next((words for magic, words in _OTHERS if data.startswith(magic)), None)
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<svg", b"<?xml", b"<!doctype", b"<html")):
        what = "an SVG or another text format, which may carry scripts"
    elif data[4:8] == b"ftyp":
        what = "a HEIC, AVIF or video file"
    raise UnsupportedPicture(f"{label} is {what or 'no picture this site knows'}; PNG, JPEG and WebP are taken.")


def read_picture(data: bytes, name: str = "", *, max_pixels: int = DEFAULT_MAX_PIXELS) -> ReadPicture:
    """Verify, clean and preview the picture file `data`.

    Raises:
        UnsupportedPicture: another format, or animated.
        PictureTooLarge: more than `max_pixels` decoded; known before a pixel is decoded.
        BadPicture: damaged or cut off.
    """
    label = short_name(name)
    kind = sniff_kind(data, name)
    _refuse_animation(kind, data, label)
    exif = read_exif(kind, data)
    comment = decode_user_comment(exif.comment) if exif.comment else None
    texts = dict(exif.texts)
    if kind == "PNG":
        try:
            texts |= png.read_texts(data)
        except png.PngDamaged as error:
            raise BadPicture(f"{label} is a damaged PNG: {error}.") from error
    recipe = find_recipe(texts, comment)
    # Only a comment that is a recipe stays: others are words about a person or place.
    has_recipe_comment = isinstance(exif.comment, bytes) and find_recipe({}, comment) is not None
    kept = public_exif(exif.orientation, exif.comment if has_recipe_comment else None)  # type: ignore[arg-type]
    cleaned = _clean(kind, data, kept, label)
    previews = _decode(kind, cleaned, exif.orientation, max_pixels, label)
    return ReadPicture(
        data=cleaned,
        kind=kind,
        mime=MIMES[kind],
        width=previews.width,
        height=previews.height,
        recipe=recipe,
        previews=previews,
    )


def _refuse_animation(kind: str, data: bytes, label: str) -> None:
    if kind == "PNG":
        # The animation chunk stands before the pixels, or it is none.
        animated = b"acTL" in data[: max(0, data.find(b"IDAT"))]
    else:
        animated = kind == "WEBP" and data[12:16] == b"VP8X" and bool(data[20:21] and data[20] & 0x02)
    if animated:
        raise UnsupportedPicture(f"{label} is animated; still pictures are taken.")


def _clean(kind: str, data: bytes, exif: bytes, label: str) -> bytes:
    try:
        if kind == "PNG":
            return clean_png(data, exif, label)
        if kind == "JPEG":
            return clean_jpeg(data, exif, label)
        return clean_webp(data, exif, label)
    except (struct.error, IndexError) as error:
        raise BadPicture(f"{label} is a damaged {kind}: it is cut off.") from error


def _decode(kind: str, data: bytes, orientation: int, max_pixels: int, label: str) -> Previews:
    if kind == "JPEG" and data.count(b"\xff\xda") > _MAX_JPEG_SCANS:
        raise BadPicture(f"{label} is a JPEG with more than {_MAX_JPEG_SCANS} scans, which no tool writes.")
    try:
        # Opening reads the header alone; what is decoded has been measured before.
        with Image.open(io.BytesIO(data), formats=(kind,)) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise PictureTooLarge(
                    f"{label} has {width} x {height} pixels; the limit is {max_pixels / 1e6:g} megapixels."
                )
            if getattr(image, "n_frames", 1) > 1:
                raise UnsupportedPicture(f"{label} is animated; still pictures are taken.")
            with _large_pictures if width * height > _LARGE_PIXELS else nullcontext():
                return make_previews(image, orientation)
    except Image.DecompressionBombError as error:
        raise PictureTooLarge(f"{label} has too many pixels; the limit is {max_pixels / 1e6:g} megapixels.") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, MemoryError) as error:
        raise BadPicture(f"{label} is a damaged {kind}: its pixels cannot be read.") from error

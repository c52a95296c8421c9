"""The few things of a picture's EXIF that matter here: how it is turned, and a recipe in its user comment."""

import struct
from dataclasses import dataclass

from PIL import Image

from visionsuit.media import png
from visionsuit.media.cleaning import EXIF_IFD, EXIF_ORIENTATION, EXIF_USER_COMMENT

_HEADER = b"Exif\0\0"
_MAKE, _MODEL = 0x010F, 0x0110
#: What Pillow's reader raises on blocks that lie about themselves.
_DAMAGED = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
)


@dataclass(frozen=True, slots=True)
class Exif:
    """`orientation` 1 to 8; `comment` as the file holds it, encoding prefix and all; `texts` as ComfyUI's WebP
    writers leave them in Make and Model ("prompt:{...}")."""

    orientation: int = 1
    comment: bytes | str | None = None
    texts: tuple[tuple[str, str], ...] = ()


def read_exif(kind: str, data: bytes) -> Exif:
    """EXIF of a PNG, JPEG or WEBP file; what is damaged counts as not there."""
    try:
        block = _find_block(kind, data)
        if not block:
            return Exif()
        exif = Image.Exif()
        exif.load(block if block.startswith(_HEADER) else _HEADER + block)
        orientation = exif.get(EXIF_ORIENTATION, 1)
        comment = exif.get_ifd(EXIF_IFD).get(EXIF_USER_COMMENT)
        texts = [_keyed(exif.get(tag)) for tag in (_MAKE, _MODEL)]
    except _DAMAGED:
        return Exif()
    return Exif(
        orientation=orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1,
        comment=comment if isinstance(comment, bytes | str) else None,
        texts=tuple(text for text in texts if text),
    )


def _keyed(value: object) -> tuple[str, str] | None:
    if not isinstance(value, str):
        return None
    key, _, text = value.partition(":")
    return (key.lower(), text) if key.lower() in ("prompt", "workflow") else None


def _find_block(kind: str, data: bytes) -> bytes:
    if kind == "PNG":
        return next((bytes(chunk.data) for chunk in png.walk_chunks(data) if chunk.kind == b"eXIf"), b"")
    if kind == "WEBP":
        position = 12
        while position + 8 <= len(data):
            (length,) = struct.unpack_from("<I", data, position + 4)
            if data[position : position + 4] == b"EXIF":
                return data[position + 8 : position + 8 + length]
            position += 8 + length + (length & 1)
        return b""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, position + 2)
        if data[position + 1] == 0xE1 and data[position + 4 : position + 10] == _HEADER:
            return data[position + 4 : position + 2 + length]
        position += 2 + length
    return b""

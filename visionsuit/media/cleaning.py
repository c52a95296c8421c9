"""What of a picture file the public gets: the pixels as they were encoded, colour profile, orientation, recipe.

Positions, names, cameras, thumbnails of thumbnails, comments and whatever was glued behind the picture go. Nothing
is decoded or encoded again, and cleaning what is clean changes no byte.
"""

import re
import struct

from PIL import Image

from visionsuit.media import png
from visionsuit.media.errors import BadPicture

_PNG_KEPT = {
    b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"bKGD", b"pHYs",
    b"cICP", b"mDCV", b"cLLI",
}  # fmt: skip
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
#: Keywords under which generators write recipes. Others (XMP, raw EXIF profiles, authors) are dropped.
RECIPE_KEYWORDS = frozenset(
    {
        "parameters", "prompt", "workflow", "visionsuit", "sui_image_params", "Dream", "sd-metadata",
        "invokeai_metadata", "invokeai_graph", "invokeai_workflow", "Comment", "Description", "Source", "Software",
        "Title", "Generation time", "fooocus_scheme", "postprocessing", "extras", "dream",
    }
)  # fmt: skip

EXIF_ORIENTATION = 0x0112
EXIF_IFD = 0x8769
EXIF_USER_COMMENT = 0x9286

#: Start of anything but a stuffed 0xFF, a restart marker or fill bytes within JPEG entropy data.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_WEBP_KEPT = {b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ICCP"}
_WEBP_HAS_EXIF, _WEBP_HAS_XMP = 0x08, 0x04


def clean_png(data: bytes, exif: bytes, label: str) -> bytes:
    """`exif` (as `public_exif` makes it) takes the place of what the file carried.

    Raises:
        BadPicture: the chunks do not add up.
    """
    view = memoryview(data)
    parts: list[bytes | memoryview] = [png.SIGNATURE]
    texts = 0
    try:
        for chunk in png.walk_chunks(data):
            if chunk.kind in _PNG_TEXTS:
                found = png.read_text_chunk(chunk)
                if found is None or found[0] not in RECIPE_KEYWORDS or texts >= png.MAX_TEXTS:
                    continue
                texts += 1
            elif chunk.kind not in _PNG_KEPT:
                continue
            parts.append(view[chunk.start : chunk.end])
            if exif and chunk.kind == b"IHDR":
                parts.append(png.build_chunk(b"eXIf", exif))
    except png.PngDamaged as error:
        raise BadPicture(f"{label} is a damaged PNG: {error}.") from error
    return b"".join(parts)


def clean_jpeg(data: bytes, exif: bytes, label: str) -> bytes:
    """Like `clean_png`, for a JPEG."""
    parts: list[bytes | memoryview] = [b"\xff\xd8"]
    view, position = memoryview(data), 2
    exif_segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif if exif else b""
    while True:
        while data[position : position + 2] == b"\xff\xff":
            position += 1  # fill bytes
        marker = data[position : position + 2]
        if len(marker) < 2 or marker[0] != 0xFF:
            raise BadPicture(f"{label} is a damaged JPEG: it is cut off or holds something else.")
        kind = marker[1]
        if kind == 0xD9:
            parts.append(marker)
            return b"".join(parts)
        if position + 4 > len(data):
            raise BadPicture(f"{label} is a damaged JPEG: it is cut off.")
        end = position + 2 + struct.unpack_from(">H", data, position + 2)[0]
        segment = view[position:end]
        if kind == 0xDA:
            found = _JPEG_MARKER.search(data, end)
            if found is None:
                raise BadPicture(f"{label} is a damaged JPEG: it is cut off.")
            end = found.start()
            segment = view[position:end]
        if _keeps_jpeg_segment(kind, bytes(segment[4:16])):
            if exif_segment and kind != 0xE0:
                parts.append(exif_segment)  # after the JFIF header, before everything else
                exif_segment = b""
            parts.append(segment)
        position = end


def _keeps_jpeg_segment(kind: int, payload: bytes) -> bool:
    if 0xE0 <= kind <= 0xEF:
        # JFIF, colour profile, and Adobe's note on how colours are coded; everything else is about somebody.
        return (
            (kind == 0xE0 and payload.startswith(b"JFIF\0"))
            or (kind == 0xE2 and payload.startswith(b"ICC_PROFILE\0"))
            or (kind == 0xEE and payload.startswith(b"Adobe"))
        )
    return kind != 0xFE


def clean_webp(data: bytes, exif: bytes, label: str) -> bytes:
    """Like `clean_png`, for a still WebP."""
    size = struct.unpack_from("<I", data, 4)[0]
    end = 8 + size
    if end > len(data) or size < 12:
        raise BadPicture(f"{label} is a damaged WebP: it is cut off.")
    chunks: list[tuple[bytes, bytes]] = []
    position = 12
    while position + 8 <= end:
        kind = data[position : position + 4]
        length = struct.unpack_from("<I", data, position + 4)[0]
        if position + 8 + length > end:
            raise BadPicture(f"{label} is a damaged WebP: it is cut off.")
        if kind in _WEBP_KEPT:
            chunks.append((kind, data[position + 8 : position + 8 + length]))
        position += 8 + length + (length & 1)
    if chunks and chunks[0][0] == b"VP8X" and len(chunks[0][1]) == 10:
        flags = chunks[0][1][0] & ~(_WEBP_HAS_EXIF | _WEBP_HAS_XMP)
        if exif:
            flags |= _WEBP_HAS_EXIF
            chunks.append((b"EXIF", exif))
        chunks[0] = (b"VP8X", bytes([flags]) + chunks[0][1][1:])
    body = b"".join(kind + struct.pack("<I", len(part)) + part + b"\0" * (len(part) & 1) for kind, part in chunks)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def public_exif(orientation: int, recipe_comment: bytes | None) -> bytes:
    """A TIFF block that says how the picture is turned and how it was made, and nothing else; b"" if neither."""
    exif = Image.Exif()
    if 2 <= orientation <= 8:
        exif[EXIF_ORIENTATION] = orientation
    if recipe_comment and len(recipe_comment) < 60_000:
        exif.get_ifd(EXIF_IFD)[EXIF_USER_COMMENT] = recipe_comment
    if not len(exif) and not exif.get_ifd(EXIF_IFD):
        return b""
    return exif.tobytes().removeprefix(b"Exif\0\0")

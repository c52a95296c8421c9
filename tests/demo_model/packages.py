"""npm archives like those that the program reads, each with a few drawn shapes."""

import io
import json
import tarfile
from pathlib import Path

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image

from benchmarks.demo_model import packages
from benchmarks.demo_model.packages import Package
from tests.demo_model.things import SIGNS, THINGS

_CODES = {f"{ord(sign):x}": name for sign, name in zip(SIGNS, THINGS, strict=True)}
_SHAPE = '<circle cx="16" cy="16" r="12" fill="#d03030"/>'


def write_all(folder: Path) -> None:
    """Every package that the data stage asks for, under the name that `npm pack` would give it."""
    folder.mkdir()
    icons = {
        "icons.json": json.dumps(
            {"icons": {name: {"body": _SHAPE} for name in THINGS}, "width": 32, "height": 32}
        ).encode(),
        "chars.json": json.dumps(_CODES).encode(),
    }
    for package in (packages.NOTO, packages.FLUENT_FLAT, packages.FLUENT_OUTLINE):
        _write(folder, package, icons)
    _write(folder, packages.FLUENT_3D, {f"assets/{code}.webp": _bitmap() for code in _CODES})
    drawing = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">{_SHAPE}</svg>'.encode()
    _write(folder, packages.FLUENT_COLOR, {f"assets/{code}.svg": drawing for code in _CODES})
    _write(folder, packages.NOTO_MONO, {"files/noto-emoji-emoji-700-normal.woff2": _font()})
    named = {sign: {"name": name, "group": "Things"} for sign, name in zip(SIGNS, THINGS, strict=True)}
    flag = {"🏁": {"name": "chequered flag", "group": "Flags"}}
    _write(folder, packages.NAMES, {"data-by-emoji.json": json.dumps(named | flag).encode()})
    _write(folder, packages.KEYWORDS, {"dist/emoji-en-US.json": json.dumps({"🦊": ["fox", "sly_one"]}).encode()})
    _write(folder, packages.TAGS, {"en/data.json": json.dumps([{"hexcode": "1F98A", "tags": ["animal"]}]).encode()})


def _write(folder: Path, package: Package, files: dict[str, bytes]) -> None:
    with tarfile.open(folder / package.file_name, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def _bitmap() -> bytes:
    """Not square, so that it has to be centred."""
    buffer = io.BytesIO()
    Image.new("RGBA", (64, 32), (40, 160, 60, 255)).save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


def _font() -> bytes:
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in ((100, 700), (800, 700), (800, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square, nothing = pen.glyph(), TTGlyphPen(None).glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord(sign): "square" for sign in SIGNS})
    builder.setupGlyf({".notdef": nothing, "square": square})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 100)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupOS2()
    builder.setupPost()
    builder.font.flavor = "woff2"
    content = io.BytesIO()
    builder.save(content)
    return content.getvalue()

"""Pictures of the packages as one array of 128 px RGBA, and what is known of each: style, name, keywords."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from benchmarks.demo_model import packages
from benchmarks.demo_model.packages import Archive, Package

SIDE = 128
Picture = NDArray[np.uint8]
#: Code points in hex, joined by dashes, without the variation selector -> an SVG text or a bitmap's bytes.
Sources = dict[str, str | bytes]


def build(folder: Path, package_folder: Path) -> None:
    """Render everything to `artwork.npy` [pictures, 128, 128, 4] and `artwork.json` in `folder`, unless it is there.

    Raises:
        FileNotFoundError: a package is neither in `package_folder` nor to be had from npm.
    """
    if (folder / "artwork.json").exists():
        return

    def opened(package: Package) -> Archive:
        return Archive(packages.fetch(package, package_folder))

    emoji = read_names(opened(packages.NAMES), opened(packages.KEYWORDS), opened(packages.TAGS))
    readers: dict[str, Callable[[], Sources]] = {
        "noto": lambda: read_icons(opened(packages.NOTO)),
        "fluent-flat": lambda: read_icons(opened(packages.FLUENT_FLAT)),
        "fluent-hc": lambda: read_icons(opened(packages.FLUENT_OUTLINE)),
        "fluent-3d": lambda: read_files(opened(packages.FLUENT_3D), ".webp"),
        "fluent-color": lambda: read_files(opened(packages.FLUENT_COLOR), ".svg"),
    }
    pictures: list[Picture] = []
    about: list[dict[str, Any]] = []
    for style, reader in readers.items():
        sources = reader()
        for code in (code for code in emoji if code in sources):
            pictures.append(render(sources[code]))
            about.append({"style": style, "hex": code, **emoji[code]})
    for code, picture in draw_glyphs(opened(packages.NOTO_MONO), list(emoji)):
        pictures.append(picture)
        about.append({"style": "mono-700", "hex": code, **emoji[code]})
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "artwork.npy", np.stack(pictures))
    # Written last: its presence says that the array is whole.
    (folder / "artwork.json").write_text(json.dumps(about))


def without_selector(code: str) -> str:
    return "-".join(part for part in code.lower().split("-") if part != "fe0f")


def read_names(names: Archive, keywords: Archive, tags: Archive) -> dict[str, dict[str, Any]]:
    """What each emoji is called; flags are left out."""
    more_words = keywords.json("dist/emoji-en-US.json")
    by_code = {without_selector(entry["hexcode"]): entry for entry in tags.json("en/data.json")}
    found: dict[str, dict[str, Any]] = {}
    for character, entry in names.json("data-by-emoji.json").items():
        if entry["group"] == "Flags":
            continue
        code = without_selector("-".join(f"{ord(letter):x}" for letter in character))
        words = [word.replace("_", " ") for word in more_words.get(character, [])] + by_code.get(code, {}).get(
            "tags", []
        )
        name = entry["name"].lower()
        found[code] = {
            "name": name,
            "tags": list(dict.fromkeys(word for word in words if word.isascii() and word != name)),
        }
    return found


def read_icons(archive: Archive) -> Sources:
    """SVG texts of an Iconify set."""
    icons, codes = archive.json("icons.json"), archive.json("chars.json")
    sources: Sources = {}
    for code, name in codes.items():
        icon = icons["icons"].get(icons.get("aliases", {}).get(name, {}).get("parent", name))
        if icon is None:
            continue
        width, height = icon.get("width", icons.get("width", 16)), icon.get("height", icons.get("height", 16))
        sources[without_selector(code)] = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" color="#000" '
            f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}" width="{width}" height="{height}">'
            f"{icon['body']}</svg>"
        )
    return sources


def read_files(archive: Archive, suffix: str) -> Sources:
    """Pictures that are files named by their code points."""
    sources: Sources = {}
    for name in archive.names("assets/", suffix):
        content = archive.read(name)
        sources[without_selector(Path(name).stem)] = content.decode() if suffix == ".svg" else content
    return sources


def render(source: str | bytes) -> Picture:
    """[128, 128, 4], straight alpha; what is not square is centred on a square."""
    # Only this stage needs the renderer.
    import resvg_py

    if isinstance(source, str):
        source = bytes(resvg_py.svg_to_bytes(svg_string=source, width=SIDE, skip_system_fonts=True))
    picture = Image.open(io.BytesIO(source)).convert("RGBA")
    side = max(picture.size)
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return np.asarray(square.resize((SIDE, SIDE), Image.Resampling.LANCZOS)).copy()


def draw_glyphs(archive: Archive, codes: list[str]) -> Iterator[tuple[str, Picture]]:
    """Glyphs of the bold monochrome font, black, scaled so that each fills its square."""
    from fontTools.ttLib import TTFont

    for name in archive.names("files/", "-700-normal.woff2"):
        font = TTFont(io.BytesIO(archive.read(name)))
        font.flavor = None
        plain = io.BytesIO()
        font.save(plain)
        known = set(font.getBestCmap())
        plain.seek(0)
        face = ImageFont.truetype(plain, 96)
        for code in [code for code in codes if "-" not in code and int(code, 16) in known]:
            if picture := draw_glyph(chr(int(code, 16)), face):
                yield code, picture[0]


def draw_glyph(character: str, face: ImageFont.FreeTypeFont) -> tuple[Picture] | None:
    """None where the font has only an empty glyph."""
    canvas = Image.new("L", (SIDE * 2, SIDE * 2), 0)
    pen = ImageDraw.Draw(canvas)
    left, top, right, bottom = pen.textbbox((0, 0), character, font=face)
    pen.text((SIDE - (left + right) / 2, SIDE - (top + bottom) / 2), character, font=face, fill=255)
    box = canvas.getbbox()
    if box is None:
        return None
    centre_x, centre_y = (box[0] + box[2]) // 2, (box[1] + box[3]) // 2
    reach = int(max(box[2] - box[0], box[3] - box[1], 90) * 0.54)
    cut = canvas.crop((centre_x - reach, centre_y - reach, centre_x + reach, centre_y + reach))
    picture = np.zeros((SIDE, SIDE, 4), np.uint8)
    picture[..., 3] = np.asarray(cut.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    return (picture,)

"""All pictures of a sheet on one, with what is different written beside them."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_FONT = Path(__file__).parents[2] / "pages" / "components" / "fonts" / "inter.woff2"
_BACK, _TEXT, _DIM = "#0a0a0b", "#ffffff", "#a1a1aa"
#: Cells are shrunk so that the sheet stays within this, in pixels a side.
_LONGEST = 8192
#: Smaller cells are enlarged, or their labels would have no room.
_SMALLEST_CELL = 128


def draw_sheet(sheet: Mapping[str, Any], pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """uint8 [height, width, 3].

    Args:
        sheet: of a complete request.
        pictures: in the order of its cells, all of one size.
    """
    across, down = sheet["x"], sheet["y"]
    columns, rows = len(across["values"]), len(down["values"]) if down else 1
    control = 1 if sheet["control"] else 0
    width, height = _cell_size(pictures[0], columns + control, rows)
    text = max(12, min(40, height // 12))
    font, gap = _font(text), max(4, text // 3)
    head = 2 * text + 3 * gap
    side = _side(down, text, width) if down else gap
    total_columns = columns + control
    size = (side + total_columns * (width + gap), head + rows * (height + gap))
    image = Image.new("RGB", size, _BACK)
    draw = ImageDraw.Draw(image)
    title = across["label"] if down is None else f"{across['label']} across, {down['label']} down"
    draw.text((side, gap), _cut(title, font, size[0] - side), _DIM, font)
    for column in range(total_columns):
        left = side + column * (width + gap)
        label = "none" if column < control else across["labels"][column - control]
        draw.text((left, text + 2 * gap), _cut(label, font, width), _TEXT, font)
    for number, pixels in enumerate(pictures):
        if number < control:
            column, row = 0, 0
        else:
            row, column = divmod(number - control, columns)
            column += control
        at = (side + column * (width + gap), head + row * (height + gap))
        image.paste(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS), at)
    for row in range(rows if down else 0):
        lines = _wrap(down["labels"][row], font, side - 2 * gap, max(1, height // (text + gap)))
        draw.multiline_text((gap, head + row * (height + gap)), "\n".join(lines), _TEXT, font, spacing=gap)
    return np.asarray(image)


def _cell_size(pixels: NDArray[np.uint8], columns: int, rows: int) -> tuple[int, int]:
    height, width = pixels.shape[:2]
    grow = max(1.0, _SMALLEST_CELL / min(width, height))
    scale = min(grow, _LONGEST / (columns * width), _LONGEST / (rows * height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _side(down: Mapping[str, Any], text: int, width: int) -> int:
    """Room for the labels of the rows."""
    font = _font(text)
    return 2 * text + round(min(2.0 * width, max(font.getlength(label) for label in down["labels"])))


def _cut(text: str, font: Any, room: float) -> str:
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"{text}…") > room:
        text = text[:-1]
    return f"{text.rstrip()}…"


def _wrap(text: str, font: Any, room: float, most: int) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > room:
            lines.append(line)
            longer = word
        line = longer
    lines.append(line)
    return [_cut(one, font, room) for one in lines[:most]]


@lru_cache(maxsize=8)
def _font(pixels: int) -> Any:
    try:
        return ImageFont.truetype(str(_FONT), pixels)
    except OSError:
        # A FreeType without WOFF2, or an installation without pages.
        return ImageFont.load_default(pixels)

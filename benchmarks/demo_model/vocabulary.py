"""What the model knows: about 190 things in three styles, colours of things and backgrounds, and what it never saw."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SIZE = 64
HUES = {"red": 0, "orange": 30, "yellow": 52, "green": 125, "blue": 215, "purple": 275, "pink": 330}
BACKGROUNDS = {
    "white": (255, 255, 255), "red": (220, 40, 40), "orange": (245, 140, 30), "yellow": (250, 215, 60),
    "green": (60, 170, 75), "blue": (50, 110, 220), "purple": (130, 70, 190), "pink": (245, 140, 185),
    "brown": (120, 80, 50), "black": (20, 20, 20), "gray": (128, 128, 128), "sky blue": (150, 210, 245),
}  # fmt: skip
COLOUR_WORDS = frozenset(word for name in (*HUES, *BACKGROUNDS) for word in name.split()) - {"sky"}


@dataclass(frozen=True, slots=True)
class Style:
    """A style of the base model: whose artwork it is, how prompts call it, how often training draws it."""

    artwork: str
    words: tuple[str, ...]
    share: float


@dataclass(frozen=True, slots=True)
class HeldOutStyle:
    """A style that only a LoRA knows. `background` is RGB.

    The trigger holds a word of the base style whose shapes the artwork shares (none for the first style): the LoRA then
    has to change how things are painted, not what they look like.
    """

    artwork: str
    trigger: str
    background: tuple[int, int, int]


#: A prompt without words of style means the first.
STYLES = (
    Style("fluent-3d", ("3d style", "3d style", "glossy 3d style", "3d"), 0.40),
    Style("fluent-flat", ("flat style", "flat style", "flat vector style", "flat"), 0.32),
    Style("noto", ("noto style", "noto style", "cartoon style", "cartoon"), 0.28),
)
HELD_OUT_STYLES = {
    "line-art": HeldOutStyle("mono-700", "cartoon line art style", (255, 255, 255)),
    "outlined": HeldOutStyle("fluent-hc", "flat outlined style", (255, 255, 255)),
    "night": HeldOutStyle("fluent-color", "night style", (22, 28, 66)),
}
#: Style swaps that training never sees: these things are known in the other styles alone.
_UNSEEN_STYLES = {
    0: ("fox", "octopus", "mushroom", "pizza", "car", "frog", "burger", "cactus"),
    1: ("rocket", "strawberry", "panda", "sunflower", "guitar", "house", "crown", "penguin"),
}


def plain(name: str) -> str:
    """A name as prompts spell it."""
    return name.replace("“", "").replace("”", "").replace("’", "'").replace("-", " ").lower()


def without_colours(name: str) -> str:
    return " ".join(word for word in name.split() if word not in COLOUR_WORDS)


@dataclass(frozen=True)
class Vocabulary:
    """`short` and `full` names and one-word `aliases` of the things; `art` [3, things, 4, 64, 64] uint8, premultiplied;
    `hues` [3, things] in degrees, -1 where a thing has no colour of its own."""

    short: list[str]
    full: list[str]
    aliases: list[list[str]]
    art: Tensor
    hues: Tensor

    def __len__(self) -> int:
        return len(self.short)

    def to(self, where: torch.device) -> "Vocabulary":
        """With the art on a device; scenes are then composed there."""
        return replace(self, art=self.art.to(where))

    def things_of(self, style: int) -> list[int]:
        """What training may draw in a style."""
        return [i for i, name in enumerate(self.short) if name not in _UNSEEN_STYLES.get(style, ())]

    def unseen_styles(self) -> list[tuple[int, int]]:
        """(style, thing) that training never draws."""
        known = set(self.short)
        pairs = [(style, name) for style, names in _UNSEEN_STYLES.items() for name in names if name in known]
        return [(style, self.short.index(name)) for style, name in pairs]

    def takes_colour(self, thing: int, style: int) -> bool:
        """Whether "<colour> <thing>" can be drawn and means this thing alone."""
        bare = without_colours(self.short[thing])
        if bare in ("heart", "apple") and self.short[thing] not in ("red heart", "apple"):
            return False
        return bool(bare) and self.hues[style, thing].item() >= 0


def is_held_out(kind: str, *names: str) -> bool:
    """One combination in sixteen, the same ones for ever: never a caption of training, so that tests can ask for it."""
    return hashlib.md5("|".join((kind, *names)).encode()).digest()[0] < 16


def load(folder: Path) -> Vocabulary:
    """The things of `concepts.txt` (that of `folder`, if it holds one), from the artwork that lies in `folder`."""
    about = json.loads((folder / "artwork.json").read_text())
    rows = {(entry["style"], entry["name"]): row for row, entry in enumerate(about)}
    own, usual = folder / "concepts.txt", Path(__file__).with_name("concepts.txt")
    lines = [line for line in (own if own.exists() else usual).read_text().splitlines() if line]
    pairs = [(name, short or name) for name, _, short in (line.partition("=") for line in lines)]
    tags = [[plain(tag) for tag in about[rows[(STYLES[0].artwork, name)]]["tags"][:8]] for name, _ in pairs]
    art = torch.stack([load_art(folder, [rows[(style.artwork, name)] for name, _ in pairs]) for style in STYLES])
    short, full = [pair[1] for pair in pairs], [plain(pair[0]) for pair in pairs]
    hues = torch.stack([dominant_hues(pictures) for pictures in art])
    return Vocabulary(short, full, unambiguous_aliases(short, full, tags), art, hues)


def load_style(folder: Path, artwork: str, vocabulary: Vocabulary) -> tuple[list[int], Tensor]:
    """Things that exist in another style, and their pictures [n, 4, 64, 64]."""
    about = json.loads((folder / "artwork.json").read_text())
    rows = {plain(entry["name"]): row for row, entry in enumerate(about) if entry["style"] == artwork}
    things = [i for i, name in enumerate(vocabulary.full) if name in rows]
    return things, load_art(folder, [rows[vocabulary.full[i]] for i in things])


def load_art(folder: Path, rows: list[int]) -> Tensor:
    """[n, 4, 64, 64] uint8, premultiplied before it is made smaller so that edges keep their colour."""
    array = np.load(folder / "artwork.npy", mmap_mode="r")
    pictures = torch.from_numpy(np.stack([array[row] for row in rows])).permute(0, 3, 1, 2).float()
    pictures = torch.cat([pictures[:, :3] * pictures[:, 3:] / 255, pictures[:, 3:]], 1)
    return F.interpolate(pictures, size=(SIZE, SIZE), mode="area").round().clamp(0, 255).to(torch.uint8)


def unambiguous_aliases(short: list[str], full: list[str], tags: list[list[str]]) -> list[list[str]]:
    """Keywords that belong to one thing alone and collide with no word of the captions."""
    owners: dict[str, int] = {}
    for words in tags:
        for word in set(words):
            owners[word] = owners.get(word, 0) + 1
    reserved = {
        *COLOUR_WORDS,
        "and",
        "with",
        "next",
        "to",
        "on",
        "background",
        "style",
        "flat",
        "cartoon",
        "cute",
        "small",
    }

    def fits(word: str) -> bool:
        parts = word.split()
        letters = word.replace(" ", "").isalpha() and len(word) > 2
        return (
            letters
            and len(parts) < 3
            and owners[word] == 1
            and not {word} & {*short, *full}
            and not {*parts} & reserved
        )

    return [sorted({word for word in words if fits(word)}) for words in tags]


def dominant_hues(pictures: Tensor) -> Tensor:
    """[n, 4, h, w] -> [n]: mean hue in degrees weighted by saturation, -1 for pictures with little colour."""
    scaled = pictures.float() / 255
    colours, alpha = scaled[:, :3], scaled[:, 3]
    weight = (colours.amax(1) - colours.amin(1)) * alpha
    red, green, blue = colours.unbind(1)
    angle = torch.atan2(3**0.5 * (green - blue), 2 * red - green - blue)
    x, y = (weight * angle.cos()).sum((1, 2)), (weight * angle.sin()).sum((1, 2))
    sureness = torch.hypot(x, y) / (alpha.sum((1, 2)) + 1e-6)
    return torch.where(sureness > 0.3, torch.rad2deg(torch.atan2(y, x)) % 360, torch.full_like(sureness, -1.0))

"""An independent eye: a small classifier trained on the artwork itself, which says how well a picture fits a caption.

It knows nothing of the model it judges: neither its VAE nor its text encoder nor its captions.
"""

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.demo_model import networks
from benchmarks.demo_model.captions import Scene
from benchmarks.demo_model.fitting import Fit, load_average
from benchmarks.demo_model.scenes import compose, on_background
from benchmarks.demo_model.vocabulary import BACKGROUNDS, HELD_OUT_STYLES, HUES, STYLES, Vocabulary, load_style

STYLE_NAMES = [style.artwork for style in STYLES] + list(HELD_OUT_STYLES)
_NO_HUE = len(HUES)
#: The night style's background has no name in captions.
_OTHER_BACKGROUND = len(BACKGROUNDS)


@dataclass(frozen=True)
class Verdict:
    """Logarithms of probabilities, a row a picture: [n, things], [n, 6], [n, 13], [n, 8]; `features` [n, 160]."""

    things: Tensor
    styles: Tensor
    backgrounds: Tensor
    hues: Tensor
    features: Tensor

    def fit(self, row: int, scene: Scene) -> float:
        """How well a picture fits a scene; 0 is perfect, below is worse."""
        things = self.things[row]
        found = things[scene.thing]
        if scene.second is not None:
            # Half the probability each is what the judge was taught for two.
            found = (things[scene.thing] + things[scene.second]) / 2 + torch.log(torch.tensor(2.0))
        hue = list(HUES).index(scene.hue) if scene.hue else _NO_HUE
        background = list(BACKGROUNDS).index(scene.background)
        said = self.styles[row, scene.style] + self.backgrounds[row, background] + self.hues[row, hue]
        return float(found + said)


class Judge(nn.Module):
    """0.6 M parameters; pictures [n, 3, 64, 64] in -1..1."""

    def __init__(self, things: int) -> None:
        super().__init__()
        widths = (24, 48, 96, 160)
        layers: list[nn.Module] = []
        before = 3
        for width in widths:
            layers += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.SiLU()]
            if width >= 96:
                layers += [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.SiLU()]
            before = width
        self.body = nn.Sequential(*layers)
        # Corners differ from the middle: pairs and backgrounds need to know where.
        self.features = nn.Linear(widths[-1] * 16, 160)
        self.sizes = [things, len(STYLE_NAMES), len(BACKGROUNDS) + 1, len(HUES) + 1]
        self.answers = nn.Linear(160, sum(self.sizes))

    def forward(self, pictures: Tensor) -> Verdict:
        features = F.silu(self.features(self.body(pictures).flatten(1)))
        parts = self.answers(features).split(self.sizes, 1)
        things, styles, backgrounds, hues = (part.log_softmax(1) for part in parts)
        return Verdict(things, styles, backgrounds, hues, features)


class JudgeLessons:
    """All artwork with augmentation: every style, colour, background and pair alike."""

    def __init__(self, work: Path, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._held_out = [(load_style(work, style.artwork, vocabulary), style) for style in HELD_OUT_STYLES.values()]

    def draw(self, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Pictures [n, 3, 64, 64]; shares of the things [n, things]; styles, backgrounds, hues [n]."""
        shares = torch.zeros(count, len(self._vocabulary))
        scenes = [self.scene() for _ in range(count * 6 // 10)]
        pictures = [compose(self._vocabulary, scenes)]
        styles, backgrounds, hues = [], [], []
        for row, scene in enumerate(scenes):
            for thing in (scene.thing, scene.thing if scene.second is None else scene.second):
                shares[row, thing] += 0.5
            styles.append(scene.style)
            backgrounds.append(list(BACKGROUNDS).index(scene.background))
            hues.append(list(HUES).index(scene.hue) if scene.hue else _NO_HUE)
        for row in range(len(scenes), count):
            number = random.randrange(len(self._held_out))
            (things, art), style = self._held_out[number]
            pick = random.randrange(len(things))
            pictures.append(on_background(art[pick : pick + 1], torch.tensor([style.background])))
            shares[row, things[pick]] = 1
            styles.append(len(STYLES) + number)
            backgrounds.append(0 if style.background == (255, 255, 255) else _OTHER_BACKGROUND)
            hues.append(_NO_HUE)
        return _worn(torch.cat(pictures)), shares, torch.tensor(styles), torch.tensor(backgrounds), torch.tensor(hues)

    def scene(self) -> Scene:
        style, thing = random.randrange(len(STYLES)), random.randrange(len(self._vocabulary))
        background = random.choice(list(BACKGROUNDS)[1:]) if random.random() < 0.35 else "white"
        kind = random.random()
        if kind < 0.25:
            return Scene(style, thing, random.randrange(len(self._vocabulary)), background=background)
        if kind < 0.5 and self._vocabulary.takes_colour(thing, style):
            return Scene(style, thing, hue=random.choice(list(HUES)), background=background)
        return Scene(style, thing, background=background)


def _worn(pictures: Tensor) -> Tensor:
    """Shifted, rescaled, blurred, tinted, noisy: no drawing is perfect, and the judge shall not mind."""
    count = len(pictures)
    zoom = 1 + (torch.rand(count) - 0.5) * 0.16
    shift = (torch.rand(count, 2) - 0.5) * 0.14
    grid = torch.zeros(count, 2, 3)
    grid[:, 0, 0] = grid[:, 1, 1] = zoom
    grid[:, :, 2] = shift
    places = F.affine_grid(grid, list(pictures.shape), align_corners=False)
    moved = F.grid_sample(pictures, places, padding_mode="border", align_corners=False)
    soft = F.avg_pool2d(moved, 3, stride=1, padding=1, count_include_pad=False)
    moved = torch.lerp(moved, soft, torch.rand(count, 1, 1, 1))
    gain = 1 + (torch.rand(count, 1, 1, 1) - 0.5) * 0.3
    tint = (torch.rand(count, 3, 1, 1) - 0.5) * 0.1
    return (moved * gain + tint + torch.randn_like(moved) * 0.1 * torch.rand(count, 1, 1, 1)).clamp(-1, 1)


def train_judge(work: Path, vocabulary: Vocabulary, minutes: float) -> None:
    where = networks.device()
    judge, lessons = Judge(len(vocabulary)).to(where), JudgeLessons(work, vocabulary)
    fit = Fit("judge", [judge], work / "judge.pt", minutes, lr=2e-3)
    batch = 64 if where.type == "cpu" else 512
    for _ in fit.steps():
        pictures, shares, styles, backgrounds, hues = (part.to(where) for part in lessons.draw(batch))
        verdict = judge(pictures.contiguous(memory_format=torch.channels_last))
        named = (
            F.nll_loss(verdict.styles, styles)
            + F.nll_loss(verdict.backgrounds, backgrounds)
            + F.nll_loss(verdict.hues, hues)
        )
        fit.learn(-(shares * verdict.things).sum(1).mean() + 0.5 * named, batch)


def load_judge(work: Path, vocabulary: Vocabulary) -> Judge:
    """Raises: FileNotFoundError: it was never trained."""
    judge = Judge(len(vocabulary))
    # Running statistics of the norms are no parameters, so the average has none.
    judge.load_state_dict(torch.load(work / "judge.pt", map_location="cpu", weights_only=True)["modules"][0])
    load_average([judge], work / "judge.pt")
    return judge.eval()

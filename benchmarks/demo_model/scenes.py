"""Scenes as pictures."""

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.demo_model.captions import Scene
from benchmarks.demo_model.vocabulary import BACKGROUNDS, HUES, SIZE, Vocabulary


def compose(vocabulary: Vocabulary, scenes: list[Scene]) -> Tensor:
    """[n, 3, 64, 64] in -1..1."""
    art = torch.stack([vocabulary.art[scene.style, scene.thing] for scene in scenes]).float()
    turns = torch.tensor([_turn(vocabulary, scene) for scene in scenes])
    art = torch.cat([torch.minimum(turn_hue(art[:, :3], turns), art[:, 3:]), art[:, 3:]], 1)
    doubles = [i for i, scene in enumerate(scenes) if scene.second is not None]
    if doubles:
        seconds = [vocabulary.art[scenes[i].style, scenes[i].second or 0] for i in doubles]
        art[doubles] = side_by_side(art[doubles], torch.stack(seconds).float())
    return on_background(art, torch.tensor([BACKGROUNDS[scene.background] for scene in scenes]))


def _turn(vocabulary: Vocabulary, scene: Scene) -> float:
    return (HUES[scene.hue] - vocabulary.hues[scene.style, scene.thing].item()) % 360 if scene.hue else 0.0


def on_background(art: Tensor, colours: Tensor) -> Tensor:
    """Premultiplied [n, 4, h, w] in 0..255 over RGB [n, 3] in 0..255 -> [n, 3, h, w] in -1..1."""
    art = art.float() / 255
    return (art[:, :3] + colours[:, :, None, None].float() / 255 * (1 - art[:, 3:])) * 2 - 1


def turn_hue(colours: Tensor, degrees: Tensor) -> Tensor:
    """Rotate [n, 3, h, w] about the grey axis by [n] degrees."""
    angle = torch.deg2rad(degrees)
    cosine, sine = angle.cos(), angle.sin()
    u, v = (1 - cosine) / 3, sine / 3**0.5
    rows = [cosine + u, u - v, u + v, u + v, cosine + u, u - v, u - v, u + v, cosine + u]
    return torch.einsum("nij,njhw->nihw", torch.stack(rows, 1).view(-1, 3, 3), colours).clamp(min=0)


def side_by_side(left: Tensor, right: Tensor) -> Tensor:
    """Both at half size, on one transparent square."""
    half, quarter = SIZE // 2, SIZE // 4
    small = F.interpolate(torch.cat([left, right]), size=(half, half), mode="area")
    square = torch.zeros_like(left)
    square[..., quarter : quarter + half, :half] = small[: len(left)]
    square[..., quarter : quarter + half, half:] = small[len(left) :]
    return square

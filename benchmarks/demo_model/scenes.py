"""Scenes as pictures."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.demo_model.captions import Scene
from benchmarks.demo_model.vocabulary import BACKGROUNDS, HUES, SIZE, Vocabulary

#: How far two pictures of one scene may differ: smallest size, tilt and turn of hue in degrees, shade.
_SMALLEST, _TILT, _TINGE, _SHADE = 0.88, 8.0, 9.0, 0.1


def compose(vocabulary: Vocabulary, scenes: list[Scene], *, varied: bool = False) -> Tensor:
    """[n, 3, 64, 64] in -1..1, where the vocabulary's art lies.

    If `varied`, sizes, places, tilts and shades are drawn by chance.
    """
    where = vocabulary.art.device
    styles = torch.tensor([scene.style for scene in scenes], device=where)
    art = vocabulary.art[styles, torch.tensor([scene.thing for scene in scenes], device=where)].float()
    turns = torch.tensor([_turn(vocabulary, scene) for scene in scenes], device=where)
    art = torch.cat([torch.minimum(turn_hue(art[:, :3], turns), art[:, 3:]), art[:, 3:]], 1)
    doubles = [i for i, scene in enumerate(scenes) if scene.second is not None]
    if doubles:
        rows = torch.tensor(doubles, device=where)
        seconds = vocabulary.art[styles[rows], torch.tensor([scenes[i].second for i in doubles], device=where)]
        art[rows] = side_by_side(art[rows], seconds.float())
    grounds = torch.tensor([BACKGROUNDS[scene.background] for scene in scenes], device=where)
    if not varied:
        return on_background(art, grounds)
    # White stays white: it is the page, not a colour.
    shades = torch.where((grounds == 255).all(1), 1.0, _around(grounds, 1.0, 0.08))
    return on_background(vary(art), (grounds * shades[:, None]).clamp(max=255))


def _around(rows: Tensor, middle: float, reach: float) -> Tensor:
    """One number a row."""
    return middle + (torch.rand(len(rows), device=rows.device) * 2 - 1) * reach


def vary(art: Tensor) -> Tensor:
    """Premultiplied [n, 4, h, w] in 0..255: another size, place, tilt, tinge and shade each, never off the square."""
    reach = (1 - _SMALLEST) / 2
    sizes = _around(art, 1 - reach, reach)
    angles = _around(art, 0, math.radians(_TILT))
    cosine, sine = angles.cos() / sizes, angles.sin() / sizes
    # Takes places of the answer to places of the art.
    turn = torch.stack([cosine, -sine, sine, cosine], 1).view(-1, 2, 2)
    shift = torch.stack([_around(art, 0, 1), _around(art, 0, 1)], 1) * (1 - sizes)[:, None]
    matrix = torch.cat([turn, -turn @ shift[:, :, None]], 2)
    grid = F.affine_grid(matrix, list(art.shape), align_corners=False)
    moved = F.grid_sample(art, grid, mode="bicubic", align_corners=False).clamp(0, 255)
    colours = turn_hue(moved[:, :3], _around(art, 0, _TINGE)) * _around(art, 1, _SHADE)[:, None, None, None]
    return torch.cat([torch.minimum(colours, moved[:, 3:]), moved[:, 3:]], 1)


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

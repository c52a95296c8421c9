"""Picture codes: 160 numbers that stand for a latent picture, and the 16 memory tokens that carry them to the UNet.

The text encoder need not learn what a UNet would like to read: it has to find the code of the scene that a caption
means (plain regression, minutes instead of days), and the UNet learns to draw from codes.

Places 16..31 of the 32 text tokens are the memory. Memory token k says in its first 16 numbers which cell of a 4x4 grid
it is, and in the next 64 what the cell's part of the latent picture looks like. The first token is a place to look at
for attention that wants nothing.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from benchmarks.demo_model.captions import Asked, CaptionWriter, Scene
from benchmarks.demo_model.networks import CONTEXT, LATENT_CHANNELS, LATENT_SIDE, TEXT_WIDTH
from benchmarks.demo_model.scenes import compose
from benchmarks.demo_model.vocabulary import BACKGROUNDS, HUES, STYLES, Vocabulary

CODE = 160
CELLS = 16
CELL_NUMBERS = 64
#: How loud the memory says which cell it is, and the first token that it is the first.
LOUD = 3.0
#: Where the first token says so.
IDLE = 176


def to_cells(latents: Tensor) -> Tensor:
    """[n, 4, 16, 16] -> [n, 16 cells, 64]: each cell 4x4 latent pixels, one 2x2 quadrant after the other."""
    split = latents.view(len(latents), 4, 4, 2, 2, 4, 2, 2)  # channel, cell y, quadrant y, pixel y, then x
    return split.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(len(latents), CELLS, CELL_NUMBERS)


def from_cells(cells: Tensor) -> Tensor:
    """[n, 1024 of all cells] -> [n, 4, 16, 16]: the other way round."""
    split = cells.view(len(cells), 4, 4, 2, 2, LATENT_CHANNELS, 2, 2)  # cell y, x, quadrant y, x, channel, pixel y, x
    return split.permute(0, 5, 1, 3, 6, 2, 4, 7).reshape(len(cells), LATENT_CHANNELS, LATENT_SIDE, LATENT_SIDE)


@dataclass(frozen=True)
class Codes:
    """Principal components of latent pictures: `mean` [1024], `basis` [1024, 160], `spread` [160]."""

    mean: Tensor
    basis: Tensor
    spread: Tensor

    def of(self, latents: Tensor) -> Tensor:
        """[n, 4, 16, 16] -> [n, 160]."""
        return (latents.flatten(1) - self.mean) @ self.basis

    def cells(self, codes: Tensor) -> Tensor:
        """[n, 160] -> [n, 16, 64]: the pictures that the codes stand for, cell by cell."""
        pictures = self.mean + codes @ self.basis.T
        return to_cells(pictures.view(len(codes), LATENT_CHANNELS, LATENT_SIDE, LATENT_SIDE))

    def memory(self, codes: Tensor) -> Tensor:
        """What a perfect text encoder would answer: [n, 160] -> [n, 32, 192]."""
        states = torch.zeros(len(codes), CONTEXT, TEXT_WIDTH, device=codes.device)
        # Words are noise to the UNet: it must not lean on them.
        noise = torch.randn(len(codes), CONTEXT - CELLS - 1, CODE, device=codes.device)
        states[:, 1:CELLS, 16 : 16 + CODE] = noise * 0.5 * torch.rand(len(codes), 1, 1, device=codes.device)
        states[:, 0, IDLE] = LOUD
        states[:, CELLS:, :CELLS] = torch.eye(CELLS, device=codes.device) * LOUD
        states[:, CELLS:, CELLS : CELLS + CELL_NUMBERS] = self.cells(codes)
        return states

    def to(self, where: torch.device) -> "Codes":
        return Codes(self.mean.to(where), self.basis.to(where), self.spread.to(where))

    def save(self, path: Path) -> None:
        torch.save({"mean": self.mean, "basis": self.basis, "spread": self.spread}, path)

    @classmethod
    def load(cls, path: Path) -> "Codes":
        return cls(**torch.load(path, map_location="cpu", weights_only=True))

    def measured(self, latents: Tensor) -> "Codes":
        """The same components with the spread that a sample has."""
        return Codes(self.mean, self.basis, self.of(latents).square().mean(0).sqrt())

    @classmethod
    def fit(cls, latents: Tensor) -> "Codes":
        """Components of a sample [n, 4, 16, 16] of what training draws."""
        flat = latents.flatten(1)
        mean = flat.mean(0)
        values, vectors = torch.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))
        return cls(mean, vectors.flip(1)[:, :CODE].contiguous(), values.flip(0)[:CODE].sqrt())


class LatentBank:
    """Latents of scenes. Single things in one colour are encoded once and kept, the rest when asked for.

    `backgrounds` [pictures, 12, 4, 16, 16], `hues` [pictures, 7, 4, 16, 16], half precision.
    """

    def __init__(self, vocabulary: Vocabulary, vae: AutoencoderKL, kept: Path) -> None:
        self._vocabulary, self._vae = vocabulary, vae
        if not kept.exists():
            torch.save([self._all(None), self._all("hues")], kept)
        self._backgrounds, self._hues = torch.load(kept, map_location="cpu", weights_only=True)

    def _all(self, kind: str | None) -> Tensor:
        names = len(self._vocabulary)
        made = []
        for style in range(len(STYLES)):
            for thing in range(names):
                scenes = [Scene(style, thing, background=name) for name in BACKGROUNDS]
                if kind == "hues":
                    scenes = [Scene(style, thing, hue=hue) for hue in HUES]
                made.append(self.encode(scenes).half().cpu())
        return torch.stack(made)

    @torch.no_grad()
    def encode(self, scenes: list[Scene], *, varied: bool = False) -> Tensor:
        """[n, 4, 16, 16], the mean of the VAE's answer."""
        pictures = compose(self._vocabulary, scenes, varied=varied).to(self._vae.device)
        return self._vae.encode(pictures.contiguous(memory_format=torch.channels_last)).latent_dist.mean.float()

    def of(self, scenes: list[Scene]) -> Tensor:
        """[n, 4, 16, 16] on the VAE's device."""
        kept = [self._kept(scene) for scene in scenes]
        missing = [scene for scene, latent in zip(scenes, kept, strict=True) if latent is None]
        fresh = iter(self.encode(missing).cpu()) if missing else iter(())
        rows = [next(fresh) if latent is None else latent.float() for latent in kept]
        return torch.stack(rows).to(self._vae.device)

    def _kept(self, scene: Scene) -> Tensor | None:
        row = scene.style * len(self._vocabulary) + scene.thing
        if scene.second is not None or (scene.hue and scene.background != "white"):
            return None
        if scene.hue:
            return self._hues[row, list(HUES).index(scene.hue)]
        return self._backgrounds[row, list(BACKGROUNDS).index(scene.background)]


def draw(writer: CaptionWriter, bank: LatentBank, count: int) -> tuple[list[Asked], Tensor]:
    """A batch: captions with their scenes, and the scenes' latents [count, 4, 16, 16]."""
    asked = [writer.draw() for _ in range(count)]
    return asked, bank.of([one.scene for one in asked])

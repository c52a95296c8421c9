"""Tokenizer, codes, text encoder and UNet, in this order."""

import time
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from benchmarks.demo_model import networks, vocabulary
from benchmarks.demo_model.assembly import assemble
from benchmarks.demo_model.captions import Asked, CaptionWriter, tokenizer_texts
from benchmarks.demo_model.codes import Codes, LatentBank, draw
from benchmarks.demo_model.fitting import Fit, load_average
from benchmarks.demo_model.seating import seat
from benchmarks.demo_model.textcoder import TextCoder, as_words
from benchmarks.demo_model.tokenizer import make_tokenizer

Noisy = tuple[Tensor, Tensor, Tensor]


class Studio:
    """What every training draws from."""

    def __init__(self, work: Path) -> None:
        self.work, self.where = work, networks.device()
        self.vocabulary = vocabulary.load(work).to(self.where)
        self.writer = CaptionWriter(self.vocabulary, seed=time.time_ns())
        self.bank = LatentBank(self.vocabulary, networks.load_vae(work / "vae", self.where), work / "latents.pt")
        if not (work / "tokenizer").exists():
            make_tokenizer(tokenizer_texts(self.vocabulary), work / "tokenizer")
        self.tokenizer: CLIPTokenizer = networks.load_tokenizer(work)
        if not (work / "codes.pt").exists():
            samples = torch.cat([_meant(*self.draw(64)).cpu() for _ in range(len(self.vocabulary))])
            known = work / "basis.pt"
            codes = Codes.load(known).measured(samples) if known.exists() else Codes.fit(samples)
            codes.save(work / "codes.pt")
        self.codes = Codes.load(work / "codes.pt").to(self.where)
        torch.manual_seed(time.time_ns())

    def draw(self, count: int) -> tuple[list[Asked], Tensor]:
        return draw(self.writer, self.bank, count)

    def draw_varied(self, count: int) -> tuple[list[Asked], Tensor]:
        """As `draw`, but no two pictures of a scene are the same: what a caption leaves open is up to the noise."""
        asked = [self.writer.draw() for _ in range(count)]
        return asked, self.bank.encode([one.scene for one in asked], varied=True)

    def batch(self, cpu: int, cuda: int) -> int:
        return cpu if self.where.type == "cpu" else cuda

    def ids(self, captions: list[str]) -> Tensor:
        """[n, 32]."""
        options = {"padding": "max_length", "truncation": True, "max_length": networks.CONTEXT, "return_tensors": "pt"}
        return self.tokenizer(captions, **options).input_ids.to(self.where)

    def text_encoder(self) -> CLIPTextModel:
        coder = TextCoder(self.tokenizer)
        load_average([coder], self.work / "text.pt")
        return assemble(coder, self.codes.to(torch.device("cpu")), self.tokenizer)


def _meant(asked: list[Asked], latents: Tensor) -> Tensor:
    return latents[torch.tensor([one.has_meaning for one in asked], device=latents.device)]


def train_text(studio: Studio, minutes: float) -> None:
    """Regression from captions to codes. Captions without meaning lead to the mean of all pictures."""
    coder = TextCoder(studio.tokenizer).to(studio.where)
    fit = Fit("text", [coder], studio.work / "text.pt", minutes, lr=0.01)
    batch, end = studio.batch(128, 1024), coder.end
    for _ in fit.steps():
        asked, latents = studio.draw(batch)
        meant = torch.tensor([[float(one.has_meaning)] for one in asked], device=studio.where)
        ids, is_word = as_words(studio.tokenizer, [one.caption for one in asked])
        # A long caption has words at memory places; they shall not matter there.
        strays = torch.randint(0, end - 1, (batch,))
        at_memory = torch.where(torch.rand(batch) < 0.15, strays, torch.full((batch,), end))
        found = coder(ids.to(studio.where), is_word.to(studio.where), at_memory.to(studio.where))
        wanted = studio.codes.of(latents) * meant
        fit.learn((found - wanted).square().sum(1).mean() / networks.LATENT_NUMBERS, batch)


def train_unet(studio: Studio, minutes: float) -> None:
    """Drawing from perfect codes, made a little wrong so that imperfect ones are no surprise.

    After a sixth of the time the cross attention is seated: before, features do not know yet where in the picture they
    are.
    """
    unet = networks.make_unet().to(studio.where, memory_format=torch.channels_last)
    fit = Fit("unet", [unet], studio.work / "unet.pt", minutes, lr=2e-3)
    batch = studio.batch(32, 512)
    seated = studio.work / "unet.seated"
    for _ in fit.steps():
        if not seated.exists() and fit.budget.progress > 1 / 6:
            seat(unet, lambda: _from_codes(studio, min(48, 2 * len(studio.vocabulary)))[0])
            seated.touch()
        (noisy, steps, memory), velocity = _from_codes(studio, batch)
        fit.learn(_loss(studio, unet, (noisy, steps, memory), velocity), batch)


def _from_codes(studio: Studio, count: int) -> tuple[Noisy, Tensor]:
    _, latents = studio.draw(count)
    noisy, steps, velocity = networks.add_noise(latents, skew=0.8)
    codes = studio.codes.of(latents)
    doubt = torch.rand(count, 1, device=studio.where) * 0.4
    codes = codes + studio.codes.spread * torch.randn_like(codes) * doubt
    codes = codes * (torch.rand(count, 1, device=studio.where) > 0.08)
    return (noisy, steps, studio.codes.memory(codes)), velocity


def train_joint(studio: Studio, minutes: float) -> None:
    """Drawing from the codes that the text encoder really finds, which stays as it is.

    A code says nothing of size, place, tilt and shade: the UNet has to find them in the noise, so seeds matter.
    """
    unet = networks.make_unet()
    load_average([unet], studio.work / "unet.pt")
    unet = unet.to(studio.where, memory_format=torch.channels_last)
    text_encoder = studio.text_encoder().to(studio.where)
    fit = Fit("joint", [unet], studio.work / "joint.pt", minutes, lr=6e-4)
    batch = studio.batch(32, 512)
    for _ in fit.steps():
        asked, latents = studio.draw_varied(batch)
        captions = [one.caption if i % 16 else "" for i, one in enumerate(asked)]
        noisy, steps, velocity = networks.add_noise(latents)
        with torch.no_grad():
            states = text_encoder(studio.ids(captions))[0]
        fit.learn(_loss(studio, unet, (noisy, steps, states), velocity), batch)


def _loss(studio: Studio, unet: UNet2DConditionModel, batch: Noisy, velocity: Tensor) -> Tensor:
    with networks.autocast(studio.where):
        predicted: Tensor = unet(*batch, return_dict=False)[0]
    return (predicted.float() - velocity).square().mean()

"""Checkpoints out of a finished pipeline folder: the weights that ship are the checkpoint that cannot get lost.

What `assembly` computed it computed from trained weights and codes; here it is taken apart again.
"""

import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from benchmarks.demo_model.assembly import disassemble
from benchmarks.demo_model.fitting import first_checkpoint

#: Any of these in a work folder belongs to a training of its own, whose latents and codes are other ones.
_OWN = ("vae", "vae.pt", "tokenizer", "codes.pt", "text.pt", "unet.pt", "joint.pt")


def adopt(folder: Path, work: Path) -> bool:
    """Let a work folder without any training go on from the pipeline in `folder`; False where there is nothing to do.

    The VAE is final then, since codes and UNet speak its latents.
    """
    if not (folder / "model_index.json").exists() or any((work / name).exists() for name in _OWN):
        return False
    work.mkdir(parents=True, exist_ok=True)
    parts = work / "adopted"
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir()
    shutil.copytree(folder / "tokenizer", parts / "tokenizer")
    plain = {"dtype": torch.float32, "local_files_only": True}
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", **plain)
    coder, basis = disassemble(encoder, CLIPTokenizer.from_pretrained(folder / "tokenizer"))
    basis.save(parts / "basis.pt")
    torch.save(first_checkpoint([coder]), parts / "text.pt")
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", **plain)
    torch.save(first_checkpoint([unet]), parts / "unet.pt")
    (parts / "unet.seated").touch()
    AutoencoderKL.from_pretrained(folder / "vae", **plain).save_pretrained(parts / "vae")
    for path in parts.iterdir():
        path.rename(work / path.name)
    parts.rmdir()
    return True

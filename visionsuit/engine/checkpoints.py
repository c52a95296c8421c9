"""Checkpoints in one file (`.safetensors` in the layout of SD 1.x, SD 2.x and SDXL), read from the header. No torch.

Beside `name.safetensors` may lie `name.json`, which says what `visionsuit.json` says in a diffusers folder, and may
set `prediction_type`; or the `name.yaml` that SD 2.x checkpoints were published with.
"""

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from visionsuit.engine.base import Family, ModelUnloadable
from visionsuit.engine.checkpoint_configs import SIDES, configure
from visionsuit.engine.checkpoint_names import OPEN_CLIP, OPEN_CLIP_2, UNET, VAE, Sources, find_sources
from visionsuit.engine.header import BadHeader, metadata_of, read_header, tensors_of
from visionsuit.engine.lora_names import Component, Part, Shape, parse_names

SUFFIX = ".safetensors"
#: Python pickles: opening one runs what its author wrote.
PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
#: What reading headers and configurations ends in where a number, a list or a name is not what it should be. Files come
#: from strangers, and one of them must not keep the others, or the site, from starting.
NONSENSE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
_PREDICTIONS = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """
    Attributes:
        configs: of `unet`, `vae`, the text encoders and `scheduler`.
        sources: part -> diffusers' name -> where the weight lies in the file.
        shapes: part -> diffusers' name -> shape of the weight.
        side: pixels of a side that it was trained on.
        own: what the file beside it says.
    """

    path: Path
    family: Family
    prediction_type: str
    side: int
    configs: Mapping[str, dict[str, Any]]
    sources: Sources
    shapes: Mapping[str, Mapping[str, Shape]]
    weights_bytes: int
    own: Mapping[str, Any]


def list_checkpoints(folder: Path) -> list[Path]:
    """Files in `folder` that are checkpoints by their name, by name; also the ones that are refused."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in (SUFFIX, *PICKLES) and file.is_file())


def beside(path: Path) -> list[Path]:
    """Files that say something about the checkpoint, and are there."""
    return [file for suffix in (".json", ".yaml") if (file := path.with_suffix(suffix)).is_file()]


def read_checkpoint(path: Path) -> Checkpoint:
    """
    Raises:
        ModelUnloadable: it cannot be rendered with; the reason is a sentence.
    """
    try:
        stamps = tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in (path, *beside(path)))
    except OSError as error:
        raise ModelUnloadable(f"{path.name} cannot be read: {error.strerror or error}.") from error
    try:
        return _read_checkpoint(path, stamps)
    except NONSENSE as error:
        raise ModelUnloadable(
            f"{path.name} is no whole checkpoint: its header or the file beside it makes no sense."
        ) from error


@lru_cache(maxsize=32)
def _read_checkpoint(path: Path, stamps: tuple[tuple[str, int, int], ...]) -> Checkpoint:
    # `stamps` is the cache's key: a file that changed is read anew.
    if path.suffix.lower() != SUFFIX:
        raise ModelUnloadable(
            f"{path.name} is a Python pickle, which can run any program when it is opened. "
            "Convert it to .safetensors, or get it in that form."
        )
    try:
        header = read_header(path)
    except BadHeader as error:
        raise ModelUnloadable(f"{path.name} is no whole safetensors file: {error}") from error
    _check_length(path, header)
    shapes = {name: tensor.shape for name, tensor in tensors_of(header).items()}
    metadata, own = metadata_of(header), _own(path)
    family = _family(path, shapes)
    sources = find_sources(shapes)
    wanted = [Component.UNET, "vae", Component.TEXT_ENCODER]
    for part in [*wanted, Component.TEXT_ENCODER_2] if family is Family.SDXL else wanted:
        if part not in sources:
            raise ModelUnloadable(f"{path.name} holds no {_LABELS[part]}; the generator needs a whole checkpoint.")
    parts = {part: {name: source.shape(shapes) for name, source in found.items()} for part, found in sources.items()}
    prediction, side = _prediction(path, family, shapes, metadata, own), SIDES[family]
    if family is Family.SD2 and prediction == "v_prediction":
        side = 768
    try:
        configs = configure(family, parts, side=side, prediction_type=prediction, zero_snr="ztsnr" in shapes)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise ModelUnloadable(f"{path.name} is no whole checkpoint: {error} is missing or makes no sense.") from error
    _refuse_other_tasks(path, configs["unet"], configs["vae"])
    used = {source.key for found in sources.values() for source in found.values()}
    size = sum(_bytes(header[key]) for key in used)
    return Checkpoint(path, family, prediction, side, configs, sources, parts, size, own)


_LABELS = {
    Component.UNET: "UNet",
    "vae": "VAE",
    Component.TEXT_ENCODER: "text encoder",
    Component.TEXT_ENCODER_2: "second text encoder",
}


def _check_length(path: Path, header: Mapping[str, Any]) -> None:
    """A download that broke off has its header, and not all that this tells of."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
    try:
        ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ModelUnloadable(f"{path.name} is no whole safetensors file: its header makes no sense.") from error
    whole, there = 8 + length + max(ends, default=0), path.stat().st_size
    if there < whole:
        raise ModelUnloadable(
            f"{path.name} is cut off: {there:,} of {whole:,} bytes are there. Copy or download it again."
        )


def _bytes(entry: Mapping[str, Any]) -> int:
    begin, end = entry["data_offsets"]
    return max(0, int(end) - int(begin))


def _family(path: Path, shapes: Mapping[str, Shape]) -> Family:
    """By the text encoders that it is built with; widths may be any.

    Raises:
        ModelUnloadable: it is something else, and what.
    """
    if any(key.startswith((f"{UNET}joint_blocks.", "joint_blocks.")) for key in shapes):
        raise _other(path, "a Stable Diffusion 3 checkpoint in one file")
    if any(key.startswith((f"{UNET}double_blocks.", "double_blocks.")) for key in shapes):
        raise _other(path, "a Flux checkpoint in one file")
    if not any(key.startswith(UNET) for key in shapes):
        adapted = [module for module in parse_names(shapes)[0] if module.keys.keys() - {Part.ALPHA}]
        if adapted:
            raise ModelUnloadable(f"{path.name} is a LoRA, not a base model. Upload it as a model card instead.")
        if any(key.startswith(("down_blocks.", "encoder.", "text_model.")) for key in shapes):
            raise ModelUnloadable(f"{path.name} is one part of a diffusers folder; the folder is needed whole.")
        raise ModelUnloadable(f"{path.name} holds no Stable Diffusion checkpoint: none of its names are known.")
    if any(key.startswith("conditioner.embedders.0.model.") for key in shapes):
        raise _other(path, "the SDXL refiner")
    if any(key.startswith((OPEN_CLIP_2, "conditioner.embedders.")) for key in shapes):
        return Family.SDXL
    if any(key.startswith(OPEN_CLIP) for key in shapes):
        return Family.SD2
    if any(key.startswith("cond_stage_model.") for key in shapes):
        return Family.SD1
    what = "a UNet with its VAE" if any(key.startswith(VAE) for key in shapes) else "a UNet alone"
    raise ModelUnloadable(
        f"{path.name} is {what}, without text encoder; the generator needs a checkpoint that is whole."
    )


def _other(path: Path, what: str) -> ModelUnloadable:
    return ModelUnloadable(f"{path.name} is {what}; in one file the generator takes SD 1.x, SD 2.x and SDXL.")


def _refuse_other_tasks(path: Path, unet: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
    channels = vae["latent_channels"]
    if unet["in_channels"] not in (channels, 2 * channels + 1):
        raise ModelUnloadable(f"{path.name} is made for another task than painting pictures.")


def _prediction(
    path: Path, family: Family, shapes: Mapping[str, Shape], metadata: Mapping[str, str], own: Mapping[str, Any]
) -> str:
    """What the UNet predicts. Who made the file says so, else a mark in it; SD 2.x without a word is the larger one."""
    said = own.get("prediction_type") or metadata.get("modelspec.prediction_type")
    if said in ("v", "v-prediction", "v_pred"):
        said = "v_prediction"
    if said in _PREDICTIONS:
        return str(said)
    if "v_pred" in shapes or metadata.get("modelspec.architecture", "").endswith("-v"):
        return "v_prediction"
    if family is not Family.SD2:
        return "epsilon"
    is_small = "512" in path.stem and "768" not in path.stem
    return "epsilon" if is_small or metadata.get("modelspec.architecture", "").endswith("-512") else "v_prediction"


def _own(path: Path) -> dict[str, Any]:
    own: dict[str, Any] = {}
    for file in beside(path):
        try:
            text = file.read_text("utf-8")
            if file.suffix == ".json":
                content = json.loads(text)
                own |= content if isinstance(content, dict) else {}
            elif re.search(r"""^\s*parameterization:\s*["']?v["']?\s*$""", text, re.MULTILINE):
                own.setdefault("prediction_type", "v_prediction")
        except (OSError, ValueError) as error:
            raise ModelUnloadable(f"{file.name} beside the checkpoint {path.name} cannot be read.") from error
    return own

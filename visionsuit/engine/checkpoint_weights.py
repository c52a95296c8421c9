"""The models inside a checkpoint in one file, built from its header and filled from its weights. Nothing is fetched."""

from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import safe_open
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from visionsuit.engine.base import Family, ModelUnloadable
from visionsuit.engine.checkpoint_names import Source
from visionsuit.engine.checkpoints import Checkpoint
from visionsuit.engine.clip_vocabulary import clip_vocabulary, pad_token
from visionsuit.engine.lora_names import Component


def load_part(checkpoint: Checkpoint, part: str, dtype: torch.dtype) -> Any:
    """The UNet, VAE or a text encoder, on the CPU.

    Raises:
        ModelUnloadable: weights are missing, or have other shapes than a model of this family.
    """
    with init_empty_weights(include_buffers=False):
        module = _build(checkpoint, part)
    wanted = dict(module.named_parameters())
    sources = {_own_name(name, wanted): source for name, source in checkpoint.sources[part].items()}
    missing = wanted.keys() - sources.keys()
    if missing:
        raise _unlike(checkpoint, f"{len(missing)} weights of its {part} are missing, {min(missing)} among them")
    weights: dict[str, torch.Tensor] = {}
    with safe_open(checkpoint.path, "pt") as file:
        for name, parameter in wanted.items():
            weight = _read(file, sources[name])
            if weight.shape != parameter.shape:
                found, right = list(weight.shape), list(parameter.shape)
                raise _unlike(checkpoint, f"{name} of its {part} has shape {found} instead of {right}")
            weights[name] = weight.to(dtype).contiguous()
    module.load_state_dict(weights, strict=False, assign=True)
    return module.to(dtype)


def load_tokenizer(checkpoint: Checkpoint, part: str) -> Any:
    config = checkpoint.configs[part]
    vocabulary, merges = clip_vocabulary()
    return CLIPTokenizer(
        vocabulary, merges, model_max_length=config["max_position_embeddings"], pad_token=pad_token(config)
    )


def _build(checkpoint: Checkpoint, part: str) -> Any:
    config = checkpoint.configs[part]
    if part == Component.UNET:
        return UNet2DConditionModel(**config)
    if part == "vae":
        return AutoencoderKL(**config)
    has_projection = part == Component.TEXT_ENCODER_2 and checkpoint.family is Family.SDXL
    return (CLIPTextModelWithProjection if has_projection else CLIPTextModel)(CLIPTextConfig(**config))


def _own_name(name: str, wanted: dict[str, Any]) -> str:
    """Newer transformers keep the text model's layers under `text_model.` in some classes only."""
    return name if name in wanted else f"text_model.{name}"


def _read(file: Any, source: Source) -> torch.Tensor:
    weight: torch.Tensor = file.get_tensor(source.key)
    if source.third is not None:
        weight = weight.chunk(3)[source.third]
    if source.turned:
        weight = weight.t()
    return weight.flatten(1) if source.flat else weight


def _unlike(checkpoint: Checkpoint, what: str) -> ModelUnloadable:
    return ModelUnloadable(f"{checkpoint.path.name} is built otherwise than models of its family: {what}.")

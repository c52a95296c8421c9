"""Base models as the engine uses them, loaded from diffusers folders and checkpoints."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, UNet2DConditionModel
from transformers import AutoTokenizer, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel

from visionsuit.engine.base import BaseModelRef, Family, ModelUnloadable
from visionsuit.engine.catalog import RENDERABLE, BaseModelInfo, is_checkpoint, read_base_model
from visionsuit.engine.checkpoint_weights import load_part, load_tokenizer
from visionsuit.engine.checkpoints import read_checkpoint
from visionsuit.engine.devices import Device, is_out_of_memory
from visionsuit.engine.lora_names import Component
from visionsuit.engine.model_loras import ModelLoras
from visionsuit.engine.previews import LatentPreview, load_preview
from visionsuit.engine.prompt_cache import PromptCache
from visionsuit.engine.residence import Residence, Weights
from visionsuit.engine.whole import WholeModel, load_whole


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """`max_tokens` counts the begin and end tokens."""

    module: Any
    tokenizer: Any
    max_tokens: int


@dataclass(slots=True)
class LoadedModel:
    """The parts of one base model, with its LoRAs and encoded prompts. Where its weights are, `residence` says; text
    encoders and VAE are used during a `visit` only."""

    key: str
    label: str
    family: Family
    device: torch.device
    dtype: torch.dtype
    unet: Any
    vae: Any
    text_encoders: list[TextEncoder]
    scheduler_config: dict[str, Any]
    prediction_type: str
    zeros_for_empty_prompt: bool
    vae_factor: int
    preview: LatentPreview | None
    residence: Residence
    texts: Weights
    pictures: Weights
    loras: ModelLoras
    #: Of SD 3, where it is there.
    t5: TextEncoder | None = None
    #: Sides of pictures are multiples of so many pixels.
    size_step: int = 8
    prompts: PromptCache = field(default_factory=PromptCache)

    def predict(self, latents: torch.Tensor, timesteps: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
        """One call of the UNet or transformer: [n, C, h, w] and [n] -> [n, C, h, w].

        Args:
            inputs: what `conditioning.join` gives.
        """
        if self.family is Family.SD3:
            output = self.unet(hidden_states=latents, timestep=timesteps, return_dict=False, **inputs)
        else:
            output = self.unet(latents, timesteps, return_dict=False, **inputs)
        answer: torch.Tensor = output[0]
        return answer


def load_model(ref: BaseModelRef, device: Device) -> LoadedModel | WholeModel:
    """Load a diffusers folder or a checkpoint in one file into host memory; its `residence` brings it onto the device.
    Nothing is fetched, no code in it is run.

    Raises:
        ModelUnloadable: with the reason; running out of memory is raised as it is.
    """
    info = read_base_model(ref.path)
    dtype = device.dtype_for(info.family, ref.dtype)
    try:
        if info.family not in RENDERABLE:
            return load_whole(ref, info, device, dtype)
        parts = _read_checkpoint(ref.path, dtype) if is_checkpoint(ref.path) else _read_folder(ref.path, info, dtype)
        return _assemble(ref, info, parts, device, dtype)
    except ModelUnloadable:
        raise
    except Exception as error:  # the libraries raise all kinds for files they cannot read
        if is_out_of_memory(error):
            raise
        first_line = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise ModelUnloadable(f"{info.label} cannot be loaded: {first_line}") from error


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a base model is made of."""

    unet: Any
    vae: Any
    text_encoders: list[TextEncoder]
    scheduler_config: dict[str, Any]
    zeros_for_empty_prompt: bool
    t5: TextEncoder | None = None


def _read_folder(folder: Path, info: BaseModelInfo, dtype: torch.dtype) -> _Parts:
    if info.family is Family.SD3:
        return _read_sd3(folder, dtype)
    encoders = [_load_text_encoder(CLIPTextModel, folder, "", dtype)]
    if info.family is Family.SDXL:
        encoders.append(_load_text_encoder(CLIPTextModelWithProjection, folder, "_2", dtype))
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    return _Parts(
        unet=_load_part(UNet2DConditionModel, folder, "unet", dtype),
        vae=_load_part(AutoencoderKL, folder, "vae", dtype),
        text_encoders=encoders,
        scheduler_config=json.loads((folder / "scheduler" / "scheduler_config.json").read_text("utf-8")),
        zeros_for_empty_prompt=info.family is Family.SDXL and bool(index.get("force_zeros_for_empty_prompt", True)),
    )


def _read_sd3(folder: Path, dtype: torch.dtype) -> _Parts:
    t5 = None
    if (folder / "text_encoder_3").is_dir():
        module = _load_part(T5EncoderModel, folder, "text_encoder_3", dtype)
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer_3", local_files_only=True)
        t5 = TextEncoder(module, tokenizer, 512)
    return _Parts(
        unet=_load_part(SD3Transformer2DModel, folder, "transformer", dtype),
        vae=_load_part(AutoencoderKL, folder, "vae", dtype),
        text_encoders=[_load_text_encoder(CLIPTextModelWithProjection, folder, suffix, dtype) for suffix in ("", "_2")],
        scheduler_config=json.loads((folder / "scheduler" / "scheduler_config.json").read_text("utf-8")),
        zeros_for_empty_prompt=False,
        t5=t5,
    )


def _read_checkpoint(path: Path, dtype: torch.dtype) -> _Parts:
    checkpoint = read_checkpoint(path)
    encoders = []
    for part in sorted(part for part in checkpoint.configs if part.startswith("text_encoder")):
        limit = int(checkpoint.configs[part]["max_position_embeddings"])
        encoders.append(TextEncoder(load_part(checkpoint, part, dtype), load_tokenizer(checkpoint, part), limit))
    return _Parts(
        unet=load_part(checkpoint, "unet", dtype),
        vae=load_part(checkpoint, "vae", dtype),
        text_encoders=encoders,
        scheduler_config=checkpoint.configs["scheduler"],
        zeros_for_empty_prompt=checkpoint.family is Family.SDXL,
    )


def _assemble(ref: BaseModelRef, info: BaseModelInfo, parts: _Parts, device: Device, dtype: torch.dtype) -> LoadedModel:
    family, vae, encoders = info.family, parts.vae, parts.text_encoders
    if dtype is torch.float16 and vae.config.force_upcast and family is Family.SDXL:
        # This VAE overflows in half precision and answers black pictures.
        vae = vae.to(torch.float32)
    texts = [*encoders, parts.t5] if parts.t5 else encoders
    for module in (parts.unet, vae, *(encoder.module for encoder in texts)):
        module.eval().requires_grad_(False)
    denoiser = Component.TRANSFORMER if family is Family.SD3 else Component.UNET
    vae_factor = 2 ** (len(vae.config.block_out_channels) - 1)
    adaptable = {denoiser: parts.unet, Component.TEXT_ENCODER: encoders[0].module}
    if len(encoders) > 1:
        adaptable[Component.TEXT_ENCODER_2] = encoders[1].module
    if device.kind != "mps":
        # Convolutions are faster so, on CPUs and on GPUs; a transformer has next to none.
        for part in (vae,) if family is Family.SD3 else (vae, parts.unet):
            part.to(memory_format=torch.channels_last)
    loras = ModelLoras(family, adaptable, device, dtype)
    denoiser_weights = Weights([parts.unet], device, before_leaving=loras.free_denoiser)
    text_modules = [encoder.module for encoder in texts]
    text_weights = Weights(text_modules, device, before_leaving=loras.free_text, pinned=True)
    vae_weights = Weights([vae], device, pinned=True)
    residence = Residence(denoiser_weights, text_weights, vae_weights)
    return LoadedModel(
        key=ref.key,
        label=info.label,
        family=family,
        device=device.torch_device,
        dtype=dtype,
        unet=parts.unet,
        vae=vae,
        text_encoders=encoders,
        scheduler_config=parts.scheduler_config,
        prediction_type=info.prediction_type,
        zeros_for_empty_prompt=parts.zeros_for_empty_prompt,
        vae_factor=vae_factor,
        preview=load_preview(ref.path, family, vae.config),
        residence=residence,
        texts=text_weights,
        pictures=vae_weights,
        loras=loras,
        t5=parts.t5,
        size_step=vae_factor * int(parts.unet.config.patch_size if family is Family.SD3 else 1),
    )


def _load_part(part_class: Any, folder: Path, name: str, dtype: torch.dtype) -> Any:
    variant = _variant(folder / name)
    options = {"variant": variant} if variant else {}
    return part_class.from_pretrained(
        folder, subfolder=name, dtype=dtype, local_files_only=True, use_safetensors=True, **options
    )


def _variant(folder: Path) -> str | None:
    """`fp16` for a folder that holds `model.fp16.safetensors` alone."""
    names = [file.name.split(".") for file in folder.glob("*.safetensors")]
    if any(len(parts) == 2 for parts in names):
        return None
    return next((parts[1].split("-")[0] for parts in names if len(parts) == 3), None)


def _load_text_encoder(part_class: Any, folder: Path, suffix: str, dtype: torch.dtype) -> TextEncoder:
    module = _load_part(part_class, folder, f"text_encoder{suffix}", dtype)
    tokenizer = CLIPTokenizer.from_pretrained(folder / f"tokenizer{suffix}", local_files_only=True)
    limit = min(int(tokenizer.model_max_length), module.config.max_position_embeddings)
    return TextEncoder(module, tokenizer, limit)

"""Base models in memory: loaded from diffusers folders, kept by use, bounded by bytes."""

import json
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from visionsuit.engine.base import BaseModelRef, Family, ModelUnloadable
from visionsuit.engine.catalog import read_base_model
from visionsuit.engine.devices import Device, is_out_of_memory
from visionsuit.engine.lora_names import Component
from visionsuit.engine.loras import AdapterCache
from visionsuit.engine.previews import LatentPreview, load_preview


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """`max_tokens` counts the begin and end tokens."""

    module: Any
    tokenizer: Any
    max_tokens: int


@dataclass(slots=True)
class LoadedModel:
    """The parts of one base model on the device, with the LoRAs that were put into them."""

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
    weights_bytes: int
    adapters: AdapterCache = field(init=False)

    def __post_init__(self) -> None:
        modules = {Component.UNET: self.unet, Component.TEXT_ENCODER: self.text_encoders[0].module}
        if len(self.text_encoders) > 1:
            modules[Component.TEXT_ENCODER_2] = self.text_encoders[1].module
        self.adapters = AdapterCache(self.family, modules, budget_bytes=max(2**28, self.weights_bytes // 2))


class ModelCache:
    """Base models by content key, least recently used first out; always room for one.

    Args:
        budget_bytes: weights of all kept models together.
    """

    def __init__(self, device: Device, budget_bytes: int) -> None:
        self._device = device
        self._budget_bytes = budget_bytes
        self._models: OrderedDict[str, LoadedModel] = OrderedDict()

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(model.label for model in self._models.values())

    def get(self, ref: BaseModelRef) -> LoadedModel:
        """Raises: ModelUnloadable."""
        model = self._models.get(ref.key)
        if model is None:
            info = read_base_model(ref.path)
            dtype = self._device.dtype_for(info.family)
            # Files are mostly half precision, so fp32 takes twice their size.
            self._make_room(info.weights_bytes * (2 if dtype is torch.float32 else 1))
            model = load_model(ref, self._device)
            self._models[ref.key] = model
        self._models.move_to_end(ref.key)
        return model

    def keep_only(self, key: str | None) -> None:
        """Drop every model but this one, and the LoRAs that it holds."""
        for other in [other for other in self._models if other != key]:
            del self._models[other]
        if key is not None and key in self._models:
            self._models[key].adapters.clear()
        self._device.free_cached()

    def _make_room(self, needed_bytes: int) -> None:
        kept = sum(model.weights_bytes + model.adapters.bytes for model in self._models.values())
        dropped = False
        while self._models and kept + needed_bytes > self._budget_bytes:
            _, oldest = self._models.popitem(last=False)
            kept -= oldest.weights_bytes + oldest.adapters.bytes
            dropped = True
            del oldest
        if dropped:
            self._device.free_cached()


def load_model(ref: BaseModelRef, device: Device) -> LoadedModel:
    """Load a diffusers folder; nothing is fetched, no code in it is run.

    Raises:
        ModelUnloadable: with the reason; running out of memory is raised as it is.
    """
    info = read_base_model(ref.path)
    dtype = device.dtype_for(info.family)
    try:
        return _load(ref, info.label, info.family, info.prediction_type, device, dtype)
    except Exception as error:  # the libraries raise all kinds for a folder they cannot read
        if is_out_of_memory(error):
            raise
        first_line = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise ModelUnloadable(f"{info.label} cannot be loaded: {first_line}") from error


def _load(
    ref: BaseModelRef, label: str, family: Family, prediction_type: str, device: Device, dtype: torch.dtype
) -> LoadedModel:
    folder = ref.path
    unet = _place(_load_part(UNet2DConditionModel, folder, "unet", dtype), device)
    vae_dtype = dtype
    vae = _load_part(AutoencoderKL, folder, "vae", dtype)
    if dtype is torch.float16 and vae.config.force_upcast and family is Family.SDXL:
        # This VAE overflows in half precision and answers black pictures.
        vae_dtype = torch.float32
    vae = _place(vae.to(vae_dtype), device)
    encoders = [_load_text_encoder(CLIPTextModel, folder, "", dtype, device)]
    if family is Family.SDXL:
        encoders.append(_load_text_encoder(CLIPTextModelWithProjection, folder, "_2", dtype, device))
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    modules = [unet, vae, *(encoder.module for encoder in encoders)]
    return LoadedModel(
        key=ref.key,
        label=label,
        family=family,
        device=device.torch_device,
        dtype=dtype,
        unet=unet,
        vae=vae,
        text_encoders=encoders,
        scheduler_config=json.loads((folder / "scheduler" / "scheduler_config.json").read_text("utf-8")),
        prediction_type=prediction_type,
        zeros_for_empty_prompt=family is Family.SDXL and bool(index.get("force_zeros_for_empty_prompt", True)),
        vae_factor=2 ** (len(vae.config.block_out_channels) - 1),
        preview=load_preview(folder, family, vae.config),
        weights_bytes=sum(
            parameter.numel() * parameter.element_size() for module in modules for parameter in module.parameters()
        ),
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


def _load_text_encoder(part_class: Any, folder: Path, suffix: str, dtype: torch.dtype, device: Device) -> TextEncoder:
    module = _place(_load_part(part_class, folder, f"text_encoder{suffix}", dtype), device)
    tokenizer = CLIPTokenizer.from_pretrained(folder / f"tokenizer{suffix}", local_files_only=True)
    limit = min(int(tokenizer.model_max_length), module.config.max_position_embeddings)
    return TextEncoder(module, tokenizer, limit)


def _place(module: Any, device: Device) -> Any:
    module.eval().requires_grad_(False)
    return module.to(device.torch_device)

"""What the UNet is told beside the latent: text embeddings, sizes, guidance; encoded once per prompt and LoRA mix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from visionsuit.engine.base import Family, RenderRequest
from visionsuit.engine.base_models import LoadedModel
from visionsuit.engine.lora_packs import Pack
from visionsuit.engine.prompts import Conditioning, Encoding, encode_prompts
from visionsuit.engine.prompts_sd3 import encode_sd3_prompts

#: Of text encoders, between two calls of the UNet; most prompts take fewer.
RUNS_A_TURN = 8


@dataclass(frozen=True, slots=True)
class Inputs:
    """One picture's rows of the UNet's batch: k = 2 with guidance (negative, positive), else 1.

    Attributes:
        embeds: [k, tokens, width].
        pooled: [k, width] for SDXL and SD 3, and time_ids: [k, 6] for SDXL, else None.
        guidance: [k, width], for distilled models that take the scale as an input, else None.
        projected: what the prompt layers make of `embeds` under the request's LoRAs, once it was calculated.
    """

    embeds: torch.Tensor
    pooled: torch.Tensor | None
    time_ids: torch.Tensor | None
    guidance: torch.Tensor | None
    projected: list[torch.Tensor] = field(default_factory=list, compare=False, repr=False)

    @property
    def rows(self) -> int:
        return self.embeds.shape[0]

    @property
    def tokens(self) -> int:
        return self.embeds.shape[1]


def is_guided(model: LoadedModel, request: RenderRequest) -> bool:
    """Whether a picture takes two rows; distilled models take the guidance scale as an input instead."""
    return request.guidance > 1 and _guidance_width(model) is None


def encode(
    model: LoadedModel, request: RenderRequest, packs: Mapping[str, Pack], encoding: Encoding | None = None
) -> Inputs:
    """Encode a request's prompts under the text encoder part of its LoRA mix.

    Args:
        packs: SHA-256 -> Pack, of all LoRAs of the request.
        encoding: of this request, where it is to be encoded in turns; the same one every time.

    Raises:
        PromptTooLong
        Unfinished: RUNS_A_TURN were made; ask again.
    """
    mix = model.loras.text_key(request.loras, packs)
    guided = is_guided(model, request)
    key = (request.prompt, request.negative_prompt, guided, mix)
    sides = model.prompts.get(key)
    if sides is None:
        encode_sides = encode_sd3_prompts if model.family is Family.SD3 else encode_prompts
        if encoding is None:
            encoding = Encoding()
        elif model.texts.on_device:
            # Where they come for this alone, they need not come again.
            encoding.runs_left = RUNS_A_TURN
        with model.texts.visit():
            model.loras.use_text(mix, packs)
            sides = encode_sides(model, request.prompt, request.negative_prompt, encoding, guided=guided)
        model.prompts.keep(key, sides, sum(side.bytes for side in sides if side is not None))
    return _inputs(model, request, sides)


def join(inputs: Sequence[Inputs]) -> dict[str, Any]:
    """Keyword arguments of the UNet for a batch of pictures: rows interleaved, u0, c0, u1, c1, ..."""
    first = inputs[0]
    joined: dict[str, Any] = {"encoder_hidden_states": torch.cat([one.embeds for one in inputs])}
    if first.pooled is not None and first.time_ids is None:
        joined["pooled_projections"] = torch.cat([one.pooled for one in inputs if one.pooled is not None])
    elif first.pooled is not None:
        joined["added_cond_kwargs"] = {
            "text_embeds": torch.cat([one.pooled for one in inputs if one.pooled is not None]),
            "time_ids": torch.cat([one.time_ids for one in inputs if one.time_ids is not None]),
        }
    if first.guidance is not None:
        joined["timestep_cond"] = torch.cat([one.guidance for one in inputs if one.guidance is not None])
    return joined


def _inputs(model: LoadedModel, request: RenderRequest, sides: tuple[Conditioning, Conditioning | None]) -> Inputs:
    positive, negative = sides
    ordered = [side for side in (negative, positive) if side is not None]
    pooled = time_ids = guidance = None
    if positive.pooled is not None:
        pooled = torch.cat([side.pooled for side in ordered if side.pooled is not None])
    if model.family is Family.SDXL:
        # SDXL is told the size it was asked for and that nothing was cropped.
        size = [request.height, request.width, 0, 0, request.height, request.width]
        time_ids = torch.tensor([size] * len(ordered), dtype=model.dtype, device=model.device)
    width = _guidance_width(model)
    if width is not None:
        scale = torch.full((len(ordered),), request.guidance - 1.0, dtype=torch.float32)
        guidance = _guidance_embedding(scale, width).to(model.device, model.dtype)
    return Inputs(torch.cat([side.embeds for side in ordered]), pooled, time_ids, guidance)


def _guidance_width(model: LoadedModel) -> int | None:
    """Of distilled models, which take the guidance scale as an input."""
    width: int | None = getattr(model.unet.config, "time_cond_proj_dim", None)
    return width


def _guidance_embedding(scale: torch.Tensor, width: int) -> torch.Tensor:
    """Sinusoids of the guidance scale: [n] -> [n, width]."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half) * -(np.log(10000.0) / (half - 1)))
    angles = scale[:, None] * 1000.0 * frequencies[None, :]
    embedding = torch.cat([angles.sin(), angles.cos()], dim=1)
    return torch.nn.functional.pad(embedding, (0, width - 2 * half))

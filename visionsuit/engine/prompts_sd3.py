"""Prompts of Stable Diffusion 3: two CLIP encoders side by side, and T5 behind them, or zeros in its place."""

from functools import partial

import torch

from visionsuit.engine.base_models import LoadedModel
from visionsuit.engine.prompt_syntax import plain_text
from visionsuit.engine.prompts import Conditioning, Encoding, clip_rows

#: T5 is asked in spans of so many tokens: pictures of longer prompts share calls only with their like.
_SPAN = 256
_MAX_SPANS = 8


def encode_sd3_prompts(
    model: LoadedModel, prompt: str, negative_prompt: str, encoding: Encoding, *, guided: bool
) -> tuple[Conditioning, Conditioning | None]:
    """As `encode_prompts`. Weights of words act on CLIP alone; T5 reads the words.

    Raises:
        PromptTooLong, Unfinished
    """
    texts = [prompt, negative_prompt] if guided else [prompt]
    sides, count = clip_rows(model, texts, encoding)
    lengths = [encoding.split(("t5", text), partial(_t5_length, model, text)) for text in texts]
    spans = min(_MAX_SPANS, max(1, *(-(-length // _SPAN) for length in lengths)))
    width = int(model.unet.config.joint_attention_dim)
    made = []
    for text, rows in zip(texts, sides, strict=True):
        clip = torch.cat([states for states, _ in rows], dim=-1)
        clip = torch.nn.functional.pad(clip, (0, width - clip.shape[-1]))
        pooled = torch.cat([pooled for _, pooled in rows if pooled is not None], dim=-1)
        t5 = encoding.run(("t5", text), partial(_t5, model, text, spans * _SPAN))
        embeds = torch.cat([clip, t5.to(clip.dtype)], dim=1)
        made.append(Conditioning(embeds.to(model.dtype), pooled.to(model.dtype), count))
    return made[0], made[1] if guided else None


def _t5_length(model: LoadedModel, text: str) -> int:
    if model.t5 is None:
        return 0
    return len(model.t5.tokenizer(plain_text(text), add_special_tokens=True, verbose=False).input_ids)


def _t5(model: LoadedModel, text: str, length: int) -> torch.Tensor:
    """[1, length, width]."""
    if model.t5 is None:
        return torch.zeros(1, length, int(model.unet.config.joint_attention_dim), device=model.device)
    ids = model.t5.tokenizer(
        plain_text(text), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
    states: torch.Tensor = model.t5.module(ids.to(model.device))[0]
    return states

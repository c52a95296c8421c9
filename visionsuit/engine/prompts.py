"""Prompts -> text embeddings, built here because long prompts are chunked, not cut."""

from dataclasses import dataclass

import torch

from visionsuit.engine.base_models import LoadedModel, TextEncoder

#: Chunks that one prompt may fill; the cost of a step grows with them.
MAX_CHUNKS = 64


@dataclass(frozen=True, slots=True)
class Conditioning:
    """What the UNet attends to: `embeds` [1, tokens, width]; `pooled` [1, width] for SDXL, else None."""

    embeds: torch.Tensor
    pooled: torch.Tensor | None


def encode_prompts(
    model: LoadedModel, prompt: str, negative_prompt: str, *, guided: bool
) -> tuple[Conditioning, Conditioning | None]:
    """Both sides, of equal length; the negative one is None when nothing is guided.

    An empty negative prompt is zeros where the model was trained so, else the encoding of no words.
    """
    zero_negative = model.zeros_for_empty_prompt and not negative_prompt
    texts = [prompt, negative_prompt] if guided and not zero_negative else [prompt]
    sides = _encode(model, texts)
    if guided and zero_negative:
        pooled = sides[0].pooled
        sides.append(
            Conditioning(torch.zeros_like(sides[0].embeds), None if pooled is None else torch.zeros_like(pooled))
        )
    return sides[0], sides[1] if guided else None


def _encode(model: LoadedModel, texts: list[str]) -> list[Conditioning]:
    tokens = [[_split(encoder, text) for encoder in model.text_encoders] for text in texts]
    # Two tokenizers may split differently; all sides and encoders are padded to the longest.
    chunks = min(MAX_CHUNKS, max(len(pieces) for side in tokens for pieces in side))
    embeds: list[torch.Tensor] = []
    pooled: torch.Tensor | None = None
    for number, encoder in enumerate(model.text_encoders):
        rows = [_pad(encoder, side[number], chunks) for side in tokens]
        ids = torch.tensor([piece for row in rows for piece in row], device=model.device)
        states, projected = _run(encoder, ids, penultimate=len(model.text_encoders) > 1)
        embeds.append(states.reshape(len(texts), -1, states.shape[-1]))
        if projected is not None:
            # The pooled vector has room for one chunk: the beginning of the prompt.
            pooled = projected.reshape(len(texts), chunks, -1)[:, 0]
    joined = torch.cat(embeds, dim=-1).to(model.dtype)
    return [
        Conditioning(joined[i : i + 1], None if pooled is None else pooled[i : i + 1].to(model.dtype))
        for i in range(len(texts))
    ]


def _split(encoder: TextEncoder, text: str) -> list[list[int]]:
    ids = encoder.tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids
    room = encoder.max_tokens - 2
    return [ids[start : start + room] for start in range(0, len(ids), room)] or [[]]


def _pad(encoder: TextEncoder, pieces: list[list[int]], chunks: int) -> list[list[int]]:
    tokenizer = encoder.tokenizer
    rows: list[list[int]] = []
    for number in range(chunks):
        piece = pieces[number] if number < len(pieces) else []
        row = [tokenizer.bos_token_id, *piece, tokenizer.eos_token_id]
        rows.append(row + [tokenizer.pad_token_id] * (encoder.max_tokens - len(row)))
    return rows


def _run(encoder: TextEncoder, ids: torch.Tensor, *, penultimate: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    output = encoder.module(ids, output_hidden_states=penultimate)
    if not penultimate:
        return output.last_hidden_state, None
    return output.hidden_states[-2], getattr(output, "text_embeds", None)

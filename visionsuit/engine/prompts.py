"""Prompts -> text embeddings. Built here because long prompts are chunked, not cut, and words have weights.

Embeddings of different numbers of chunks cannot share a call of the UNet: padding the shorter one would change its
picture. `Conditioning.chunks` (or the length of `embeds`) belongs into the key of a batch; the two sides of one
picture are of one length always.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch

from visionsuit.engine.base import EngineError
from visionsuit.engine.base_models import LoadedModel, TextEncoder
from visionsuit.engine.prompt_syntax import MAX_CHUNKS, Chunk, fill_chunks, parse_prompt

#: A mean this small beside the values is rounding, and nothing to scale by.
_LEAST_MEAN = 1e-3
_MOST_SCALE = 10.0

_T = TypeVar("_T")


class PromptTooLong(EngineError):
    code = "prompt_too_long"


class Unfinished(Exception):
    """As many runs were made as may be; what they gave is kept for the next time."""


@dataclass(slots=True)
class Encoding:
    """One request's prompts on their way through the text encoders.

    Attributes:
        runs_left: how many runs of a text encoder may be made before others have their turn.
    """

    runs_left: float = math.inf
    _tokens: dict[Any, Any] = field(default_factory=dict)
    _made: dict[Any, Any] = field(default_factory=dict)

    def split(self, key: Any, tokenize: Callable[[], _T]) -> _T:
        """What `tokenize` gives, calculated once."""
        if key not in self._tokens:
            self._tokens[key] = tokenize()
        found: _T = self._tokens[key]
        return found

    def run(self, key: Any, encode: Callable[[], _T]) -> _T:
        """What `encode` gives, calculated once. Raises: Unfinished."""
        if key not in self._made:
            if self.runs_left < 1:
                raise Unfinished
            self.runs_left -= 1
            self._made[key] = encode()
        found: _T = self._made[key]
        return found


@dataclass(frozen=True, slots=True)
class Conditioning:
    """What the UNet attends to: `embeds` [1, chunks * context, width]; `pooled` [1, width] for SDXL, else None."""

    embeds: torch.Tensor
    pooled: torch.Tensor | None
    chunks: int = 1

    @property
    def bytes(self) -> int:
        tensors = [self.embeds] if self.pooled is None else [self.embeds, self.pooled]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def encode_prompts(
    model: LoadedModel, prompt: str, negative_prompt: str, encoding: Encoding, *, guided: bool
) -> tuple[Conditioning, Conditioning | None]:
    """Both sides, of equal length; the negative one is None when nothing is guided.

    An empty negative prompt is zeros where the model was trained so, else the encoding of no words. What has no
    syntax and fits into the context is encoded exactly as diffusers' pipelines do.

    Raises:
        PromptTooLong: a prompt fills more than MAX_CHUNKS chunks.
        Unfinished: ask again, with what was made until now.
    """
    zero_negative = model.zeros_for_empty_prompt and not negative_prompt
    texts = [prompt, negative_prompt] if guided and not zero_negative else [prompt]
    rows, count = clip_rows(model, texts, encoding)
    sides = [_join(model, side, count) for side in rows]
    if guided and zero_negative:
        pooled = sides[0].pooled
        zeros = None if pooled is None else torch.zeros_like(pooled)
        sides.append(Conditioning(torch.zeros_like(sides[0].embeds), zeros, count))
    return sides[0], sides[1] if guided else None


def _chunks(encoder: TextEncoder, text: str) -> list[Chunk]:
    return fill_chunks(parse_prompt(text), _tokenizer(encoder), encoder.max_tokens - 2)


def _tokenizer(encoder: TextEncoder) -> Callable[[str], list[int]]:
    return lambda text: encoder.tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids


#: Per text encoder: embeddings [1, chunks * context, width], and the pooled vector [1, width] of those that have one.
Rows = list[tuple[torch.Tensor, torch.Tensor | None]]


def clip_rows(model: LoadedModel, texts: list[str], encoding: Encoding) -> tuple[list[Rows], int]:
    """What the CLIP encoders make of each text, all of one length, and how many chunks that is.

    Raises:
        PromptTooLong, Unfinished
    """
    tokens = [
        [
            encoding.split((number, text), partial(_chunks, encoder, text))
            for number, encoder in enumerate(model.text_encoders)
        ]
        for text in texts
    ]
    # Two tokenizers may split differently; all sides and encoders are padded to the longest.
    count = max(len(chunks) for side in tokens for chunks in side)
    if count > MAX_CHUNKS:
        raise PromptTooLong(f"The prompt fills {count} chunks of the text encoder; {MAX_CHUNKS} is the most.")
    return [_encode(model, side, count, encoding) for side in tokens], count


def _join(model: LoadedModel, rows: Rows, count: int) -> Conditioning:
    embeds = torch.cat([states for states, _ in rows], dim=-1).to(model.dtype)
    # SDXL takes the pooled vector of its second encoder, the only one that has one there.
    pooled = next((vector for _, vector in reversed(rows) if vector is not None), None)
    return Conditioning(embeds, None if pooled is None else pooled.to(model.dtype), count)


def _encode(model: LoadedModel, side: list[list[Chunk]], count: int, encoding: Encoding) -> Rows:
    """`side`: one text's chunks, per text encoder."""
    found: Rows = []
    for number, (encoder, chunks) in enumerate(zip(model.text_encoders, side, strict=True)):
        padded = chunks + [Chunk()] * (count - len(chunks))
        # One by one: neighbours in a batch would change the last bits, and so the picture.
        runs = [encoding.run((number, chunk), partial(_run, model, encoder, chunk)) for chunk in padded]
        # The pooled vector has room for one chunk: the beginning of the prompt.
        found.append((torch.cat([states for states, _ in runs], dim=1), runs[0][1]))
    return found


def _run(model: LoadedModel, encoder: TextEncoder, chunk: Chunk) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Embeddings [1, context, width], weighted, and the pooled vector [1, width] of encoders that have one."""
    tokenizer = encoder.tokenizer
    row = [tokenizer.bos_token_id, *chunk.ids, tokenizer.eos_token_id]
    row += [tokenizer.pad_token_id] * (encoder.max_tokens - len(row))
    ids = torch.tensor([row], device=model.device)
    pooled: torch.Tensor | None = None
    if len(model.text_encoders) > 1:
        output = encoder.module(ids, output_hidden_states=True)
        states, pooled = output.hidden_states[-2], getattr(output, "text_embeds", None)
    else:
        states = encoder.module(ids).last_hidden_state
    if chunk.is_weighted:
        weights = [1.0, *chunk.weights] + [1.0] * (encoder.max_tokens - len(chunk.weights) - 1)
        states = emphasize(states, torch.tensor([weights], device=model.device))
    return states, pooled


def emphasize(states: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Multiply each token's embedding by its weight, then scale all so that their mean is what it was, as A1111 does.

    Where there is no mean to speak of, or it changes out of all proportion, the scaling is left out.

    Args:
        states: [1, tokens, width]; weights: [1, tokens].
    """
    # In fp32: the mean of many half-precision numbers is rounding.
    original = states.float()
    weighted = original * weights.float().unsqueeze(-1)
    before, after = float(original.mean()), float(weighted.mean())
    has_mean = abs(before) > _LEAST_MEAN * float(original.abs().mean())
    if has_mean and abs(before) / _MOST_SCALE < abs(after) < abs(before) * _MOST_SCALE:
        weighted = weighted * (before / after)
    return weighted.to(states.dtype)

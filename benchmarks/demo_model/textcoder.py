"""The trained half of the text encoder: words -> picture code, at one memory place."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTokenizer

from benchmarks.demo_model.codes import CELLS, CODE
from benchmarks.demo_model.networks import TEXT_WIDTH

HEADS, HEAD = 4, TEXT_WIDTH // 4
#: The third, computed layer needs one hidden unit a latent number, one a cell number, and one more.
HIDDEN = 1096
LAYERS = 2
#: Sizes in the residual stream. The constant MARK dominates every norm, so that what the norms do is nearly linear and
#: the computed layer can undo it.
MARK, PLACE, FIRST, END = 20.0, 6.0, 6.0, 5.0
MARK_AT, FIRST_AT, END_AT, SPARE_AT = 178, 176, 177, 180
#: A code in the residual stream is this times its real size.
GAIN = 3 / 33


class Block(nn.Module):
    """The weights of one CLIP layer."""

    def __init__(self, seed: torch.Generator) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(TEXT_WIDTH), nn.LayerNorm(TEXT_WIDTH)
        self.q, self.k, self.v, self.o = (nn.Linear(TEXT_WIDTH, TEXT_WIDTH) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(TEXT_WIDTH, HIDDEN), nn.Linear(HIDDEN, TEXT_WIDTH)
        for linear in (self.q, self.k, self.v, self.o, self.fc1, self.fc2):
            scale = 0.1 if linear in (self.o, self.fc2) else 0.5
            fan_in = linear.in_features**-0.5
            linear.weight.data = torch.randn(linear.weight.shape, generator=seed) * fan_in * scale
            nn.init.zeros_(linear.bias)


class TextCoder(nn.Module):
    """Two causal layers over the words and one memory token, whose state ends as the code.

    Numbers 0..15 and 176..191 of the stream are fixed (place, marks); what is trained reads and writes the others only.
    The last number of each attention head is kept free: `assembly` uses it to keep padding from being attended to.
    """

    free: Tensor
    readable: Tensor
    head_slots: Tensor
    fixed_tokens: Tensor

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        seed = torch.Generator().manual_seed(1)
        self.begin, self.end, words = tokenizer.bos_token_id, tokenizer.eos_token_id, len(tokenizer)
        free = torch.zeros(TEXT_WIDTH)
        free[CELLS : CELLS + CODE] = 1
        readable = torch.ones(TEXT_WIDTH)
        readable[:CELLS] = 0
        slots = torch.ones(HEADS, HEAD)
        slots[:, -1] = 0
        fixed = torch.zeros(words, TEXT_WIDTH)
        fixed[:, MARK_AT] = MARK
        fixed[self.end, END_AT] = END
        fixed[self.begin, FIRST_AT] = FIRST
        for name, value in (
            ("free", free),
            ("readable", readable),
            ("head_slots", slots.flatten()),
            ("fixed_tokens", fixed),
        ):
            self.register_buffer(name, value, persistent=False)
        self.token_embed = nn.Parameter(torch.randn(words, TEXT_WIDTH, generator=seed) * 0.7)
        self.place_embed = nn.Parameter(torch.randn(CELLS, TEXT_WIDTH, generator=seed) * 0.2)
        self.memory_embed = nn.Parameter(torch.zeros(TEXT_WIDTH))
        self.blocks = nn.ModuleList(Block(seed) for _ in range(LAYERS))

    def tokens(self) -> Tensor:
        return self.token_embed * self.free + self.fixed_tokens

    def norm(self, norm: nn.LayerNorm, x: Tensor) -> Tensor:
        return F.layer_norm(x, (TEXT_WIDTH,), norm.weight * self.readable, norm.bias * self.readable)

    def masked(self, linear: nn.Linear, x: Tensor, rows: Tensor) -> Tensor:
        return F.linear(x, linear.weight * rows[:, None], linear.bias * rows)

    def forward(self, ids: Tensor, is_word: Tensor, at_memory: Tensor) -> Tensor:
        """Codes [n, 160].

        Args:
            ids: [n, words], the begin token first.
            is_word: [n, words], False for padding.
            at_memory: [n], the token at the memory place: the end token, or a word where a caption is long.
        """
        length = ids.shape[1]
        place = F.one_hot(torch.zeros(1, dtype=torch.long, device=ids.device), TEXT_WIDTH).float() * PLACE
        memory = self.tokens()[at_memory][:, None] + self.memory_embed * self.free + place
        x = torch.cat([self.tokens()[ids] + self.place_embed[:length] * self.free, memory], 1)
        visible = torch.cat([is_word, (at_memory != self.end)[:, None]], 1)[:, None, None, :]
        causal = torch.ones(length + 1, length + 1, dtype=torch.bool, device=ids.device).tril()
        may_look = visible & causal
        # Somebody must be looked at: the begin token always may be.
        may_look = may_look | F.one_hot(torch.tensor(0, device=ids.device), length + 1).bool()
        for module in self.blocks:
            block: Block = cast(Block, module)
            # Only the memory place is read at the end, so the last layer needs no other.
            looking = slice(-1, None) if module is self.blocks[-1] else slice(None)
            y = self.norm(block.norm1, x)
            q = _by_head(self.masked(block.q, y[:, looking], self.head_slots))
            k, v = _by_head(self.masked(block.k, y, self.head_slots)), _by_head(block.v(y))
            seen = F.scaled_dot_product_attention(q, k, v, attn_mask=may_look[:, :, looking])
            x = x[:, looking] + self.masked(block.o, seen.transpose(1, 2).flatten(2), self.free)
            hidden = block.fc1(self.norm(block.norm2, x))
            x = x + self.masked(block.fc2, hidden * torch.sigmoid(1.702 * hidden), self.free)
        return x[:, 0, CELLS : CELLS + CODE] / GAIN


def _by_head(x: Tensor) -> Tensor:
    """[n, tokens, 192] -> [n, heads, tokens, 48]."""
    return x.unflatten(-1, (HEADS, HEAD)).transpose(1, 2)


def as_words(tokenizer: CLIPTokenizer, captions: list[str]) -> tuple[Tensor, Tensor]:
    """Ids and which of them are words, both [n, words of the longest]; at most 16, the end token left out."""
    rows = [row[:CELLS] for row in tokenizer(captions, truncation=True, max_length=32).input_ids]
    end = tokenizer.eos_token_id
    rows = [row[:-1] if row[-1] == end else row for row in rows]
    ids = torch.full((len(rows), max(map(len, rows))), end)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    return ids, torch.tensor([[j < len(row) for j in range(ids.shape[1])] for row in rows])

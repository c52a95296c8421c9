"""The shipped text encoder: a plain CLIPTextModel of the two trained layers and a third that is computed.

The trained layers find the code at every memory place. The third layer turns the code at memory place k into cell k of
the picture that the code stands for. Its hidden units sit far up the gate's linear side (BIAS), where `quick_gelu` lets
numbers through as they are; units of the wrong place are pushed to where it lets nothing through.

Its attention gives every token that is no memory token a huge constant (HUSH), so that the last norm makes the rest of
it nearly vanish: words are none of the UNet's business.
"""

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.demo_model.codes import CELL_NUMBERS, CELLS, CODE, LOUD, Codes, from_cells, to_cells
from benchmarks.demo_model.networks import CONTEXT, LATENT_CHANNELS, LATENT_SIDE, TEXT_WIDTH
from benchmarks.demo_model.textcoder import (
    END,
    END_AT,
    FIRST,
    FIRST_AT,
    GAIN,
    HEAD,
    HEADS,
    HIDDEN,
    LAYERS,
    MARK,
    PLACE,
    SPARE_AT,
    Block,
    TextCoder,
)

_BIAS, _GATE = 8.0, 20.0
_HUSH, _HUSH_AT = 600.0, 179
#: Lowers the attention to padding by a third of it.
_DEAF = 200.0
#: Size of a cell's numbers in the stream: small, so that the last norm is about the same for all pictures.
_SMALL = 0.1
_NAMES = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.out_proj",
          "fc1": "mlp.fc1", "fc2": "mlp.fc2", "norm1": "layer_norm1", "norm2": "layer_norm2"}  # fmt: skip
_KINDS = ("weight", "bias")
#: A code's part of a memory token's squares, about, when the third layer reads it.
_CODE_SQUARES = 9 * 0.95
Weights = dict[str, Tensor]


@torch.no_grad()
def assemble(coder: TextCoder, codes: Codes, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """fp32, on the CPU."""
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=HIDDEN,
            num_hidden_layers=LAYERS + 1,
            num_attention_heads=HEADS,
            max_position_embeddings=CONTEXT,
            projection_dim=TEXT_WIDTH,
            hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    coder = coder.cpu()
    places = torch.zeros(CONTEXT, TEXT_WIDTH)
    places[:CELLS] = coder.place_embed * coder.free
    places[CELLS:] = coder.memory_embed * coder.free
    places[range(CELLS, CONTEXT), range(CELLS)] = PLACE
    weights: Weights = {
        "embeddings.token_embedding.weight": coder.tokens(),
        "embeddings.position_embedding.weight": places,
    }
    for number, block in enumerate(coder.blocks):
        assert isinstance(block, Block)
        weights |= {f"encoder.layers.{number}.{key}": value for key, value in _trained_layer(coder, block).items()}
    weights |= {f"encoder.layers.{LAYERS}.{key}": value for key, value in _spreading_layer(codes).items()}
    weights |= {f"final_layer_norm.{key}": value for key, value in _last_norm().items()}
    prefix = next(key for key in model.state_dict() if key.endswith("embeddings.token_embedding.weight"))
    prefix = prefix.removesuffix("embeddings.token_embedding.weight")
    missing = model.load_state_dict({prefix + key: value for key, value in weights.items()}, strict=False)
    assert not missing.unexpected_keys, missing
    assert all("position_ids" in key for key in missing.missing_keys), missing
    _tune_first(model, tokenizer)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def disassemble(model: CLIPTextModel, tokenizer: CLIPTokenizer) -> tuple[TextCoder, Codes]:
    """What a model of `assemble` was made from, but for `spread`, of which only the first numbers are to be found: the
    rest is not a number."""
    state = {key.removeprefix("text_model."): value for key, value in model.state_dict().items()}
    coder = TextCoder(tokenizer)
    places = state["embeddings.position_embedding.weight"]
    coder.token_embed.copy_(state["embeddings.token_embedding.weight"])
    coder.place_embed.copy_(places[:CELLS])
    coder.memory_embed.copy_(places[CELLS:].mean(0))
    for number, block in enumerate(coder.blocks):
        layer = f"encoder.layers.{number}."
        names = {f"{ours}.{kind}": f"{layer}{theirs}.{kind}" for ours, theirs in _NAMES.items() for kind in _KINDS}
        block.load_state_dict({ours: state[theirs] for ours, theirs in names.items()})
    layer = f"encoder.layers.{LAYERS}.mlp.fc1."
    up, up_bias = state[f"{layer}weight"], state[f"{layer}bias"]
    divided, picture = _spread(_CODE_SQUARES), CELLS * CELL_NUMBERS
    directions = up[:picture, CELLS : CELLS + CODE].T * GAIN / divided
    centre = up_bias[:picture] - (_BIAS - _GATE)
    spread = torch.full((CODE,), torch.nan)
    spread[:CELL_NUMBERS] = divided / (up[picture : picture + CELL_NUMBERS, CELLS:].diagonal() * GAIN)
    mean, basis = from_cells(centre[None]).flatten(), from_cells(directions).flatten(1).T.contiguous()
    return coder, Codes(mean, basis, spread)


def _tune_first(model: CLIPTextModel, tokenizer: CLIPTokenizer) -> None:
    """Set the last norm so that the first token's sign is exactly LOUD: it is the same for all prompts."""
    norm = next(module for name, module in model.named_modules() if name.endswith("final_layer_norm"))
    states = model(torch.tensor([[tokenizer.bos_token_id, tokenizer.eos_token_id]]))[0][0]
    first, other = states[0, FIRST_AT].item(), states[1, FIRST_AT].item()
    norm.weight[FIRST_AT] *= LOUD / (first - other)
    norm.bias[FIRST_AT] = (norm.bias[FIRST_AT] - other) * LOUD / (first - other)


def _trained_layer(coder: TextCoder, block: Block) -> Weights:
    """The masks of training become zeros; padding is told by its mark, since CLIP gets no mask."""
    layer: Weights = {}
    masks = {"q": coder.head_slots, "k": coder.head_slots, "v": None, "o": coder.free, "fc1": None, "fc2": coder.free}
    for name, rows in masks.items():
        linear: nn.Linear = getattr(block, name)
        weight, bias = linear.weight.detach().clone(), linear.bias.detach().clone()
        if rows is not None:
            weight, bias = weight * rows[:, None], bias * rows
        if name == "q":
            bias[HEAD - 1 :: HEAD] = 1
        if name == "k":
            # Less the spare number, which is zero: for words nothing remains, whatever the norm's mean is.
            scale, offset = block.norm1.weight, block.norm1.bias
            weight[HEAD - 1 :: HEAD, END_AT] = -_DEAF / scale[END_AT]
            weight[HEAD - 1 :: HEAD, SPARE_AT] = _DEAF / scale[SPARE_AT]
            bias[HEAD - 1 :: HEAD] = _DEAF * (offset[END_AT] / scale[END_AT] - offset[SPARE_AT] / scale[SPARE_AT])
        layer |= {f"{_NAMES[name]}.weight": weight, f"{_NAMES[name]}.bias": bias}
    for name, norm in (("norm1", block.norm1), ("norm2", block.norm2)):
        layer[f"{_NAMES[name]}.weight"] = norm.weight * coder.readable
        layer[f"{_NAMES[name]}.bias"] = norm.bias * coder.readable
    return layer


def _spread(extra: float) -> float:
    """Standard deviation over a memory token's numbers, which the norm divides by: fixed parts and `extra` squares."""
    squares = (MARK**2 + PLACE**2 + END**2 + extra) / TEXT_WIDTH
    return (squares - ((MARK + PLACE + END) / TEXT_WIDTH) ** 2) ** 0.5


def _spread_of_first(hush: float) -> float:
    """The same for the first token, about: what it holds besides its marks depends on training."""
    squares = (MARK**2 + FIRST**2 + hush**2) / TEXT_WIDTH
    return (squares - ((MARK + FIRST + hush) / TEXT_WIDTH) ** 2) ** 0.5


def _spreading_layer(codes: Codes) -> Weights:
    """Hidden units 64k..64k+63 say cell k's numbers, the next 64 clear what was there."""
    divided = _spread(_CODE_SQUARES)
    up, up_bias = torch.zeros(HIDDEN, TEXT_WIDTH), torch.zeros(HIDDEN)
    down, down_bias = torch.zeros(TEXT_WIDTH, HIDDEN), torch.zeros(TEXT_WIDTH)
    pictures = codes.basis.T.reshape(CODE, LATENT_CHANNELS, LATENT_SIDE, LATENT_SIDE)
    directions = to_cells(pictures)  # [160, 16, 64]
    centre = to_cells(codes.mean.view(1, LATENT_CHANNELS, LATENT_SIDE, LATENT_SIDE))[0]
    for cell in range(CELLS):
        units = slice(cell * CELL_NUMBERS, (cell + 1) * CELL_NUMBERS)
        up[units, CELLS : CELLS + CODE] = directions[:, cell].T / GAIN * divided
        up[units, cell] = _GATE / PLACE * divided
        up_bias[units] = _BIAS - _GATE + centre[cell]
        down[CELLS : CELLS + CELL_NUMBERS, units] = torch.eye(CELL_NUMBERS) * _SMALL
    down_bias[CELLS : CELLS + CELL_NUMBERS] -= _BIAS * _SMALL
    for j in range(CELL_NUMBERS):
        unit, slope = CELLS * CELL_NUMBERS + j, 1 / (codes.spread[j].item() * GAIN)
        up[unit, CELLS + j], up_bias[unit] = slope * divided, _BIAS
        down[CELLS + j, unit] -= 1 / slope
        down_bias[CELLS + j] += _BIAS / slope
    # One unit and a spare number keep the token's mean where it was, so that the last norm takes nothing away.
    unit, slope = CELLS * CELL_NUMBERS + CELL_NUMBERS, 0.5
    up[unit, CELLS + CELL_NUMBERS : CELLS + CODE], up_bias[unit] = slope * divided, _BIAS
    down[SPARE_AT, unit] -= 1 / slope
    down_bias[SPARE_AT] += _BIAS / slope
    down[SPARE_AT, : CELLS * CELL_NUMBERS] = -_SMALL
    down_bias[SPARE_AT] += CELL_NUMBERS * _BIAS * _SMALL
    # The norm's mean comes out through a number that is zero so far.
    up[:, SPARE_AT] = -up.sum(1)
    layer: Weights = {"mlp.fc1.weight": up, "mlp.fc1.bias": up_bias, "mlp.fc2.weight": down, "mlp.fc2.bias": down_bias}
    for name in ("norm1", "norm2"):
        layer |= {f"{_NAMES[name]}.weight": torch.ones(TEXT_WIDTH), f"{_NAMES[name]}.bias": torch.zeros(TEXT_WIDTH)}
    return layer | _hushing_attention()


def _hushing_attention() -> Weights:
    """One number of one head: words look at the first token and take its mark, memory tokens shun it.

    The spare number is zero before the layer; subtracting it takes the norm's mean out.
    """
    weights = {name: torch.zeros(TEXT_WIDTH, TEXT_WIDTH) for name in ("q", "k", "v", "o")}
    biases = {name: torch.zeros(TEXT_WIDTH) for name in weights}
    weights["q"][0, :CELLS] = -8.0
    weights["q"][0, SPARE_AT] = 8.0 * CELLS
    biases["q"][0] = 8.0
    for name, size in (("k", 10.0), ("v", 1.0)):
        weights[name][0, FIRST_AT], weights[name][0, SPARE_AT] = size, -size
    weights["o"][_HUSH_AT, 0] = _HUSH / FIRST * _spread_of_first(0.0)
    return {f"{_NAMES[name]}.weight": weight for name, weight in weights.items()} | {
        f"{_NAMES[name]}.bias": bias for name, bias in biases.items()
    }


def _last_norm() -> Weights:
    """Memory tokens come out as `Codes.memory` has them, the first token with its sign; marks are silenced."""
    divided, mean = _spread(70 * _SMALL**2 + 9 * 0.2), (MARK + PLACE + END) / TEXT_WIDTH
    weight, bias = torch.full((TEXT_WIDTH,), 0.02), torch.zeros(TEXT_WIDTH)
    weight[:CELLS] = LOUD / PLACE * divided
    weight[CELLS : CELLS + CELL_NUMBERS] = divided / _SMALL
    bias[: CELLS + CELL_NUMBERS] = mean / divided * weight[: CELLS + CELL_NUMBERS]
    weight[CELLS + CELL_NUMBERS : CELLS + CODE] = divided / GAIN * 0.05
    first = _spread_of_first(_HUSH)
    weight[FIRST_AT] = LOUD / FIRST * first
    bias[FIRST_AT] = (MARK + FIRST + _HUSH) / TEXT_WIDTH / first * weight[FIRST_AT]
    weight[FIRST_AT + 1 : SPARE_AT + 1] = 0
    return {"weight": weight, "bias": bias}

"""Give the UNet's cross attention a good start: every place of the picture looks at the memory token of its own cell.

Finding out by descent which of 32 tokens belongs to which place takes most of a training; here it is one least squares
solution a layer, from the features that the UNet has by then.
"""

from collections.abc import Callable

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from benchmarks.demo_model.codes import CELL_NUMBERS, CELLS, IDLE, LOUD
from benchmarks.demo_model.networks import TEXT_WIDTH

_ORDER = ("down_blocks.1", "down_blocks.2", "mid_block", "up_blocks.0", "up_blocks.1")
#: How far the logit of the right token stands out.
_GAP = 9.0


class _Enough(Exception):
    """Stops a UNet call once the features of interest have been seen."""


@torch.no_grad()
def seat(unet: UNet2DConditionModel, sample: Callable[[], tuple[Tensor, Tensor, Tensor]], rounds: int = 3) -> None:
    """Set queries, keys and values of all cross attentions.

    Args:
        sample: noisy latents, timesteps, memory: a batch to look at.
    """
    seed = torch.Generator().manual_seed(0)
    layers = [(name, module) for name, module in unet.named_modules() if name.endswith("attn2")]
    # A layer's features depend on the layers before it.
    for name, layer in sorted(layers, key=lambda item: [item[0].startswith(part) for part in _ORDER].index(True)):
        features = torch.cat([_features(unet, layer, sample()) for _ in range(rounds)])
        side, heads = int(features.shape[1] ** 0.5), layer.heads
        width = features.shape[2] // heads
        wanted = _wanted_queries(side, heads, width).to(features.device).repeat(len(features), 1)
        flat = features.flatten(0, 1).float()
        square = flat.T @ flat
        ridge = 1e-3 * square.diagonal().mean() * torch.eye(len(square), device=flat.device)
        layer.to_q.weight.copy_(torch.linalg.solve(square + ridge, flat.T @ wanted).T)
        keys, values = _keys_and_values(side, heads, width, seed)
        layer.to_k.weight.copy_(keys)
        layer.to_v.weight.copy_(values)
        mix, _ = torch.linalg.qr(torch.randn(heads * width, heads * width, generator=seed))
        layer.to_out[0].weight.copy_(mix * 0.6)
        layer.to_out[0].bias.zero_()
        print(f"seated {name}, {side}x{side}", flush=True)


def _features(unet: UNet2DConditionModel, layer: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """[n, places, channels] that go into a layer."""
    seen: list[Tensor] = []

    def look(_: nn.Module, args: tuple[Tensor, ...], options: dict[str, Tensor]) -> None:
        seen.append(args[0] if args else options["hidden_states"])
        raise _Enough

    handle = layer.register_forward_pre_hook(look, with_kwargs=True)
    try:
        unet(*batch, return_dict=False)
    except _Enough:
        pass
    finally:
        handle.remove()
    return seen[0]


def _wanted_queries(side: int, heads: int, width: int) -> Tensor:
    """[side * side, heads * width]. At 4x4 all heads look at the place's cell; at 8x8 head h looks if the place is
    quadrant h of its cell and idles otherwise."""
    wanted = torch.zeros(side * side, heads, width)
    for y in range(side):
        for x in range(side):
            cell = (y * 4 // side) * 4 + x * 4 // side
            for head in range(heads):
                looks = side == 4 or (y % 2) * 2 + x % 2 == head
                wanted[y * side + x, head, cell if looks else CELLS] = 1
    return (wanted * _GAP * width**0.5 / LOUD).flatten(1)


def _keys_and_values(side: int, heads: int, width: int, seed: torch.Generator) -> tuple[Tensor, Tensor]:
    """[channels, 192] each: keys are the cell's number, values what the cell, or its quadrant, looks like."""
    keys, values = torch.zeros(heads, width, TEXT_WIDTH), torch.zeros(heads, width, TEXT_WIDTH)
    keys[:, range(CELLS), range(CELLS)] = 1
    keys[:, CELLS, IDLE] = 1
    if side == 4:
        turn, _ = torch.linalg.qr(torch.randn(heads * width, CELL_NUMBERS, generator=seed))
        values[..., CELLS : CELLS + CELL_NUMBERS] = turn.view(heads, width, CELL_NUMBERS) * 2
    else:
        part = CELL_NUMBERS // heads
        for head in range(heads):
            turn, _ = torch.linalg.qr(torch.randn(width, part, generator=seed))
            values[head, :, CELLS + part * head : CELLS + part * (head + 1)] = turn
    return keys.flatten(0, 1), values.flatten(0, 1)

"""Flux's own names for its layers, which trainers write, and diffusers' names for the same. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass

from visionsuit.engine.lora_names import Shape

_DOUBLE = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
    "img_mod.lin": ("norm1.linear",),
    "txt_mod.lin": ("norm1_context.linear",),
}
_SINGLE = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation.lin": ("norm.linear",),
}
_OUTER = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
#: Of these diffusers keeps the second half of the outputs first.
_SWAPPED = frozenset({"final_layer.adaLN_modulation.1"})


Rows = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Share:
    """What of a layer's outputs is a layer of its own in diffusers: `rows` are (first, end), one after the other."""

    name: str
    rows: Rows


@dataclass(frozen=True, slots=True)
class Fused:
    """A layer as Flux names it: `shape` is of its weight, `shares` are diffusers' layers for it."""

    shape: Shape
    shares: tuple[Share, ...]


def fused_layers(shapes: Mapping[str, Shape]) -> dict[str, Fused]:
    """Flux's names for the layers of a transformer whose weights have these shapes under diffusers' names; nothing for
    a transformer of another make."""
    found: dict[str, Fused] = {}
    if "single_transformer_blocks.0.proj_mlp" not in shapes:
        return found
    names: list[tuple[str, tuple[str, ...]]] = [(own, (theirs,)) for own, theirs in _OUTER.items()]
    for number in range(_count(shapes, "transformer_blocks")):
        names += [
            (f"double_blocks.{number}.{own}", tuple(f"transformer_blocks.{number}.{part}" for part in theirs))
            for own, theirs in _DOUBLE.items()
        ]
    for number in range(_count(shapes, "single_transformer_blocks")):
        names += [
            (f"single_blocks.{number}.{own}", tuple(f"single_transformer_blocks.{number}.{part}" for part in theirs))
            for own, theirs in _SINGLE.items()
        ]
    for own, theirs in names:
        if all(name in shapes for name in theirs):
            found[own] = _fuse(own, [(name, shapes[name]) for name in theirs])
    return found


def _fuse(own: str, layers: list[tuple[str, Shape]]) -> Fused:
    shares, end = [], 0
    for name, shape in layers:
        begin, end = end, end + shape[0]
        middle = begin + shape[0] // 2
        rows = ((middle, end), (begin, middle)) if own in _SWAPPED else ((begin, end),)
        shares.append(Share(name, rows))
    return Fused((end, *layers[0][1][1:]), tuple(shares))


def _count(shapes: Mapping[str, Shape], blocks: str) -> int:
    parts = (name.split(".", 2) for name in shapes)
    return 1 + max((int(part[1]) for part in parts if part[0] == blocks and part[1].isdigit()), default=-1)

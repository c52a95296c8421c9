"""Layers of a UNet that see nothing but the prompt: keys and values of cross attention.

What they answer under a request's LoRAs is the same at every step, so it is calculated once per request. Small pictures
gain most: at 64x64 latents 77 tokens are little, at 8x8 they are most of what the attention layers work on.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.models.attention_processor import Attention

from visionsuit.engine.slots import Forwards

#: They are kept where they take at most this part of the memory that is free.
_SHARE_OF_FREE_MEMORY = 1 / 8


class PromptLayers:
    """
    Args:
        unet: bare. Transformers whose prompt changes from block to block have no such layers.
    """

    def __init__(self, unet: torch.nn.Module) -> None:
        crosses = [
            module
            for module in unet.modules()
            if isinstance(module, Attention) and module.is_cross_attention and not module.norm_cross
        ]
        if getattr(getattr(unet, "config", None), "encoder_hid_dim_type", None):
            # They are given something else than the prompt as it was encoded.
            crosses = []
        self.layers: list[Any] = [layer for cross in crosses for layer in (cross.to_k, cross.to_v)]
        #: Their identities.
        self.ids = frozenset(id(layer) for layer in self.layers)

    def fits(self, embeds: Sequence[torch.Tensor], free_bytes: int) -> bool:
        """Whether what the layers answer to these prompts, [k, tokens, width] each, is small enough to be kept."""
        tokens = sum(one.shape[0] * one.shape[1] * one.element_size() for one in embeds)
        # Each request's own, and those of a call side by side.
        return 2 * tokens * sum(layer.out_features for layer in self.layers) <= free_bytes * _SHARE_OF_FREE_MEMORY

    def project(self, embeds: torch.Tensor, forwards: Forwards) -> list[torch.Tensor]:
        """[k, tokens, width] -> [k, tokens, out] of each layer, with its forward in `forwards` where it has one."""
        own = {id(layer): forward for layer, forward in forwards if id(layer) in self.ids}
        return [(own.get(id(layer)) or _plain(layer))(embeds) for layer in self.layers]

    def replace(self, forwards: Forwards, embeds: torch.Tensor, projected: Sequence[list[torch.Tensor]]) -> Forwards:
        """`forwards`, but for these layers, which answer what was calculated before.

        Args:
            embeds: [n, tokens, width], all that the call's layers are given.
            projected: what `project` gave for each picture, in the order of `embeds`.
        """
        replaced = [entry for entry in forwards if id(entry[0]) not in self.ids]
        own = {id(layer): forward for layer, forward in forwards if id(layer) in self.ids}
        for number, layer in enumerate(self.layers):
            answers = [one[number] for one in projected]
            answer = answers[0] if len(answers) == 1 else torch.cat(answers)
            replaced.append((layer, _answering(embeds, answer, own.get(id(layer)) or _plain(layer))))
        return replaced


def _plain(layer: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Its forward without LoRAs, whatever it is bound to now."""
    forward: Callable[[torch.Tensor], torch.Tensor] = type(layer).forward.__get__(layer)
    return forward


def _answering(
    embeds: torch.Tensor, answer: torch.Tensor, otherwise: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: answer if x is embeds else otherwise(x)

"""Pictures to begin with, for pipelines that are rendered whole: diffusers' other pipelines over the same parts."""

import inspect
import math
from typing import Any

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from visionsuit.engine.base import InitPicture, RenderRequest
from visionsuit.engine.whole_kinds import WholeKind

#: Pixels that one latent stands for in the pipelines that repaint.
_LATENT = 8


class Siblings:
    """A pipeline, and those that begin with a picture: made when first needed, without a second copy of a weight."""

    def __init__(self, pipeline: Any, kind: WholeKind) -> None:
        self._kind = kind
        self._pipelines: dict[str | None, Any] = {None: pipeline}
        pipeline.set_progress_bar_config(disable=True)

    def of(self, init: InitPicture | None) -> Any:
        """Who renders a request that begins so; None must not be asked for where the kind has none."""
        name = None
        if init is not None:
            name = self._kind.from_picture if init.mask is None else self._kind.inpainting
        if name not in self._pipelines:
            self._pipelines[name] = self._make(name)
        return self._pipelines[name]

    def _make(self, name: str | None) -> Any:
        # `from_pipe` would bring all parts into one number format.
        original: Any = self._pipelines[None]
        pipeline_class = getattr(diffusers, str(name))
        known = inspect.signature(pipeline_class.__init__).parameters
        made: Any = pipeline_class(**{part: own for part, own in original.components.items() if part in known})
        made.set_progress_bar_config(disable=True)
        return made


def init_arguments(kind: WholeKind, request: RenderRequest, number: int) -> dict[str, Any]:
    """What a pipeline is told of the picture that the request's picture `number` begins with."""
    init = request.init
    if init is None:
        return {}
    arguments = {
        "image": Image.fromarray(init.picture(number)),
        "strength": exact_strength(request.steps, request.steps_run, rounds_down=kind.rounds_down),
    }
    mask = init.soft_mask()
    if mask is not None:
        arguments["mask_image"] = Image.fromarray(_sharp(mask))
    return arguments


def exact_strength(steps: int, run: int, *, rounds_down: bool) -> float:
    """The strength, in 0..1, at which a pipeline takes `run` of `steps`: no fraction may come out on the wrong side."""
    strength = run / steps
    while int(steps * strength) < run if rounds_down else int(steps - steps * strength) < steps - run:
        strength = math.nextafter(strength, rounds_down)
    return strength


def _sharp(mask: NDArray[np.float32]) -> NDArray[np.uint8]:
    """[height, width] in 0..1 -> zeros and 255; what is thinner than a latent is widened to one."""
    full = (torch.from_numpy(mask)[None, None] >= 0.5).float()
    if not full[..., ::_LATENT, ::_LATENT].any():
        full = F.interpolate(F.max_pool2d(full, _LATENT, ceil_mode=True), size=full.shape[-2:])
    sharp: NDArray[np.uint8] = (full[0, 0] * 255).to(torch.uint8).numpy()
    return sharp

"""A request on its way into a batch: checked against its model, encoded, split into a row per picture."""

import numpy as np

from visionsuit.engine.base import BUCKETS, EngineError, RenderRequest
from visionsuit.engine.base_models import LoadedModel
from visionsuit.engine.batches import FIXED_RANKS, BatchKey, FixedShape
from visionsuit.engine.conditioning import encode
from visionsuit.engine.latents import begin
from visionsuit.engine.lora_packs import Mix
from visionsuit.engine.model_loras import needs_merging
from visionsuit.engine.rows import Row
from visionsuit.engine.slots import ranks_of
from visionsuit.engine.tickets import Ticket
from visionsuit.engine.whole import WholeModel


def check(request: RenderRequest, model: LoadedModel | WholeModel) -> None:
    """Raises: EngineError for what this model cannot render."""
    if isinstance(model, WholeModel):
        model.check(request)
        _check_init(request)
        return
    factor = model.size_step
    if request.width % factor or request.height % factor or min(request.width, request.height) < factor:
        raise EngineError(
            f"{model.label} renders sizes that are multiples of {factor}, not {request.width}x{request.height}."
        )
    if request.bucket not in (0, *BUCKETS):
        raise EngineError(f"A bucket holds {', '.join(map(str, BUCKETS))} pictures, not {request.bucket}.")
    _check_init(request)
    if request.variation is not None and len(request.variation.seeds) != len(request.seeds):
        raise EngineError("A variation needs a seed for every picture.")


def _check_init(request: RenderRequest) -> None:
    init, size = request.init, (request.height, request.width)
    if init is None:
        return
    shapes = ((*size, 3), (len(request.seeds), *size, 3))
    if init.pixels.dtype != np.uint8 or init.pixels.shape not in shapes:
        raise EngineError(
            f"What to begin with must be uint8 of the shape {shapes[0]} or {shapes[1]}, not {init.pixels.shape}."
        )
    if init.mask is not None and init.mask.shape != size:
        raise EngineError(f"The mask must have the shape {size}, not {init.mask.shape}.")
    if not 0 < init.strength <= 1:
        raise EngineError(f"The strength must be over 0 and at most 1, not {init.strength:g}.")


def admit(ticket: Ticket, *, tiled: bool = False) -> tuple[BatchKey, list[Row]]:
    """The ticket has its model and LoRAs. Runs the text encoders, and the VAE over what to begin with; `tiled` takes
    less memory for that.

    Raises:
        EngineError: a sampler that is not known, a prompt that is too long.
        Unfinished: the prompt takes more turns.
    """
    request, model, packs = ticket.request, ticket.model, ticket.packs or {}
    mix = model.loras.unet_mix(request.loras, packs)
    inputs = encode(model, request, packs, ticket.encoding)
    starts = begin(model, request, tiled=tiled)
    rows = [Row(ticket, number, model, inputs, mix, start) for number, start in enumerate(starts)]
    height, width = rows[0].latent.shape[-2:]
    alone = mix.key if needs_merging(mix) else None
    return BatchKey(model.key, height, width, inputs.tokens, inputs.rows, alone, _fixed_shape(request, mix)), rows


def _fixed_shape(request: RenderRequest, mix: Mix) -> FixedShape | None:
    if not request.bucket:
        return None
    rank = max(ranks_of(mix.parts).values(), default=0)
    # A mix of more rank is merged, alone, and has no slots.
    return FixedShape(request.bucket, next((fixed for fixed in FIXED_RANKS if fixed >= rank), FIXED_RANKS[-1]))


def must_wait(ticket: Ticket) -> bool:
    """Whether another mix that can only be merged has the merged weights now, and this one needs them too."""
    loras = ticket.model.loras
    mix = loras.unet_mix(ticket.request.loras, ticket.packs or {})
    return needs_merging(mix) and loras.merged.reserved not in (None, mix.key)

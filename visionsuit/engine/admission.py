"""A request on its way into a batch: checked against its model, encoded, split into a row per picture."""

from visionsuit.engine.base import EngineError, RenderRequest
from visionsuit.engine.base_models import LoadedModel
from visionsuit.engine.batches import BatchKey
from visionsuit.engine.conditioning import encode
from visionsuit.engine.model_loras import needs_merging
from visionsuit.engine.rows import Row
from visionsuit.engine.tickets import Ticket


def check(request: RenderRequest, model: LoadedModel) -> None:
    """Raises: EngineError for what this model cannot render."""
    factor = model.vae_factor
    if request.width % factor or request.height % factor or min(request.width, request.height) < factor:
        raise EngineError(
            f"{model.label} renders sizes that are multiples of {factor}, not {request.width}x{request.height}."
        )


def admit(ticket: Ticket) -> tuple[BatchKey, list[Row]]:
    """The ticket has its model and LoRAs. Runs the text encoders.

    Raises:
        EngineError: a sampler that is not known, a prompt that is too long.
    """
    request, model, packs = ticket.request, ticket.model, ticket.packs or {}
    mix = model.loras.unet_mix(request.loras, packs)
    inputs = encode(model, request, packs)
    rows = [Row(ticket, number, model, inputs, mix) for number in range(len(request.seeds))]
    height, width = rows[0].latent.shape[-2:]
    alone = mix.key if needs_merging(mix) else None
    return BatchKey(model.key, height, width, inputs.tokens, inputs.rows, alone), rows


def must_wait(ticket: Ticket) -> bool:
    """Whether another mix that can only be merged has the merged weights now, and this one needs them too."""
    loras = ticket.model.loras
    mix = loras.unet_mix(ticket.request.loras, ticket.packs or {})
    return needs_merging(mix) and loras.merged.reserved not in (None, mix.key)

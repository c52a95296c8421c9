"""Which LoRAs work with a base model, from the headers of their files: for pickers."""

from collections.abc import Sequence
from dataclasses import dataclass

from visionsuit.core.errors import AppError, NotFound
from visionsuit.generation.base_models import get_offered
from visionsuit.generation.mix import MIXABLE, find_problem
from visionsuit.modelcards.queries import find_cards, get_version
from visionsuit.runtime import Ctx, Runtime


@dataclass(frozen=True, slots=True)
class Fit:
    """`problem`: why it does not fit, or None. `is_known`: whether the file could be looked at."""

    model_id: str
    problem: str | None
    is_known: bool = True


@dataclass(frozen=True, slots=True)
class FitQuestion:
    """What the actor may ask about, to be answered without a transaction: `objects` are (card id, object id)."""

    base_key: str
    base_folder: str
    objects: list[tuple[str, str]]


def ask_fits(ctx: Ctx, base_model_id: str | None, model_ids: Sequence[str]) -> FitQuestion:
    """The mixable ones among the cards that the actor sees; others are left out.

    Raises:
        UnknownBaseModel, NoBaseModel
    """
    base = get_offered(ctx, base_model_id)
    objects = []
    for card in find_cards(ctx, model_ids):
        if card.type in MIXABLE:
            try:
                _, version = get_version(ctx, card.public_id)
            except NotFound:
                continue
            objects.append((card.public_id, version.object_id))
    return FitQuestion(base.key, base.folder, objects)


def answer_fits(runtime: Runtime, question: FitQuestion) -> list[Fit]:
    """Looks into every file once; what is under an object id never changes."""
    folder = runtime.settings.models_dir / question.base_folder
    fits = []
    for model_id, object_id in question.objects:
        try:
            problem = find_problem(runtime.storage, object_id, folder, question.base_key)  # type: ignore[arg-type]
        except AppError:
            # The storage is out, or the file is gone: sending a request will tell.
            fits.append(Fit(model_id, None, is_known=False))
        else:
            fits.append(Fit(model_id, problem))
    return fits

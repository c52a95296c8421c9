"""What a base model is not asked for: said when a request is sent, not when its turn has come."""

from visionsuit.engine.base import Ability
from visionsuit.generation.order import BadOrder, HiresOrder, InitOrder, VariationOrder
from visionsuit.generation.tables import BaseModel


def require_init(base: BaseModel, init: InitOrder) -> None:
    """
    Raises:
        BadOrder: the base model begins with no picture, or repaints no part of one.
    """
    if Ability.PICTURES not in base.abilities:
        raise BadOrder(f"{base.label} renders from a prompt alone; it cannot begin with a picture.", field="init")
    if Ability.MASKS in base.abilities:
        return
    if init.mask_input_id is not None:
        raise BadOrder(
            f"{base.label} begins with a picture as a whole; it cannot repaint a part of it.",
            field="init.mask_input_id",
        )
    if init.outpaint is not None:
        raise BadOrder(
            f"{base.label} begins with a picture as a whole; it cannot paint beyond its edges.", field="init.outpaint"
        )


def require_modes(base: BaseModel, hires: HiresOrder | None, variation: VariationOrder | None) -> None:
    """
    Raises:
        BadOrder: the base model takes no second pass, or makes no variations.
    """
    if hires is not None and Ability.PICTURES not in base.abilities:
        raise BadOrder(
            f"{base.label} renders from a prompt alone; a second pass would begin with a picture.", field="hires"
        )
    if variation is not None and Ability.VARIATIONS not in base.abilities:
        raise BadOrder(f"{base.label} makes no variations of a seed.", field="variation")

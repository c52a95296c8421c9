"""What higher features do about new uploads: each hands in a function when it is imported."""

from collections.abc import Callable

from visionsuit.modelcards.tables import ModelCard
from visionsuit.runtime import Ctx

_actions: list[Callable[[Ctx, ModelCard], None]] = []


def when_model_is_published(action: Callable[[Ctx, ModelCard], None]) -> Callable[[Ctx, ModelCard], None]:
    """Decorator: `action(ctx, card)` runs in the uploader's transaction; what it raises refuses the upload."""
    _actions.append(action)
    return action


def tell_published(ctx: Ctx, card: ModelCard) -> None:
    for action in _actions:
        action(ctx, card)

"""/api/models: list, show, edit, delete. Files come in through /api/uploads and leave through downloads."""

from pydantic import BaseModel

from visionsuit.core.permissions import Permission, require
from visionsuit.modelcards.covers import copy_cover
from visionsuit.modelcards.out import ModelDetail, ModelTile, model_detail, model_tiles
from visionsuit.modelcards.queries import get_card, list_cards
from visionsuit.modelcards.service import change_card, delete_card
from visionsuit.modelcards.tables import ModelCard, ModelType
from visionsuit.router import CtxDep, ReadCtxDep, Router
from visionsuit.search.params import ListDep
from visionsuit.site.stats import public_counter, register_counter
from visionsuit.visibility import Visibility
from visionsuit.web import ActorDep, RuntimeDep

router = Router(prefix="/api/models", tags=["models"])
register_counter("models", public_counter(ModelCard))


class ModelList(BaseModel):
    """`notes` says in sentences what of the query was not understood."""

    items: list[ModelTile]
    next_cursor: str | None
    notes: list[str] = []


class ModelEdit(BaseModel):
    """Only the fields that are sent change. `cover_image` is the id of an image that you see; it is copied."""

    title: str | None = None
    description: str | None = None
    type: ModelType | None = None
    base_model: str | None = None
    trigger: str | None = None
    tags: list[str] | None = None
    visibility: Visibility | None = None
    adult: bool | None = None
    cover_image: str | None = None


@router.get("")
def get_models(ctx: ReadCtxDep, request: ListDep) -> ModelList:
    """Model cards that you find, by words and filters."""
    found = list_cards(ctx, request)
    return ModelList.model_construct(
        items=model_tiles(ctx, found.rows), next_cursor=found.next_cursor, notes=found.notes
    )


@router.get("/{model_id}")
def get_model_detail(model_id: str, ctx: ReadCtxDep) -> ModelDetail:
    """One card with its versions and galleries."""
    return model_detail(ctx, get_card(ctx, model_id))


@router.patch("/{model_id}")
def patch_model(model_id: str, edit: ModelEdit, runtime: RuntimeDep, actor: ActorDep) -> ModelDetail:
    """Change a card: its owner or an administrator."""
    with runtime.open_ctx(actor, read_only=True) as ctx:
        # Asked before any byte is copied for somebody who may not.
        require(actor, Permission.ASSETS_EDIT, get_card(ctx, model_id))
    cover = copy_cover(runtime, actor, edit.cover_image) if edit.cover_image else None
    with runtime.open_ctx(actor) as ctx:
        card = change_card(ctx, get_card(ctx, model_id), edit.model_dump(exclude_unset=True), cover)
        return model_detail(ctx, card)


@router.delete("/{model_id}", status_code=204)
def delete_model(model_id: str, ctx: CtxDep) -> None:
    """Delete a card with all its files: its owner or an administrator. This cannot be undone."""
    delete_card(ctx, get_card(ctx, model_id))

"""Every SELECT on model cards."""

import sqlalchemy as sa
from sqlmodel import col

from visionsuit.core.errors import NotFound
from visionsuit.modelcards.tables import ModelCard, ModelVersion
from visionsuit.runtime import Ctx
from visionsuit.visibility import visible_to


class CardNotFound(NotFound):
    code = "model_not_found"


class VersionNotFound(NotFound):
    code = "version_not_found"


def get_card(ctx: Ctx, public_id: str) -> ModelCard:
    """
    Raises:
        CardNotFound: there is none, or the actor may not know of it.
    """
    found = find_card(ctx, public_id)
    if found is None:
        raise CardNotFound("There is no such model here, or it is not shared with you.")
    return found


def find_card(ctx: Ctx, public_id: str) -> ModelCard | None:
    query = sa.select(ModelCard).where(col(ModelCard.public_id) == public_id, visible_to(ctx.actor, ModelCard))
    return ctx.session.scalars(query).one_or_none()


def get_version(ctx: Ctx, card_id: str, version_id: str | None = None) -> tuple[ModelCard, ModelVersion]:
    """A card and one of its versions by public ids; the primary one without `version_id`.

    Raises:
        CardNotFound, VersionNotFound
    """
    card = get_card(ctx, card_id)
    query = sa.select(ModelVersion).where(col(ModelVersion.card_id) == card.id)
    if version_id is None:
        query = query.where(col(ModelVersion.is_primary).is_(True))
    else:
        query = query.where(col(ModelVersion.public_id) == version_id)
    version = ctx.session.scalars(query).one_or_none()
    if version is None:
        raise VersionNotFound("This model has no such version.")
    return card, version


def list_versions(ctx: Ctx, card: ModelCard) -> list[ModelVersion]:
    """All versions of a card that the caller has found visible: the primary one, then the newest."""
    query = (
        sa.select(ModelVersion)
        .where(col(ModelVersion.card_id) == card.id)
        .order_by(col(ModelVersion.is_primary).desc(), col(ModelVersion.id).desc())
    )
    return list(ctx.session.scalars(query))


def find_version_by_sha256(ctx: Ctx, sha256: str) -> tuple[ModelCard, ModelVersion] | None:
    """The oldest version with these bytes on a card that the actor sees."""
    query = (
        sa.select(ModelCard, ModelVersion)
        .join(ModelVersion, col(ModelVersion.card_id) == col(ModelCard.id))
        .where(col(ModelVersion.sha256) == sha256.lower(), visible_to(ctx.actor, ModelCard))
        .order_by(col(ModelVersion.id))
        .limit(1)
    )
    row = ctx.session.execute(query).first()
    return None if row is None else (row[0], row[1])

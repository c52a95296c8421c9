"""Every SELECT on model cards."""

import re
from collections.abc import Collection, Iterable

import sqlalchemy as sa
from sqlmodel import col

from visionsuit.core.errors import NotFound
from visionsuit.core.ids import is_id
from visionsuit.core.text import clean_line
from visionsuit.modelcards.tables import ModelCard, ModelType, ModelVersion
from visionsuit.runtime import Ctx
from visionsuit.search.document import Kind
from visionsuit.search.links import offers_cards
from visionsuit.search.listing import Listing, Source, list_assets
from visionsuit.search.plan import ListRequest, Sort
from visionsuit.search.tiles import CardRef
from visionsuit.visibility import visible_to

#: What tools write of a file's hash: all of its sha256, or its first 8 to 12 digits.
_HASH = re.compile(r"[0-9a-f]{8,64}")


class CardNotFound(NotFound):
    code = "model_not_found"


class VersionNotFound(NotFound):
    code = "version_not_found"


#: What a tile needs; descriptions stay where they are.
TILE_COLUMNS = [
    col(column)
    for column in (
        ModelCard.id,
        ModelCard.public_id,
        ModelCard.owner_id,
        ModelCard.title,
        ModelCard.tags,
        ModelCard.visibility,
        ModelCard.is_adult,
        ModelCard.is_reported,
        ModelCard.created_at,
        ModelCard.updated_at,
        ModelCard.type,
        ModelCard.base_model,
        ModelCard.family,
        ModelCard.trigger,
        ModelCard.cover_small_id,
        ModelCard.cover_large_id,
        ModelCard.cover_placeholder,
        ModelCard.cover_width,
        ModelCard.cover_height,
        ModelCard.downloads,
    )
]
SOURCE = Source(
    Kind.MODEL,
    ModelCard,
    TILE_COLUMNS,
    {Sort.TITLE: (sa.func.lower(col(ModelCard.title)), str), Sort.DOWNLOADS: (col(ModelCard.downloads), int)},
)


def list_cards(ctx: Ctx, request: ListRequest) -> Listing:
    """A page of tiles' rows that the actor finds in lists."""
    return list_assets(ctx, SOURCE, request)


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
    """The card, if the actor sees it."""
    found = find_cards(ctx, [public_id])
    return found[0] if found else None


def find_cards(ctx: Ctx, public_ids: Iterable[str]) -> list[ModelCard]:
    """Those of the cards that the actor sees, in the order of `public_ids`."""
    wanted = [public_id for public_id in dict.fromkeys(public_ids) if is_id(public_id)]
    query = sa.select(ModelCard).where(col(ModelCard.public_id).in_(wanted), visible_to(ctx.actor, ModelCard))
    found = {card.public_id: card for card in ctx.session.scalars(query)} if wanted else {}
    return [found[public_id] for public_id in wanted if public_id in found]


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
        query = query.where(col(ModelVersion.public_id) == (version_id if is_id(version_id) else ""))
    version = ctx.session.scalars(query).one_or_none()
    if version is None:
        raise VersionNotFound("This model has no such version.")
    return card, version


def find_card_by_name(ctx: Ctx, name: str, *, types: Collection[ModelType]) -> ModelCard | None:
    """The visible card that prompts mean by a name: its public id, title, or primary file's name without the ending,
    in that order, whatever the case. Of several, one of `types`, then the actor's own, then the oldest."""
    name = clean_line(name)
    card = find_card(ctx, name)
    if card is not None or not name:
        return card
    order = (
        sa.case((col(ModelCard.type).in_(list(types)), 0), else_=1),
        sa.case((col(ModelCard.owner_id) == (ctx.actor.user_id or 0), 0), else_=1),
        col(ModelCard.id),
    )
    query = sa.select(ModelCard).where(visible_to(ctx.actor, ModelCard)).order_by(*order).limit(1)
    # The database lowers both sides: SQLite knows A to Z only.
    by_title = query.where(sa.func.lower(col(ModelCard.title)) == sa.func.lower(name))
    by_file = query.join(ModelVersion, col(ModelVersion.card_id) == col(ModelCard.id)).where(
        col(ModelVersion.is_primary).is_(True),
        sa.func.lower(col(ModelVersion.file_name)) == sa.func.lower(f"{name}.safetensors"),
    )
    return ctx.session.scalars(by_title).first() or ctx.session.scalars(by_file).first()


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


def sizes_of(ctx: Ctx, card_ids: list[int]) -> dict[int, int]:
    """Bytes of the primary version: card primary key -> size."""
    query = sa.select(col(ModelVersion.card_id), col(ModelVersion.size_bytes)).where(
        col(ModelVersion.card_id).in_(card_ids), col(ModelVersion.is_primary).is_(True)
    )
    return {row.card_id: row.size_bytes for row in ctx.session.execute(query)}


@offers_cards
def find_cards_by_hash(ctx: Ctx, hashes: Iterable[str]) -> dict[str, CardRef]:
    """Hash, or at least its first 8 digits -> the oldest visible card with such a file."""
    column = col(ModelVersion.sha256)
    # "g" comes after every digit: a range that the index serves.
    ranges = [column.between(hash_, hash_ + "g") for hash_ in hashes if _HASH.fullmatch(hash_)]
    if not ranges:
        return {}
    query = (
        sa.select(col(ModelCard.public_id), col(ModelCard.title), column)
        .join(ModelVersion, col(ModelVersion.card_id) == col(ModelCard.id))
        .where(sa.or_(*ranges), visible_to(ctx.actor, ModelCard))
        .order_by(col(ModelVersion.id).desc())
    )
    rows = ctx.session.execute(query).all()
    return {
        hash_: CardRef(id=row.public_id, title=row.title)
        for hash_ in hashes
        for row in rows
        if row.sha256.startswith(hash_)
    }

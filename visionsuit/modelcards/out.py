"""Model cards as programs and pages see them."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from visionsuit.accounts.queries import owners_of
from visionsuit.core.ids import row_id
from visionsuit.modelcards.queries import list_versions, sizes_of
from visionsuit.modelcards.tables import ModelCard, ModelType
from visionsuit.runtime import Ctx
from visionsuit.search.document import Kind
from visionsuit.search.links import galleries_with
from visionsuit.search.tiles import GalleryRef, Thumb, Tile, make_thumb, tile_fields


class ModelTile(Tile):
    """`size_bytes` is that of the primary version; None if the card has lost its file."""

    kind: Literal["model"] = "model"
    type: ModelType
    base_model: str | None
    family: str | None
    trigger: str
    cover: Thumb | None
    downloads: int
    size_bytes: int | None
    updated_at: datetime


class VersionOut(BaseModel):
    id: str
    label: str
    primary: bool
    file_name: str
    size_bytes: int
    sha256: str
    download_url: str
    facts: dict[str, Any]
    created_at: datetime


class ModelDetail(ModelTile):
    description: str
    versions: list[VersionOut]
    galleries: list[GalleryRef]


def model_tiles(ctx: Ctx, rows: Iterable[Any]) -> list[ModelTile]:
    """Rows (or selected columns) that the caller has found visible, in their order."""
    held = list(rows)
    owners = owners_of(ctx, {row.owner_id for row in held})
    sizes = sizes_of(ctx, [row.id for row in held])
    return [
        ModelTile.model_validate(tile_fields(ctx.actor, row, owners) | _card(row) | {"size_bytes": sizes.get(row.id)})
        for row in held
    ]


def model_detail(ctx: Ctx, card: ModelCard) -> ModelDetail:
    versions = list_versions(ctx, card)
    return ModelDetail(
        **tile_fields(ctx.actor, card, owners_of(ctx, [card.owner_id])),
        **_card(card),
        size_bytes=versions[0].size_bytes if versions else None,
        description=card.description,
        versions=[
            VersionOut(
                id=version.public_id,
                label=version.label,
                primary=version.is_primary,
                file_name=version.file_name,
                size_bytes=version.size_bytes,
                sha256=version.sha256,
                download_url=f"/api/models/{card.public_id}/versions/{version.public_id}/download",
                facts=version.facts,
                created_at=version.created_at,
            )
            for version in versions
        ],
        galleries=galleries_with(ctx, Kind.MODEL, row_id(card)),
    )


def _card(row: Any) -> dict[str, Any]:
    return {
        "type": row.type,
        "base_model": row.base_model,
        "family": row.family,
        "trigger": row.trigger,
        "cover": make_thumb(
            row.cover_small_id, row.cover_large_id, row.cover_placeholder, row.cover_width, row.cover_height
        ),
        "downloads": row.downloads,
        "updated_at": row.updated_at,
    }

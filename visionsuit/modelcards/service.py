"""What can be done with model cards. Every change of a row goes through here, so that the search index follows."""

from collections.abc import Callable, Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import col

from visionsuit.core.clock import utcnow
from visionsuit.core.errors import Conflict, InvalidInput, NotSignedIn
from visionsuit.core.ids import row_id
from visionsuit.core.permissions import Permission, require
from visionsuit.core.text import clean_description, clean_line, clean_tags, clean_title, within
from visionsuit.modelcards.covers import Cover, put_cover
from visionsuit.modelcards.tables import DownloadCount, ModelCard, ModelType, ModelVersion
from visionsuit.objects import service as objects
from visionsuit.objects.service import Subject
from visionsuit.runtime import Ctx
from visionsuit.search import service as search
from visionsuit.search.document import Document, Kind, make_document
from visionsuit.search.edits import apply_edits
from visionsuit.visibility import Visibility

TRIGGER_CHARACTERS = 180
LABEL_CHARACTERS = 80
BASE_MODEL_CHARACTERS = 80
#: Of a file's training tags, the first this many are searched.
TRAINING_TAGS = 200


_before_deletion: list[Callable[[Ctx, ModelCard], None]] = []


def before_deletion(action: Callable[[Ctx, ModelCard], None]) -> Callable[[Ctx, ModelCard], None]:
    """Decorator, for higher features: `action(ctx, card)` runs in the transaction that deletes the card."""
    _before_deletion.append(action)
    return action


class LabelTaken(Conflict):
    code = "label_taken"


def create_card(
    ctx: Ctx,
    *,
    title: str,
    object_id: str,
    file_name: str,
    size_bytes: int,
    sha256: str,
    type: ModelType = ModelType.LORA,
    base_model: str | None = None,
    family: str | None = None,
    trigger: str = "",
    description: str = "",
    tags: Iterable[str] = (),
    visibility: Visibility = Visibility.PRIVATE,
    is_adult: bool = False,
    facts: dict[str, Any] | None = None,
    label: str = "v1",
    cover_object_id: str | None = None,
    cover_small_id: str | None = None,
    cover_large_id: str | None = None,
    cover_placeholder: str | None = None,
    cover_width: int | None = None,
    cover_height: int | None = None,
) -> ModelCard:
    """Card and primary version for a file whose bytes are stored already; the actor owns it.

    Args:
        object_id: file in bucket `models`. cover_*: picture and WebP thumbnails in bucket `previews`.
        base_model: as people say it ("SD 1.5"). family: as the engine compares it ("sd1").
        facts: what the file says about itself.

    Raises:
        NotSignedIn, NotPermitted: the actor may not upload.
        InvalidInput: a text is out of bounds.
    """
    require(ctx.actor, Permission.ASSETS_UPLOAD)
    if ctx.actor.user_id is None:
        raise NotSignedIn("A model card needs an owner.")
    card = ModelCard(
        owner_id=ctx.actor.user_id,
        title=clean_title(title),
        description=clean_description(description),
        tags=clean_tags(tags),
        visibility=Visibility(visibility),
        is_adult=is_adult,
        type=ModelType(type),
        base_model=clean_base_model(base_model),
        family=family,
        trigger=clean_trigger(trigger),
        cover_object_id=cover_object_id,
        cover_small_id=cover_small_id,
        cover_large_id=cover_large_id,
        cover_placeholder=cover_placeholder,
        cover_width=cover_width,
        cover_height=cover_height,
    )
    ctx.session.add(card)
    ctx.session.flush()
    add_version(
        ctx,
        card,
        label=label,
        object_id=object_id,
        file_name=file_name,
        size_bytes=size_bytes,
        sha256=sha256,
        facts=facts,
    )
    return card


def add_version(
    ctx: Ctx,
    card: ModelCard,
    *,
    label: str,
    object_id: str,
    file_name: str,
    size_bytes: int,
    sha256: str,
    facts: dict[str, Any] | None = None,
) -> ModelVersion:
    """One more file on a card. The first one is primary.

    Raises:
        NotPermitted: the card is somebody else's.
        LabelTaken: the card has a version of this label.
        InvalidInput: the label is empty or too long.
    """
    require(ctx.actor, Permission.ASSETS_EDIT, card)
    label = within(clean_line(label), LABEL_CHARACTERS, "label")
    if not label:
        raise InvalidInput("A version needs a label.", field="label")
    of_card = sa.select(col(ModelVersion.label)).where(col(ModelVersion.card_id) == card.id)
    labels = set(ctx.session.scalars(of_card))
    if label in labels:
        raise LabelTaken(f"This card has a version '{label}' already.", field="label")
    version = ModelVersion(
        card_id=row_id(card),
        label=label,
        object_id=object_id,
        file_name=clean_line(file_name)[-255:],
        size_bytes=size_bytes,
        sha256=sha256,
        facts=facts or {},
        is_primary=not labels,
    )
    ctx.session.add(version)
    ctx.session.flush()
    reindex(ctx, card)
    return version


def change_card(ctx: Ctx, card: ModelCard, edits: dict[str, Any], cover: Cover | None = None) -> ModelCard:
    """Set the named fields: title, description, type, base_model, trigger, tags, visibility, adult.

    Args:
        cover: files made by `copy_cover`; the old ones go.

    Raises:
        NotPermitted: neither owner nor administrator.
        InvalidInput: a text is out of bounds.
    """
    require(ctx.actor, Permission.ASSETS_EDIT, card)
    more: dict[str, Any] = {}
    if "type" in edits:
        more["type"] = ModelType(edits["type"] or ModelType.LORA)
    if "base_model" in edits:
        more["base_model"] = clean_base_model(edits["base_model"])
    if "trigger" in edits:
        more["trigger"] = clean_trigger(edits["trigger"] or "")
    if cover is not None:
        more |= put_cover(ctx, card, cover, is_adult=bool(edits.get("adult", card.is_adult)))
    apply_edits(ctx, card, edits, **more)
    reindex(ctx, card)
    return card


def delete_card(ctx: Ctx, card: ModelCard) -> None:
    """Remove the card for good: row, versions, index, places in galleries, and files once that is durable.

    Raises:
        NotPermitted: neither owner nor administrator.
    """
    require(ctx.actor, Permission.ASSETS_EDIT, card)
    for action in _before_deletion:
        action(ctx, card)
    objects.delete_of(ctx, Subject(Kind.MODEL, card.public_id))
    search.remove(ctx, Kind.MODEL, row_id(card))
    ctx.session.delete(card)
    ctx.session.flush()


def reindex(ctx: Ctx, card: ModelCard) -> None:
    """Bring the search index up to the rows. Whoever changes one by another way than these functions calls it."""
    versions = ctx.session.scalars(sa.select(ModelVersion).where(col(ModelVersion.card_id) == card.id))
    search.index(ctx, document_of(card, versions))


def document_of(card: ModelCard, versions: Iterable[ModelVersion]) -> Document:
    texts = [card.trigger]
    for version in versions:
        texts += [version.file_name, version.label]
        trained = version.facts.get("tags")
        texts += [str(tag) for tag in trained][:TRAINING_TAGS] if isinstance(trained, list | dict) else []
    names = [card.base_model, card.family]
    return make_document(Kind.MODEL, card, texts, type=card.type, base_models=names)


def count_download(ctx: Ctx, version: ModelVersion) -> None:
    """Count the actor's download, once a day and version."""
    if ctx.actor.user_id is None:
        return
    count = DownloadCount(account_id=ctx.actor.user_id, version_id=row_id(version), day=utcnow().date())
    insert = postgresql.insert if ctx.session.get_bind().dialect.name == "postgresql" else sqlite.insert
    counted = insert(DownloadCount).values(count.model_dump()).on_conflict_do_nothing()
    if ctx.session.execute(counted.returning(col(DownloadCount.version_id))).first() is None:
        return
    # In the database, so that two downloads at once are two.
    ctx.session.execute(
        sa.update(ModelCard)
        .where(col(ModelCard.id) == version.card_id)
        .values(downloads=ModelCard.downloads + 1)
        .execution_options(synchronize_session=False)
    )


def clean_trigger(text: str) -> str:
    return within(clean_line(text), TRIGGER_CHARACTERS, "trigger")


def clean_base_model(text: str | None) -> str | None:
    return within(clean_line(text), BASE_MODEL_CHARACTERS, "base_model") or None if text else None

"""A test sheet of every new LoRA, made by itself when nobody waits and shown on the card's page.

The request is the uploader's, the work is nobody's: it counts neither against a limit nor as a turn.
"""

from dataclasses import dataclass

import sqlalchemy as sa
import structlog
from sqlmodel import col, select

from visionsuit.accounts.identity import actor_of
from visionsuit.accounts.tables import Account
from visionsuit.core.actor import SYSTEM, Actor
from visionsuit.core.errors import AppError
from visionsuit.core.ids import row_id
from visionsuit.core.permissions import Permission, may
from visionsuit.engine.base import Family
from visionsuit.generation.base_models import list_offered
from visionsuit.generation.mix import MIXABLE, find_problem
from visionsuit.generation.order import Order
from visionsuit.generation.queries import is_file_of_image
from visionsuit.generation.service import check_ahead, remove, submit
from visionsuit.generation.sheets import order_test_sheet
from visionsuit.generation.tables import Generation, GenerationImage, LoraSheet
from visionsuit.jobs.tables import Job, JobState
from visionsuit.modelcards.queries import get_card, get_version
from visionsuit.modelcards.service import before_deletion
from visionsuit.modelcards.tables import ModelCard, ModelVersion
from visionsuit.runtime import Ctx, Runtime
from visionsuit.site.live import get_setting, may_generate
from visionsuit.uploads.published import when_model_is_published
from visionsuit.visibility import visible_to

log = structlog.get_logger()

#: The same for all, so that sheets of two LoRAs can be compared.
_SEED = 20


@dataclass(frozen=True, slots=True)
class CardSheet:
    """`picture` is None until it is rendered."""

    version_id: str
    generation: Generation
    job: Job
    picture: GenerationImage | None


@when_model_is_published
def plan_sheet(ctx: Ctx, card: ModelCard) -> None:
    """Queue a sheet of the card once it is there."""
    if card.type not in MIXABLE or not get_setting(ctx, "auto_test_sheets"):
        return
    runtime, owner_id, model_id = ctx.runtime, card.owner_id, card.public_id
    # Afterwards: the file may lie far away, and a card without a sheet is a card all the same.
    ctx.after_commit(lambda: _try_sheet(runtime, owner_id, model_id))


def queue_sheet(runtime: Runtime, owner_id: int | None, model_id: str) -> str | None:
    """Queue a sheet of a card's primary file on the first base model that it fits. Returns the request's id, or None
    where it fits none, or its owner may not render.

    Raises:
        AppError: the storage is out, or the request is refused.
    """
    owner = _find_owner(runtime, owner_id)
    if owner is None:
        return None
    base_model_id = _find_base(runtime, owner, model_id)
    if base_model_id is None:
        return None
    with runtime.open_ctx(owner, read_only=True) as ctx:
        card, version = get_version(ctx, model_id)
        wanted = Order(prompt="", base_model_id=base_model_id, seed=_SEED)
        order, sheet = order_test_sheet(ctx, wanted, card.public_id, version.public_id)
    order, prompts = check_ahead(runtime, owner, order, sheet, is_idle=True)
    with runtime.open_ctx(owner) as ctx:
        generation = submit(ctx, order, sheet, prompts=prompts, is_idle=True)
        ctx.session.add(LoraSheet(generation_id=row_id(generation), card_id=row_id(card), version_id=row_id(version)))
        return generation.public_id


def list_sheets(ctx: Ctx, model_id: str) -> list[CardSheet]:
    """Sheets of a card, newest first. Unfinished ones are for those who may edit it.

    Raises:
        CardNotFound: there is none, or the actor may not know of it.
    """
    card = get_card(ctx, model_id)
    rows = ctx.session.execute(
        select(col(ModelVersion.public_id), Generation, Job, GenerationImage)
        .select_from(LoraSheet)
        .join(ModelVersion, col(ModelVersion.id) == col(LoraSheet.version_id))
        .join(Generation, col(Generation.id) == col(LoraSheet.generation_id))
        .join(Job, col(Job.id) == col(Generation.job_id))
        .outerjoin(
            GenerationImage,
            sa.and_(
                col(GenerationImage.generation_id) == col(LoraSheet.generation_id),
                col(GenerationImage.is_sheet).is_(True),
            ),
        )
        .where(col(LoraSheet.card_id) == card.id)
        .order_by(col(LoraSheet.generation_id).desc())
    )
    found = [CardSheet(*row) for row in rows]
    if may(ctx.actor, Permission.ASSETS_EDIT, card):
        return found
    return [one for one in found if one.job.state == JobState.COMPLETED and one.picture is not None]


def is_on_card(ctx: Ctx, object_id: str) -> bool:
    """Whether this file of bucket `outputs` is shown on the page of a card that the actor sees."""
    image = GenerationImage
    query = (
        select(image.id)
        .join(LoraSheet, col(LoraSheet.generation_id) == col(image.generation_id))
        .join(ModelCard, col(ModelCard.id) == col(LoraSheet.card_id))
        .where(
            col(image.is_sheet).is_(True),
            is_file_of_image(object_id),
            visible_to(ctx.actor, ModelCard),
        )
    )
    return ctx.session.exec(query).first() is not None


@before_deletion
def delete_sheets(ctx: Ctx, card: ModelCard) -> None:
    """They go with their card, whatever becomes of what waits or runs."""
    rows = ctx.session.exec(
        select(Generation)
        .join(LoraSheet, col(LoraSheet.generation_id) == col(Generation.id))
        .where(col(LoraSheet.card_id) == card.id)
    )
    for generation in rows.all():
        remove(ctx, generation)


def _try_sheet(runtime: Runtime, owner_id: int | None, model_id: str) -> None:
    try:
        queue_sheet(runtime, owner_id, model_id)
    except AppError as error:
        log.info("no_lora_sheet", model=model_id, reason=error.message)


def _find_owner(runtime: Runtime, owner_id: int | None) -> Actor | None:
    """With all the rights of the account: the upload may have come with a token that has few."""
    with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        account = ctx.session.get(Account, owner_id)
        if account is None or not account.is_active:
            return None
        owner = actor_of(account)
        return owner if may_generate(ctx, owner) else None


def _find_base(runtime: Runtime, owner: Actor, model_id: str) -> str | None:
    with runtime.open_ctx(owner, read_only=True) as ctx:
        card, version = get_version(ctx, model_id)
        known = card.family not in (None, Family.OTHER)
        offered = sorted(list_offered(ctx), key=lambda row: not row.is_default)
        bases = [row for row in offered if not known or row.family == card.family]
        object_id = version.object_id
    # No transaction is open here: the file may lie far away.
    for base in bases:
        folder = runtime.settings.models_dir / base.folder
        if find_problem(runtime.storage, object_id, folder, base.key) is None:  # type: ignore[arg-type]  # by identity
            return base.public_id
    return None

"""Find the file behind an address and write the download down."""

import sqlalchemy as sa
from sqlmodel import col

from visionsuit.audit import service as audit
from visionsuit.core.actor import Actor
from visionsuit.core.permissions import Permission, require
from visionsuit.downloads.access import get_readable
from visionsuit.modelcards import queries as modelcards
from visionsuit.modelcards.service import count_download
from visionsuit.modelcards.tables import ModelCard, ModelVersion
from visionsuit.objects import service as objects
from visionsuit.objects.tables import StorageObject
from visionsuit.runtime import Ctx, Runtime
from visionsuit.storage.base import Bucket


def open_file(runtime: Runtime, actor: Actor, bucket: Bucket, object_id: str, *, counts: bool) -> StorageObject:
    """The file's row, if `actor` may read it. `counts`: the file is being fetched, and from its beginning.

    Raises:
        ObjectMissing, NotSignedIn, NotPermitted: see `access.get_readable`.
    """
    writes = counts and bucket is Bucket.MODELS
    with runtime.open_ctx(actor, read_only=not writes) as ctx:
        row = get_readable(ctx, bucket, object_id)
        if writes:
            query = (
                sa.select(ModelCard, ModelVersion)
                .join(ModelVersion, col(ModelVersion.card_id) == col(ModelCard.id))
                .where(col(ModelVersion.object_id) == object_id)
            )
            found = ctx.session.execute(query).first()
            if found is not None:
                _write_down(ctx, found[0], found[1])
        return row


def open_version(
    runtime: Runtime, actor: Actor, card_id: str, version_id: str, *, counts: bool
) -> tuple[ModelVersion, StorageObject]:
    """A version's file, if `actor` may download it.

    Raises:
        CardNotFound, VersionNotFound, NotSignedIn, NotPermitted
    """
    with runtime.open_ctx(actor, read_only=not counts) as ctx:
        card, version = modelcards.get_version(ctx, card_id, version_id)
        require(actor, Permission.ASSETS_DOWNLOAD)
        row = objects.get(ctx, Bucket.MODELS, version.object_id)
        if counts:
            _write_down(ctx, card, version)
        return version, row


def _write_down(ctx: Ctx, card: ModelCard, version: ModelVersion) -> None:
    count_download(ctx, version)
    audit.record(ctx, "model.download", card.public_id, {"version": version.public_id, "label": version.label})

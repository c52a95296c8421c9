"""Which files an actor may read: what a file belongs to decides, by the same rule as lists and pages."""

import sqlalchemy as sa
from sqlmodel import col

from visionsuit.core.permissions import Permission, require
from visionsuit.galleries.tables import Gallery
from visionsuit.generation.auto_sheets import is_on_card
from visionsuit.generation.service import KIND
from visionsuit.images.tables import Image
from visionsuit.modelcards.tables import ModelCard
from visionsuit.objects import service as objects
from visionsuit.objects.tables import StorageObject
from visionsuit.runtime import Ctx
from visionsuit.storage.base import Bucket, ObjectMissing
from visionsuit.visibility import Asset, visible_to

#: Subjects with an audience. Everything else (renders, exports, ...) is for its owner and administrators, but for the
#: test sheets on cards.
_ASSETS: dict[str, type[Asset]] = {"image": Image, "model": ModelCard, "gallery": Gallery}
_FOR_EVERYONE = frozenset({"avatar"})


def get_readable(ctx: Ctx, bucket: Bucket, object_id: str) -> StorageObject:
    """The file's row, if the actor may read the file.

    Raises:
        ObjectMissing: there is none, or the actor may not know of it.
        NotSignedIn, NotPermitted: a weights file, which needs an account.
    """
    row = objects.find(ctx, bucket, object_id)
    if row is None or not _may_read(ctx, row):
        raise ObjectMissing("There is no such file here, or it is not shared with you.")
    if bucket is Bucket.MODELS:
        require(ctx.actor, Permission.ASSETS_DOWNLOAD)
    return row


def _may_read(ctx: Ctx, row: StorageObject) -> bool:
    if row.subject_kind in _FOR_EVERYONE:
        return True
    table = _ASSETS.get(row.subject_kind)
    if table is None:
        if ctx.actor.is_admin or (ctx.actor.user_id is not None and row.owner_id == ctx.actor.user_id):
            return True
        return row.subject_kind == KIND and is_on_card(ctx, row.id)
    query = sa.select(sa.literal(1)).where(col(table.public_id) == row.subject_id, visible_to(ctx.actor, table))
    return ctx.session.execute(query).first() is not None

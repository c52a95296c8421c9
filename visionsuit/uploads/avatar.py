"""One's own avatar: replaced or taken away."""

from collections.abc import Iterator

from visionsuit.accounts.service import own_account
from visionsuit.accounts.tables import Account
from visionsuit.core.actor import Actor
from visionsuit.core.permissions import Permission, require
from visionsuit.media.avatars import make_avatar
from visionsuit.objects import service as objects
from visionsuit.runtime import Ctx, Runtime
from visionsuit.storage.base import Bucket
from visionsuit.uploads.errors import FileTooLarge, MissingFile
from visionsuit.uploads.multipart import read_parts


def receive_avatar(runtime: Runtime, actor: Actor, blocks: Iterator[bytes], boundary: bytes) -> Account:
    """The form's `file` becomes the avatar; every other field is skipped.

    Raises:
        MissingFile: no such field, or nothing in it.
        FileTooLarge: over `limits.avatar_bytes`; known as soon as it is, not once everything has arrived.
        UnsupportedPicture, PictureTooLarge, BadPicture
    """
    require(actor, Permission.PROFILE_EDIT)
    longest = runtime.settings.limits.avatar_bytes
    for part in read_parts(blocks, boundary):
        if part.name != "file" or part.file_name is None:
            continue
        data = bytearray()
        for piece in part.data:
            data += piece
            if len(data) > longest:
                raise FileTooLarge(f"An avatar has at most {longest / 1024**2:g} MB.", field="file")
        if data:
            return set_avatar(runtime, actor, bytes(data), part.file_name)
    raise MissingFile("Send the picture as the form field 'file'.", field="file")


def set_avatar(runtime: Runtime, actor: Actor, data: bytes, file_name: str = "") -> Account:
    """Make `data` (PNG, JPEG or WebP) the actor's avatar, visible to everybody, and remove the one before.

    Raises:
        UnsupportedPicture, PictureTooLarge, BadPicture
    """
    require(actor, Permission.PROFILE_EDIT)
    picture = make_avatar(data, file_name, max_pixels=runtime.settings.limits.image_pixels)
    stored = objects.write(runtime, Bucket.AVATARS, picture, mime=objects.WEBP, file_name="avatar.webp")
    with runtime.open_ctx(actor) as ctx:
        # First, so that the file goes again whatever happens below.
        ctx.after_rollback(lambda: runtime.storage.delete(Bucket.AVATARS, stored.object_id))
        account = own_account(ctx, lock=True)
        _drop_old(ctx, account)
        objects.adopt(ctx, stored, objects.Subject("avatar", account.public_id))
        account.avatar_object_id = stored.object_id
        return account


def remove_avatar(ctx: Ctx) -> None:
    """Go without; no error where there is none."""
    require(ctx.actor, Permission.PROFILE_EDIT)
    _drop_old(ctx, own_account(ctx, lock=True))


def _drop_old(ctx: Ctx, account: Account) -> None:
    if account.avatar_object_id:
        objects.delete(ctx, Bucket.AVATARS, account.avatar_object_id)
        account.avatar_object_id = None

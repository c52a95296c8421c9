"""Which driver the settings ask for."""

from visionsuit.core.config import Settings, StorageKind
from visionsuit.storage.base import Storage
from visionsuit.storage.folder import FolderStorage


def create_storage(settings: Settings) -> Storage:
    """The driver named by `settings.storage.kind`; call `prepare()` before first use."""
    if settings.storage.kind is StorageKind.S3:
        # boto3 takes a third of a second to import, which folder storage need not pay.
        from visionsuit.storage.s3 import S3Storage

        return S3Storage(settings.storage)
    return FolderStorage(settings.storage_folder)

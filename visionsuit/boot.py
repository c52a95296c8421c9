"""From settings to a Runtime, and what happens once before anything is served."""

import contextlib
import os
import secrets
import shutil
from pathlib import Path

from visionsuit.accounts.setup import prepare_first_admin
from visionsuit.core.config import Settings
from visionsuit.db import migrate, open_database
from visionsuit.engine.factory import create_engine
from visionsuit.generation.base_models import sync_base_models
from visionsuit.runtime import Runtime
from visionsuit.storage.factory import create_storage
from visionsuit.uploads.jobs import sweep_drafts


def build_runtime(settings: Settings) -> Runtime:
    """Everything that lives as long as the process. Touches the data folder, not the database's content."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    return Runtime(
        settings=settings,
        database=open_database(settings.database),
        storage=create_storage(settings),
        engine=create_engine(settings),
        secret=read_or_create_secret(settings.data_dir / "secret.key"),
    )


def prepare(runtime: Runtime) -> str | None:
    """Migrate, create buckets, remove what broken uploads left, register base models, see that somebody can get in.

    Returns the one-time link that makes the administrator, while there is no account.
    """
    migrate(runtime.database)
    runtime.storage.prepare()
    empty_scratch(runtime.settings.scratch_dir)
    sweep_drafts(runtime)
    sync_base_models(runtime)
    setup_path = prepare_first_admin(runtime)
    return address(runtime.settings) + setup_path if setup_path else None


def address(settings: Settings) -> str:
    """Where a browser on this machine finds the app."""
    if settings.public_url:
        return settings.public_url.rstrip("/")
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::", "") else settings.host
    return f"http://{host}:{settings.port}"


def read_or_create_secret(path: Path) -> bytes:
    """The signing secret: 32 random bytes, made once, readable by its owner only.

    Two processes may start at once: whoever links first wins, and both read the winner's.
    """
    if not path.exists():
        draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    secret = path.read_bytes()
    if len(secret) < 32:
        raise RuntimeError(
            f"{path} is damaged: {len(secret)} bytes instead of 32. Restore it, or delete it to end all sessions."
        )
    return secret


def empty_scratch(folder: Path) -> None:
    """Files on their way in when an earlier process died belong to nobody."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)

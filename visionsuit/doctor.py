"""Checks that `visionsuit doctor` runs, and what to do when one fails."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from visionsuit.core.errors import AppError
from visionsuit.engine.base import EngineError
from visionsuit.engine.catalog import list_base_models, read_base_model
from visionsuit.runtime import Runtime

#: A render library grows: below this, uploads and results are about to fail.
LOW_DISK_BYTES = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    ok: bool
    detail: str


def run_checks(runtime: Runtime) -> Iterator[Check]:
    """Every check, one after the other; none stops the next."""
    checks: dict[str, Callable[[Runtime], str]] = {
        "data folder": check_disk,
        "database": check_database,
        "storage": check_storage,
        "base models": check_base_models,
        "device": check_device,
    }
    for name, check in checks.items():
        try:
            yield Check(name, True, check(runtime))
        except (AppError, EngineError) as error:
            yield Check(name, False, error.message)
        except (OSError, SQLAlchemyError, CheckFailed) as error:
            yield Check(name, False, str(error).splitlines()[0])


class CheckFailed(Exception):
    """A check found something a person should mend; the text says what to do."""


def check_disk(runtime: Runtime) -> str:
    folder = runtime.settings.data_dir
    free = shutil.disk_usage(folder).free
    if free < LOW_DISK_BYTES:
        raise CheckFailed(f"Only {free / 1e9:.1f} GB free at {folder}. Free some space, or move VISIONSUIT_DATA_DIR.")
    return f"{folder.resolve()}, {free / 1e9:.0f} GB free"


def check_database(runtime: Runtime) -> str:
    with runtime.database.connect() as connection:
        connection.execute(text("SELECT 1"))
    return runtime.database.dialect.name


def check_storage(runtime: Runtime) -> str:
    runtime.storage.prepare()
    return runtime.settings.storage.kind


def check_base_models(runtime: Runtime) -> str:
    folder = runtime.settings.models_dir
    found = [read_base_model(path).label for path in list_base_models(folder)]
    if not found:
        raise CheckFailed(f"No base model in {folder.resolve()}. Put a diffusers folder or a checkpoint there.")
    return ", ".join(found)


def check_device(runtime: Runtime) -> str:
    runtime.engine.start()
    status = runtime.engine.status()
    if not status.ready:
        raise CheckFailed(status.detail or "The engine did not start.")
    return f"{status.name} on {status.device}"

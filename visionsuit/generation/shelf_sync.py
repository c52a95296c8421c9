"""The list of base models says what lies in the storage: offered once it is downloaded."""

import sqlalchemy as sa
from sqlmodel import col, select

from visionsuit.core.actor import SYSTEM
from visionsuit.generation.base_models import NOT_FETCHED
from visionsuit.generation.shelf import Shelf, is_single
from visionsuit.generation.tables import BaseModel, Origin
from visionsuit.runtime import Runtime

_GONE = "It is not downloaded, and no longer in the storage."


def sync_shelf(runtime: Runtime) -> None:
    """List what is new in the storage. A name that the models folder or the list has already is left alone.

    Raises:
        StorageUnavailable, BadManifest
    """
    # No transaction is open here: the storage may be far away.
    repos = Shelf(runtime.storage).read_all()
    models_dir = runtime.settings.models_dir
    with runtime.open_ctx(SYSTEM) as ctx:
        known = {row.folder: row for row in ctx.session.exec(select(BaseModel).with_for_update())}
        position = ctx.session.exec(select(sa.func.max(col(BaseModel.position)))).one() or 0
        for name, repo in sorted(repos.items()):
            if name in known or (models_dir / name).exists():
                continue
            position += 1
            row = BaseModel(
                folder=name,
                key="",
                label=name.removesuffix(".safetensors")[:180],
                family="",
                position=position,
                origin=Origin.STORAGE,
                repo_id=name,
                repo_file=name if is_single(name, repo.files) else None,
                trouble=NOT_FETCHED,
            )
            ctx.session.add(row)
        for name, row in known.items():
            if row.origin == Origin.STORAGE and not (models_dir / name).exists():
                row.trouble = NOT_FETCHED if name in repos else _GONE
                ctx.session.add(row)

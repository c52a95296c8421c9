"""A site in a temporary folder, as the app builds it, with one curator: what the benchmarks measure."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from visionsuit.accounts.identity import actor_of
from visionsuit.accounts.service import add_account
from visionsuit.boot import build_runtime, prepare
from visionsuit.core.actor import SYSTEM, Actor, Role
from visionsuit.core.config import Settings
from visionsuit.log import configure_logging
from visionsuit.runtime import Runtime


@contextmanager
def open_site(**settings: object) -> Iterator[tuple[Runtime, Actor]]:
    """Runtime on SQLite and folder storage, and the curator."""
    with tempfile.TemporaryDirectory(prefix="visionsuit-bench-") as folder:
        made = Settings(
            _env_file=None,
            data_dir=Path(folder) / "data",
            threads=1,
            log_level="ERROR",
            **settings,  # type: ignore[arg-type]
        )
        configure_logging(made)
        runtime = build_runtime(made)
        prepare(runtime)
        with runtime.open_ctx(SYSTEM) as ctx:
            account = add_account(ctx, email="b@example.org", name="Bench", password_hash="!", role=Role.CURATOR)
        yield runtime, actor_of(account)
        runtime.engine.close()
        runtime.database.dispose()

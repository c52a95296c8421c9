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
from visionsuit.generation import service as generation
from visionsuit.generation.order import Order
from visionsuit.generation.queries import get_with_job
from visionsuit.generation.schemas import GenerationOut
from visionsuit.generation.view import generations_out
from visionsuit.jobs.events import job_topic
from visionsuit.jobs.tables import JobState
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


def render_queued(runtime: Runtime, actor: Actor, order: Order) -> GenerationOut:
    """Submit, wait until a worker of this process is done, look at the result: what a page does, without HTTP."""

    with runtime.open_ctx(actor) as ctx:
        render, job = generation.submit_with_job(ctx, order)
        public_id, topic = render.public_id, job_topic(job.public_id)
    # Woken by the job's changes, as a page's event stream is.
    with runtime.bus.listen(topic, size=1000) as inbox:
        while True:
            with runtime.open_ctx(actor, read_only=True) as ctx:
                render, job = get_with_job(ctx, public_id)
                assert job.state not in (JobState.FAILED, JobState.CANCELLED), job.error_trace
                if job.state == JobState.COMPLETED:
                    return generations_out(ctx, [(render, job)])[0]
            while inbox.get(timeout=60)["kind"] != "changed":
                pass

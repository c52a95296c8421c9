"""The real application with a mock engine that takes its time, as a process that tests may kill.

python -m tests.generation.slow_app <data folder> <port> <seconds a step>
"""

import sys
from dataclasses import replace
from pathlib import Path

import uvicorn

from visionsuit.boot import build_runtime
from visionsuit.core.config import Settings
from visionsuit.db import create_schema
from visionsuit.engine.mock import MockEngine
from visionsuit.generation.base_models import sync_base_models
from visionsuit.main import create_api, guarded


def main() -> None:
    data_dir, port, step_delay_s = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    settings = Settings(_env_file=None, data_dir=data_dir, port=port)  # type: ignore[call-arg]
    runtime = replace(build_runtime(settings), engine=MockEngine(step_delay_s=step_delay_s))
    create_schema(runtime.database)
    runtime.storage.prepare()
    sync_base_models(runtime)
    uvicorn.run(
        guarded(create_api(runtime), runtime),
        host="127.0.0.1",
        port=port,
        log_level="warning",
        timeout_graceful_shutdown=3,
    )


if __name__ == "__main__":
    main()

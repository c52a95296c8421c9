"""Start VisionSuit: `python app.py`. Wiring only: settings -> Runtime -> REST -> pages -> serve."""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import uvicorn
from starlette.types import ASGIApp

from pages.shell import build_ui, mount
from visionsuit.boot import build_runtime, prepare
from visionsuit.core.config import Settings
from visionsuit.log import configure_logging
from visionsuit.main import create_api, guarded
from visionsuit.runtime import Runtime

#: The Blocks by themselves, where a host looks for them under this name.
demo = build_ui()


def create_app(runtime: Runtime) -> ASGIApp:
    """Everything that is served: REST first, pages mounted behind it, guards around both."""
    return guarded(mount(create_api(runtime), demo, runtime), runtime)


def main() -> None:
    """Read the settings, bring the data folder up to date, serve until told to stop."""
    settings = Settings()
    configure_logging(settings)
    runtime = build_runtime(settings)
    prepare(runtime)
    uvicorn.run(
        create_app(runtime),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
        server_header=False,
    )


if __name__ == "__main__":
    main()

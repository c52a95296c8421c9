"""Start VisionSuit: `python app.py`. Wiring only: settings -> Runtime -> REST -> pages -> serve."""

import gc
import os
import sys

if __name__ == "__main__":
    # What is imported stays: collecting while a hundred thousand objects come in costs a second of every start.
    gc.disable()
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import uvicorn
from starlette.types import ASGIApp

from pages.shell import build_ui, mount
from visionsuit.boot import address, build_runtime, prepare
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
    """Read the settings, then serve."""
    settings = Settings()
    configure_logging(settings)
    serve(build_runtime(settings))


def serve(runtime: Runtime) -> None:
    """Bring the data folder up to date, serve until told to stop."""
    settings = runtime.settings
    setup_link = prepare(runtime)
    sys.stdout.write(welcome(settings, setup_link))
    sys.stdout.flush()
    app = create_app(runtime)
    gc.freeze()
    gc.enable()
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
        server_header=False,
    )


def welcome(settings: Settings, setup_link: str | None) -> str:
    """What a person needs to get in."""
    lines = [f"{settings.site_title} is starting on {address(settings)} (stop it with Ctrl+C)."]
    if setup_link:
        lines += ["There is no account yet. Open this link once to become its administrator:", "", f"    {setup_link}"]
    return "\n" + "\n".join(lines) + "\n\n"


if __name__ == "__main__":
    main()

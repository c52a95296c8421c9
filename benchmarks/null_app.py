"""The real application with a model that takes no time: every picture is the same grey square, whose seed is said to
be when the model was called, in microseconds of the machine's clock.

python -m benchmarks.null_app
"""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from app import serve
from visionsuit.boot import build_runtime
from visionsuit.core.config import Settings
from visionsuit.engine.base import Phase, Picture, Progress, RenderRequest
from visionsuit.engine.mock import MockEngine
from visionsuit.log import configure_logging


class NullEngine(MockEngine):
    """A model that does nothing, in every size."""

    def render(
        self,
        request: RenderRequest,
        *,
        on_progress: Callable[[Progress], None],
        is_cancelled: Callable[[], bool],
    ) -> list[Picture]:
        called_us = time.monotonic_ns() // 1000
        on_progress(Progress(Phase.DENOISING, request.steps, request.steps))
        pixels = np.full((request.height, request.width, 3), 100, np.uint8)
        return [Picture(pixels, called_us) for _ in request.seeds]


def main() -> None:
    settings = Settings()
    configure_logging(settings)
    serve(replace(build_runtime(settings), engine=NullEngine()))


if __name__ == "__main__":
    main()

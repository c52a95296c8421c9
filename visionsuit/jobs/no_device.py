"""The engine of workers whose jobs need no device."""

from collections.abc import Callable

from visionsuit.engine.base import EngineNotReady, EngineStatus, Picture, Progress, RenderRequest


class NoDevice:
    """Always ready, and renders nothing; one job at once."""

    concurrency = 1

    def start(self) -> None:
        """Nothing to start."""

    def render(
        self, request: RenderRequest, *, on_progress: Callable[[Progress], None], is_cancelled: Callable[[], bool]
    ) -> list[Picture]:
        raise EngineNotReady("This worker does not render.")

    def status(self) -> EngineStatus:
        return EngineStatus(name="none", device="", ready=True)

    def close(self) -> None:
        """Nothing to free."""

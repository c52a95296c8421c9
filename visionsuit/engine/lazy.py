"""An engine that is built when it starts, so that the process is up before torch is imported."""

import threading
from collections.abc import Callable

from visionsuit.engine.base import Engine, EngineNotReady, EngineStatus, Picture, Progress, RenderRequest


class LazyEngine:
    """Stands in for the engine that `build` makes; `build` runs inside `start`, and again in a later `start` if it
    failed.

    Args:
        name: shown by `status` before the start.
        build: imports libraries and returns the real engine, not yet started.
    """

    def __init__(self, name: str, build: Callable[[], Engine]) -> None:
        self._name = name
        self._build = build
        self._engine: Engine | None = None
        self._detail = "Starts with the first worker."
        self._is_hopeful = True
        self._starting = threading.Lock()

    @property
    def concurrency(self) -> int:
        engine = self._engine
        return engine.concurrency if engine else 1

    def start(self) -> None:
        with self._starting:
            if self._engine is not None:
                return
            self._detail = "Loading libraries and looking for the device."
            self._is_hopeful = True
            try:
                engine = self._build()
                engine.start()
            except Exception as error:
                self._detail = f"The engine did not start: {error}"
                self._is_hopeful = False
                raise
            self._engine = engine

    def render(
        self, request: RenderRequest, *, on_progress: Callable[[Progress], None], is_cancelled: Callable[[], bool]
    ) -> list[Picture]:
        engine = self._engine
        if engine is None:
            raise EngineNotReady(f"The generator is not ready. {self._detail}")
        return engine.render(request, on_progress=on_progress, is_cancelled=is_cancelled)

    def status(self) -> EngineStatus:
        engine = self._engine
        if engine is None:
            return EngineStatus(name=self._name, device="", ready=False, detail=self._detail, starting=self._is_hopeful)
        return engine.status()

    def close(self) -> None:
        with self._starting:
            if self._engine is not None:
                self._engine.close()
                self._engine = None
                self._detail = "Closed."
                self._is_hopeful = False

"""The engine that the settings ask for. Importing this loads no torch."""

import os

from visionsuit.core.config import EngineKind, Settings
from visionsuit.engine.base import Engine
from visionsuit.engine.lazy import LazyEngine
from visionsuit.engine.mock import MockEngine

#: Weights are local files: nothing here may ask the network for them, or tell anybody about them.
_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def create_engine(settings: Settings) -> Engine:
    """An engine that is not started; torch and diffusers are imported by its `start`."""
    if settings.engine is EngineKind.MOCK:
        return MockEngine()

    def build() -> Engine:
        for name, value in _OFFLINE.items():
            os.environ.setdefault(name, value)
        from visionsuit.engine.diffusers_engine import DiffusersEngine

        return DiffusersEngine(device=settings.device, threads=settings.threads, offload=settings.engine_offload)

    return LazyEngine("diffusers", build)

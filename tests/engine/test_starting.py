import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.tiny import DEMO
from visionsuit.core.config import EngineKind, Settings
from visionsuit.engine.base import EngineError, EngineNotReady, RenderRequest
from visionsuit.engine.catalog import read_base_model
from visionsuit.engine.factory import create_engine
from visionsuit.engine.mock import MockEngine

ROOT = Path(__file__).resolve().parents[2]


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_but_start_imports_torch() -> None:
    names = ("base", "catalog", "compat", "describe", "factory", "header", "lazy", "lora_names", "mock")
    imports = "; ".join(f"import visionsuit.engine.{name}" for name in names)
    output = run(
        f"import sys; {imports}; from visionsuit.core.config import Settings; "
        "engine = visionsuit.engine.factory.create_engine(Settings(_env_file=None)); print(engine.status().ready); "
        "print([name for name in ('torch', 'diffusers', 'transformers', 'peft') if name in sys.modules])"
    )
    assert output.split() == ["False", "[]"]


def test_an_engine_that_is_not_started_says_so(settings: Settings) -> None:
    engine = create_engine(settings)
    assert engine.concurrency == 1
    assert engine.status().starting
    request = RenderRequest(read_base_model(DEMO).ref, "x", "", 64, 64, 1, 1.0, (1,), "euler")
    with pytest.raises(EngineNotReady):
        engine.render(request, on_progress=lambda _: None, is_cancelled=lambda: False)
    engine.start()
    assert engine.status().ready
    assert len(engine.render(request, on_progress=lambda _: None, is_cancelled=lambda: False)) == 1
    engine.close()
    assert not engine.status().ready


def test_a_device_that_is_not_there(settings: Settings) -> None:
    engine = create_engine(settings.model_copy(update={"device": "abacus"}))
    with pytest.raises(EngineError, match="abacus"):
        engine.start()
    assert not engine.status().ready
    assert not engine.status().starting
    assert "abacus" in engine.status().detail


def test_the_settings_choose(settings: Settings) -> None:
    assert isinstance(create_engine(settings.model_copy(update={"engine": EngineKind.MOCK})), MockEngine)

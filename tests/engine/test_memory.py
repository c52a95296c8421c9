import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import Renderer
from tests.engine.tiny import make_tiny_sd
from visionsuit.engine.base import ModelUnloadable
from visionsuit.engine.catalog import read_base_model
from visionsuit.engine.diffusers_engine import DiffusersEngine

ROOT = Path(__file__).resolve().parents[2]


def test_base_models_are_bounded_with_room_for_one(tmp_path: Path) -> None:
    models = {name: read_base_model(make_tiny_sd(tmp_path / name, seed=seed)) for seed, name in enumerate("abc")}
    size = models["a"].weights_bytes
    roomy = DiffusersEngine(device="cpu", threads=1, model_budget_bytes=int(size * 3.5))
    narrow = DiffusersEngine(device="cpu", threads=1, model_budget_bytes=1)
    for engine, kept in ((roomy, ("b", "c")), (narrow, ("c",))):
        engine.start()
        for name in "abc":
            Renderer(engine, models)(name, steps=1)
        assert engine.status().loaded_models == kept
        engine.close()
        assert engine.status().loaded_models == ()


def test_broken_weights_are_named(tmp_path: Path, engine: DiffusersEngine) -> None:
    folder = make_tiny_sd(tmp_path / "cut")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    renderer = Renderer(engine, {"cut": read_base_model(folder)})
    with pytest.raises(ModelUnloadable, match="cut cannot be loaded"):
        renderer("cut")


@pytest.fixture(scope="module")
def within_limits() -> dict[str, Any]:
    """What a process says that renders under real limits on its memory, as a device's memory is limited."""
    code = """
import json, resource
from tests.engine.conftest import Renderer
from tests.engine.tiny import DEMO
from visionsuit.engine.base import OutOfDeviceMemory
from visionsuit.engine.catalog import read_base_model
from visionsuit.engine.diffusers_engine import DiffusersEngine

def set_limit(more_bytes):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more_bytes if more_bytes else -1, -1))

engine = DiffusersEngine(device="cpu", threads=1)
engine.start()
renderer = Renderer(engine, {"demo": read_base_model(DEMO)})
said = {}

[before] = renderer("demo", steps=1)
set_limit(2**28)
try:
    renderer("demo", steps=1, size=(4096, 4096), seeds=(1, 2))
except OutOfDeviceMemory as error:
    said["message"] = error.message
[after] = renderer("demo", steps=1)
said["same after it"] = bool((before == after).all())
set_limit(None)

options = {"steps": 2, "size": (160, 160)}
[last] = renderer("demo", seeds=(7,), **options)
calls = engine.status().extra["unet_calls"]
set_limit(50 * 2**20)
# From the first step that some have made on, there is enough.
pictures = renderer(
    "demo", seeds=tuple(range(8)), on_progress=lambda progress: progress.step and set_limit(None), **options
)
said["pictures"] = len(pictures)
said["same as alone"] = bool(abs(pictures[7] - last).max() <= 2)
said["calls"] = engine.status().extra["unet_calls"] - calls
engine.close()
print(json.dumps(said))
"""
    # Every tensor is mapped by itself, so that what is freed is not kept for the next and the limit holds.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_MMAP_MAX_": "1000000"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_out_of_memory_is_a_clear_error_and_the_engine_lives_on(within_limits: dict[str, Any]) -> None:
    assert within_limits["message"].startswith("4096x4096 pixels need more memory")
    assert within_limits["same after it"]


def test_a_batch_that_is_too_large_shrinks_and_loses_no_picture(within_limits: dict[str, Any]) -> None:
    """Eight pictures need more than there is, fewer do not: all come out, in more calls."""
    assert within_limits["pictures"] == 8
    assert within_limits["same as alone"]
    assert within_limits["calls"] > 2, "all went in one batch: nothing was wanting"

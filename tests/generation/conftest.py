"""A site with the demo model, a worker on the mock engine, and LoRA cards made of numpy."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from safetensors.numpy import save

from tests.jobs.conftest import until
from visionsuit.core.actor import Actor
from visionsuit.engine.compat import read_base_shapes
from visionsuit.engine.lora_names import Component
from visionsuit.engine.mock import MockEngine
from visionsuit.generation import service
from visionsuit.generation.base_models import sync_base_models
from visionsuit.generation.order import Order
from visionsuit.generation.schemas import GenerationOut
from visionsuit.generation.view import generation_out
from visionsuit.jobs.worker import Worker
from visionsuit.main import guarded
from visionsuit.modelcards.service import create_card
from visionsuit.modelcards.tables import ModelCard, ModelType
from visionsuit.objects.service import Subject, store
from visionsuit.runtime import Runtime
from visionsuit.schedule import HANDLERS
from visionsuit.storage.base import Bucket
from visionsuit.visibility import Visibility

MODELS_DIR = Path(__file__).parents[2] / "models_cache"
FINISHED = ("completed", "failed", "cancelled")


@pytest.fixture
def site(runtime: Runtime) -> Runtime:
    """The shared runtime with its base models registered."""
    sync_base_models(runtime)
    return runtime


@pytest.fixture
def engine(site: Runtime) -> MockEngine:
    assert isinstance(site.engine, MockEngine)
    return site.engine


@pytest.fixture
def start_worker(site: Runtime) -> Iterator[Callable[[], Worker]]:
    workers: list[Worker] = []

    def start() -> Worker:
        worker = Worker(site, HANDLERS, warm_up_after_s=0)
        worker.start()
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.stop()


@pytest.fixture
def worker(start_worker: Callable[[], Worker]) -> Worker:
    return start_worker()


@pytest.fixture
def url(api: FastAPI, site: Runtime) -> Iterator[str]:
    config = uvicorn.Config(
        guarded(api, site), host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def run_commands(environment: dict[str, str], *commands: str) -> list[tuple[int, str]]:
    """Exit status and output of `visionsuit <command>` for each of them, in one process: a start takes seconds."""
    code = """
import sys
from visionsuit.cli import main

for command in sys.argv[1:]:
    sys.argv = ["visionsuit", *command.split()]
    try:
        main()
    except SystemExit as end:
        print(f"\\0{end.code or 0}", end="\\0")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *commands], env=environment, capture_output=True, text=True, check=True
    )
    told = done.stdout.split("\0")
    return [(int(status), output) for output, status in zip(told[::2], told[1::2], strict=False)]


def order(prompt: str = "a red cat", **more: object) -> Order:
    """Small and quick."""
    return Order(**{"prompt": prompt, "steps": 3, "seed": 7, **more})  # type: ignore[arg-type]


def submit(runtime: Runtime, actor: Actor, wanted: Order | None = None) -> str:
    with runtime.open_ctx(actor) as ctx:
        return service.submit(ctx, wanted or order()).public_id


def show(runtime: Runtime, actor: Actor, generation_id: str) -> GenerationOut:
    with runtime.open_ctx(actor, read_only=True) as ctx:
        return generation_out(ctx, generation_id)


def finished(runtime: Runtime, actor: Actor, generation_id: str, timeout_s: float = 30) -> GenerationOut:
    until(lambda: show(runtime, actor, generation_id).status in FINISHED, timeout_s)
    return show(runtime, actor, generation_id)


def make_card(
    runtime: Runtime,
    owner: Actor,
    title: str = "Line art",
    *,
    data: bytes | None = None,
    visibility: Visibility = Visibility.PUBLIC,
    type: ModelType = ModelType.LORA,
) -> ModelCard:
    """A card whose file is a LoRA that fits the demo model (or `data`)."""
    content = lora_bytes(seed=len(title)) if data is None else data
    with runtime.open_ctx(owner) as ctx:
        file = store(ctx, Bucket.MODELS, content, Subject("model", "x"), mime="application/octet-stream")
        return create_card(
            ctx,
            title=title,
            object_id=file.id,
            file_name=f"{title.lower().replace(' ', '_')}.safetensors",
            size_bytes=len(content),
            sha256=sha256(content).hexdigest(),
            visibility=visibility,
            type=type,
            trigger="lineart",
        )


def lora_bytes(*, seed: int = 0, inputs: int | None = None) -> bytes:
    """A rank-2 LoRA on two layers of the demo model; `inputs` makes its width wrong."""
    shapes = read_base_shapes(MODELS_DIR / "demo").index.shapes[Component.UNET]
    names = [name for name in sorted(shapes) if name.endswith("attn2.to_k")][:2]
    random = np.random.default_rng(seed)
    tensors = {}
    for name in names:
        out_width, in_width = shapes[name][:2]
        tensors[f"unet.{name}.lora_A.weight"] = random.normal(size=(2, inputs or in_width)).astype(np.float32)
        tensors[f"unet.{name}.lora_B.weight"] = random.normal(size=(out_width, 2)).astype(np.float32)
    return save(tensors)

"""B6: what it costs to accept a request, hand it to a worker and hand the picture back, with an engine that takes no
time, against Gradio's own queue with a function that takes none. Both over HTTP, each in a process of its own.

Ours stores the picture as PNG with its recipe, a thumbnail and rows in the database; Gradio writes a file. What of
that is queue, files and database is taken without HTTP too.
"""

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.harness import NOISE, Figure, at_once, compare, interleave, noise
from benchmarks.site import open_site, render_queued
from tests.server import Server, free_port
from visionsuit.engine.base import RenderRequest
from visionsuit.generation.base_models import get_offered, ref_of
from visionsuit.generation.order import Order
from visionsuit.jobs.worker import Worker
from visionsuit.schedule import HANDLERS

SIZE = 64
PEOPLE = 4
JOBS_EACH = 10

_GRADIO = """
import sys
import gradio as gr
import numpy as np

PICTURE = np.full((64, 64, 3), 100, np.uint8)
page = gr.Interface(lambda prompt: PICTURE, "text", "image", api_name="paint", concurrency_limit=8)
page.launch(server_port=int(sys.argv[1]), quiet=True)
"""

#: What any queue over HTTP costs here at least: it neither checks, keeps nor makes anything.
_NOTHING = """
import sys
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

app = FastAPI()

@app.get("/config")
def config() -> dict:
    return {}

@app.post("/api/generations", status_code=202)
def create(body: dict) -> dict:
    return {"id": "1"}

@app.get("/api/generations/{id}/events")
async def events(id: str) -> StreamingResponse:
    async def stream():
        yield 'event: done\\ndata: {"status": "completed", "images": [{"url": "/"}]}\\n\\n'
    return StreamingResponse(stream(), media_type="text/event-stream")

uvicorn.run(app, port=int(sys.argv[1]), log_level="error")
"""


@contextmanager
def _serve(folder: Path, name: str, code: str) -> Iterator[str]:
    program, port = folder / f"{name}.py", free_port()
    program.write_text(code)
    environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(folder / "gradio")}
    process = subprocess.Popen(
        [sys.executable, str(program), str(port)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                httpx.get(f"{url}/config", timeout=2).raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        yield url
    finally:
        process.kill()
        process.wait()


def _gradio_job(client: httpx.Client, index: int) -> bool:
    session = uuid.uuid4().hex
    body = {"data": ["red heart"], "fn_index": index, "session_hash": session}
    client.post("/gradio_api/queue/join", json=body).raise_for_status()
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as answer:
        for line in answer.iter_lines():
            if line.startswith("data:"):
                message = json.loads(line[5:])
                if message["msg"] == "process_completed":
                    return bool(message["success"] and message["output"]["data"][0]["url"])
    return False


def _our_job(client: httpx.Client) -> bool:
    made = client.post(
        "/api/generations", json={"prompt": "red heart", "steps": 1, "width": SIZE, "height": SIZE}
    ).raise_for_status()
    with client.stream("GET", f"/api/generations/{made.json()['id']}/events") as answer:
        event = ""
        for line in answer.iter_lines():
            if line.startswith("event:"):
                event = line[6:].strip()
            elif line.startswith("data:") and event == "done":
                state = json.loads(line[5:])
                return bool(state["status"] == "completed" and state["images"][0]["url"])
    return False


def _many(jobs: list[Callable[[], bool]]) -> bool:
    """Each in a thread of its own, ten times."""
    answers: list[bool] = []

    def person(number: int) -> None:
        for _ in range(JOBS_EACH):
            answers.append(jobs[number]())

    at_once(person, len(jobs))
    return len(answers) == len(jobs) * JOBS_EACH and all(answers)


def run() -> list[Figure]:
    with (
        tempfile.TemporaryDirectory(prefix="visionsuit-bench-") as name,
        _serve(Path(name), "plain", _GRADIO) as plain,
        _serve(Path(name), "nothing", _NOTHING) as nothing,
        Server(Path(name) / "data", VISIONSUIT_LOG_LEVEL="ERROR") as server,
    ):
        figures = _figures(server, plain, nothing)
    return [*figures, _cost()]


def _figures(server: Server, plain: str, nothing: str) -> list[Figure]:
    people = []
    for number in range(PEOPLE):
        client = httpx.Client(base_url=server.url, timeout=60)
        account = {"email": f"p{number}@example.org", "password": "a long password", "name": f"Person {number}"}
        token = client.post("/api/auth/register", json=account).raise_for_status().json()["token"]
        client.headers["Authorization"] = f"Bearer {token}"
        people.append(client)
    gradio = [httpx.Client(base_url=plain, timeout=60) for _ in range(PEOPLE)]
    bare = httpx.Client(base_url=nothing, timeout=60)
    dependencies = gradio[0].get("/config").json()["dependencies"]
    index = next(one["id"] for one in dependencies if one["api_name"] == "paint")
    right = {"ours": True, "theirs": True}

    def ours() -> None:
        right["ours"] &= all(_our_job(people[0]) for _ in range(JOBS_EACH))

    def theirs() -> None:
        right["theirs"] &= all(_gradio_job(gradio[0], index) for _ in range(JOBS_EACH))

    def floor() -> None:
        right["ours"] &= all(_our_job(bare) for _ in range(JOBS_EACH))

    def ours_at_once() -> None:
        right["ours"] &= _many([lambda client=client: _our_job(client) for client in people])  # type: ignore[misc]

    def theirs_at_once() -> None:
        right["theirs"] &= _many([lambda client=client: _gradio_job(client, index) for client in gradio])  # type: ignore[misc]

    def correct() -> bool:
        return all(right.values())

    one = compare(
        "B6", f"{JOBS_EACH} requests one after another, null model / Gradio's queue", ours, theirs,
        target=0.4, rounds=7, correct=correct,
    )  # fmt: skip
    many = compare(
        "B6", f"{PEOPLE} people's {PEOPLE * JOBS_EACH} requests, null model / Gradio's queue, jobs a second",
        ours_at_once, theirs_at_once, target=5, rounds=5, faster_is_more=True, correct=correct,
    )  # fmt: skip
    least = compare(
        "B6", "a request and an event stream that do nothing, the floor of both / Gradio's queue", floor, theirs,
        target=0.4, rounds=7, correct=correct,
    )  # fmt: skip
    return [one, many, least]


def _cost() -> Figure:
    """What the queue adds to the engine, per picture: request checked and written, turn taken, picture, thumbnails and
    rows stored, result read."""
    with open_site(engine="mock") as (runtime, actor):
        worker = Worker(runtime, HANDLERS, warm_up_after_s=0)
        worker.start()
        order = Order("red heart", steps=1, width=SIZE, height=SIZE)
        with runtime.open_ctx(actor, read_only=True) as ctx:
            ref = ref_of(runtime, get_offered(ctx, None))
        request = RenderRequest(ref, "red heart", "", SIZE, SIZE, 1, 4.0, (1,), "dpmpp_2m", "trailing")

        # As the app does once it is up: what stays for ever is not looked through again and again.
        gc.collect()
        gc.freeze()

        def queued() -> None:
            for _ in range(JOBS_EACH):
                render_queued(runtime, actor, order)

        def alone() -> None:
            for _ in range(JOBS_EACH):
                runtime.engine.render(request, on_progress=lambda _: None, is_cancelled=lambda: False)

        try:
            with_queue, without = interleave(queued, alone, rounds=11, warm_up=2)
        finally:
            worker.stop()
    each_ms = (min(with_queue) - min(without)) / JOBS_EACH * 1000
    return Figure(
        "B6", "queue, files and database per picture, beside the engine / 20 ms", each_ms, 20.0, "ms",
        each_ms / 20, "<= 1", each_ms <= 20, "noisy" if noise(with_queue) > NOISE else "",
    )  # fmt: skip

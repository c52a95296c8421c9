"""B6: what it costs to accept a request, hand it to a worker and hand the picture back, with a model that takes no
time, against Gradio's own queue with a function that takes none. Both over HTTP, each in a process of its own.

Ours stores the picture as PNG with its recipe, a thumbnail and rows in the database; Gradio writes a file. A script
may follow a request by its events, which is what Gradio's clients do, or prefer to wait for the answer. What of that
is queue, files and database is taken without HTTP too.
"""

import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

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
HAND_OVERS = 100

_GRADIO = """
import sys
import time
import gradio as gr
import numpy as np

PICTURE = np.full((64, 64, 3), 100, np.uint8)

def paint(prompt):
    return PICTURE, str(time.monotonic())

page = gr.Interface(paint, "text", ["image", "text"], api_name="paint", concurrency_limit=8)
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
        yield 'event: done\\ndata: {"status": "completed", "images": [{"url": "/", "seed": 0}]}\\n\\n'
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


#: A request until its picture is there. Answers when its model was called, by the machine's clock; None: no picture.
Job = Callable[[httpx.Client], float | None]


def _gradio_job(index: int, client: httpx.Client) -> float | None:
    session = uuid.uuid4().hex
    body = {"data": ["red heart"], "fn_index": index, "session_hash": session}
    client.post("/gradio_api/queue/join", json=body).raise_for_status()
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as answer:
        for line in answer.iter_lines():
            if line.startswith("data:"):
                message = json.loads(line[5:])
                if message["msg"] == "process_completed":
                    picture, called = message["output"]["data"]
                    return float(called) if message["success"] and picture["url"] else None
    return None


_BODY = {"prompt": "red heart", "steps": 1, "width": SIZE, "height": SIZE}


def _watched_job(client: httpx.Client) -> float | None:
    made = client.post("/api/generations", json=_BODY).raise_for_status()
    with client.stream("GET", f"/api/generations/{made.json()['id']}/events") as answer:
        event = ""
        for line in answer.iter_lines():
            if line.startswith("event:"):
                event = line[6:].strip()
            elif line.startswith("data:") and event == "done":
                return _called(json.loads(line[5:]))
    return None


def _waited_job(client: httpx.Client) -> float | None:
    answer = client.post("/api/generations", json=_BODY, headers={"Prefer": "wait=30"}).raise_for_status()
    return _called(answer.json())


def _called(render: dict[str, Any]) -> float | None:
    if render["status"] != "completed" or not render["images"][0]["url"]:
        return None
    return float(render["images"][0]["seed"] / 1e6)


def _many(jobs: list[Callable[[], float | None]]) -> bool:
    """Each in a thread of its own, ten times."""
    answers: list[float | None] = []

    def person(number: int) -> None:
        for _ in range(JOBS_EACH):
            answers.append(jobs[number]())

    at_once(person, len(jobs))
    return len(answers) == len(jobs) * JOBS_EACH and None not in answers


def run() -> list[Figure]:
    with (
        tempfile.TemporaryDirectory(prefix="visionsuit-bench-") as name,
        _serve(Path(name), "plain", _GRADIO) as plain,
        _serve(Path(name), "nothing", _NOTHING) as nothing,
        Server(Path(name) / "data", program=("-m", "benchmarks.null_app"), VISIONSUIT_LOG_LEVEL="ERROR") as server,
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
    theirs = partial(_gradio_job, index)
    right = True

    def alone(job: Job, client: httpx.Client) -> Callable[[], None]:
        """One person's requests, one after another."""

        def run() -> None:
            nonlocal right
            right &= all(job(client) is not None for _ in range(JOBS_EACH))

        return run

    def together(job: Job, clients: list[httpx.Client]) -> Callable[[], None]:
        """Each person's, all at once."""

        def run() -> None:
            nonlocal right
            right &= _many([partial(job, client) for client in clients])

        return run

    def figure(what: str, ours: Callable[[], None], reference: Callable[[], None]) -> Figure:
        return compare("B6", f"{what} / Gradio's queue", ours, reference, target=0.4, rounds=9, correct=lambda: right)

    def rate(what: str, ours: Callable[[], None], reference: Callable[[], None]) -> Figure:
        return compare(
            "B6", f"{what} / Gradio's queue, jobs a second", ours, reference,
            target=5, rounds=7, faster_is_more=True, correct=lambda: right,
        )  # fmt: skip

    return [
        figure(f"{JOBS_EACH} requests one by one, waited for", alone(_waited_job, people[0]), alone(theirs, gradio[0])),
        figure(f"{JOBS_EACH} requests one by one, by events", alone(_watched_job, people[0]), alone(theirs, gradio[0])),
        rate(
            f"{PEOPLE * JOBS_EACH} of {PEOPLE} people, waited for",
            together(_waited_job, people),
            together(theirs, gradio),
        ),
        rate(
            f"{PEOPLE * JOBS_EACH} of {PEOPLE} people, by events",
            together(_watched_job, people),
            together(theirs, gradio),
        ),
        _hand_over(people[0], gradio[0], theirs),
        figure("a request and an event stream that do nothing", alone(_watched_job, bare), alone(theirs, gradio[0])),
    ]


def _hand_over(ours: httpx.Client, gradio: httpx.Client, theirs: Job) -> Figure:
    """From the request to the call of the model, which says when it was called: clocks of one machine."""
    taken: tuple[list[float], list[float]] = [], []

    def side(times: list[float], job: Job, client: httpx.Client) -> None:
        began = time.monotonic()
        called = job(client)
        assert called is not None
        times.append(called - began)

    for _ in range(HAND_OVERS):
        side(taken[0], _waited_job, ours)
        side(taken[1], theirs, gradio)
    mine, reference = (statistics.median(times[HAND_OVERS // 10 :]) for times in taken)
    noisy = max(noise(sorted(times)[: HAND_OVERS // 2]) for times in taken) > NOISE
    return Figure(
        "B6", "from a request to the call of the null model / Gradio's queue", mine, reference, "s",
        mine / reference, "<= 0.4", mine / reference <= 0.4, "noisy" if noisy else "",
    )  # fmt: skip


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

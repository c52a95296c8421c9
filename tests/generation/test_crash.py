"""A killed process loses nothing and renders nothing twice. Real processes, real signals."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from sqlmodel import col, update

from tests.assets import picture_file
from tests.jobs import conftest as jobs
from tests.server import free_port
from visionsuit.core.clock import utcnow
from visionsuit.db import open_database, open_session
from visionsuit.jobs.presence import STALLED_AFTER_S
from visionsuit.jobs.tables import Job, JobState

ROOT = Path(__file__).parents[2]


#: Asking over HTTP takes the time of those who are asked.
until = partial(jobs.until, every_s=0.1)


class SlowApp:
    """The application in a process of its own; several may share a data folder."""

    def __init__(self, data_dir: Path, step_delay_s: float) -> None:
        port = free_port()
        self.log = data_dir.with_name(f"app-{port}.log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.generation.slow_app", str(data_dir), str(port), str(step_delay_s)],
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, verify=False)
        until(self._is_up, 60)

    def _is_up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        try:
            return self.client.get("/api/base-models").status_code == 200
        except httpx.TransportError:
            return False

    def sign_in(self, path: str = "/api/auth/login") -> None:
        person = {"email": "ann@example.org", "password": "a long password", "name": "Ann"}
        if path.endswith("login"):
            del person["name"]
        answer = self.client.post(path, json=person)
        answer.raise_for_status()
        self.client.headers["Authorization"] = f"Bearer {answer.json()['token']}"

    def render(self, **wanted: Any) -> str:
        answer = self.client.post("/api/generations", json={"prompt": "a cat", **wanted})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def show(self, generation_id: str) -> dict[str, Any]:
        return dict(self.client.get(f"/api/generations/{generation_id}").json())

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait(30)


@pytest.fixture
def apps(tmp_path: Path) -> Iterator[Any]:
    started: list[SlowApp] = []
    data_dir = tmp_path / "data"
    data_dir.mkdir()

    def start(step_delay_s: float) -> SlowApp:
        app = SlowApp(data_dir, step_delay_s)
        started.append(app)
        return app

    yield start
    for app in started:
        app.end()


def output_files(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "data" / "storage" / "outputs").rglob("*") if path.is_file()]


def test_a_render_survives_kill_and_is_rendered_once(apps: Any, tmp_path: Path) -> None:
    first = apps(0.2)
    first.sign_in("/api/auth/register")
    sent = first.client.post("/api/generations/inputs", content=picture_file((64, 64), "#00ff00"))
    given = {path.name for path in output_files(tmp_path)}
    running = first.render(steps=100, init={"input_id": sent.json()["id"], "strength": 0.5})
    waiting = first.render(steps=3)
    until(lambda: first.show(running)["step"] >= 2)
    first.end(signal.SIGKILL)

    second = apps(0.01)
    second.sign_in()
    began = time.monotonic()
    for generation_id in (running, waiting):
        until(lambda generation_id=generation_id: second.show(generation_id)["status"] == "completed", 25)
    # Its lock told that the first process is dead: nobody waited for a heartbeat to run out.
    assert time.monotonic() - began < 20
    assert second.show(running)["step"] == 50, "it had its picture to begin with again"
    assert len(second.show(running)["images"]) == 1
    assert len(second.show(waiting)["images"]) == 1
    urls = {
        url
        for generation_id in (running, waiting)
        for image in second.show(generation_id)["images"]
        for url in (image["url"], image["thumb"]["small"], image["thumb"]["large"])
    }
    assert {path.name for path in output_files(tmp_path)} == given | {url.rpartition("/")[2] for url in urls}


def test_a_stopped_process_hands_its_work_over(apps: Any) -> None:
    first = apps(0.2)
    first.sign_in("/api/auth/register")
    running = first.render(steps=50)
    until(lambda: first.show(running)["step"] >= 2)
    first.end(signal.SIGTERM)
    second = apps(0.01)
    second.sign_in()
    until(lambda: second.show(running)["status"] == "completed", 20)


def freeze(app: SlowApp, data_dir: Path) -> None:
    """Stop its threads where they are, as if it were long ago. None of them is in a transaction of its own then:
    what others wait for would be the database and not its heartbeat."""
    database = open_database(f"sqlite:///{data_dir / 'visionsuit.db'}")
    with open_session(database) as session:
        last_heard = utcnow() - timedelta(seconds=2 * STALLED_AFTER_S)
        session.execute(update(Job).where(col(Job.state) == JobState.RUNNING).values(heartbeat_at=last_heard))
        app.process.send_signal(signal.SIGSTOP)
        until(lambda: psutil.Process(app.process.pid).status() == psutil.STATUS_STOPPED)
        session.commit()
    database.dispose()


def test_a_frozen_process_is_fenced_off(apps: Any, tmp_path: Path) -> None:
    """SIGSTOP stands for a machine that slept: its lock is held, its heartbeat stops, and later it goes on."""
    first = apps(0.2)
    first.sign_in("/api/auth/register")
    running = first.render(steps=20)
    until(lambda: first.show(running)["step"] >= 2)
    freeze(first, tmp_path / "data")
    second = apps(0.01)
    second.sign_in()
    until(lambda: second.show(running)["status"] == "completed", 70)
    done = second.show(running)
    first.process.send_signal(signal.SIGCONT)
    until(lambda: "claim_lost" in first.log.read_text(), 30)
    assert second.show(running)["images"] == done["images"]
    names = {url.rpartition("/")[2] for i in done["images"] for url in (i["url"], *list(i["thumb"].values())[:2])}
    assert {path.name for path in output_files(tmp_path)} == names

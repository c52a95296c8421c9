"""Server-sent events through a real server."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx

from tests.conftest import People
from tests.generation.conftest import finished, order, show, submit
from tests.jobs.conftest import until
from visionsuit.engine.mock import MockEngine
from visionsuit.generation import service
from visionsuit.jobs.worker import Worker
from visionsuit.runtime import Runtime

Bearer = Callable[..., dict[str, str]]


def read_events(
    url: str, generation_id: str, headers: dict[str, str], *, after_first: Callable[[], object] = lambda: None
) -> list[dict[str, Any]]:
    """All events until the stream ends; `after_first` is called when one was read."""
    events: list[dict[str, Any]] = []
    address = f"{url}/api/generations/{generation_id}/events"
    with httpx.stream("GET", address, headers=headers, timeout=60, verify=False) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, Any] = {}
        for line in answer.iter_lines():
            if line.startswith(":"):
                continue
            if not line:
                events.append(fields)
                fields = {}
                if len(events) == 1:
                    after_first()
                continue
            name, _, value = line.partition(": ")
            fields[name] = json.loads(value) if name == "data" else value
    return events


def test_a_render_tells_its_way(
    site: Runtime, url: str, people: People, bearer: Bearer, engine: MockEngine, start_worker: Callable[[], Worker]
) -> None:
    engine.step_delay_s = 0.05
    generation_id = submit(site, people.user, order(steps=30))
    events = read_events(url, generation_id, bearer(people.user), after_first=start_worker)
    assert [event["event"] for event in events] == ["progress"] * (len(events) - 1) + ["done"]
    assert [int(event["id"]) for event in events] == list(range(1, len(events) + 1))
    states = [event["data"] for event in events]
    assert states[0]["status"] == "queued"
    assert states[0]["place"] == 1
    running = [state for state in states if state["status"] == "running"]
    steps = [state["step"] for state in running]
    assert steps == sorted(steps)
    assert len(set(steps)) > 5
    assert any((state["preview"] or "").startswith("data:image/webp") for state in running)
    assert states[-1]["status"] == "completed"
    assert len(states[-1]["images"]) == 1
    assert all("request" not in state for state in states)


def test_one_who_comes_back_goes_on_counting_and_gets_the_end(
    site: Runtime, url: str, people: People, bearer: Bearer, worker: Worker
) -> None:
    generation_id = submit(site, people.user)
    finished(site, people.user, generation_id)
    [event] = read_events(url, generation_id, {**bearer(people.user), "Last-Event-ID": "41"})
    assert (event["id"], event["event"]) == ("42", "done")
    [event] = read_events(url, generation_id, {**bearer(people.user), "Last-Event-ID": "9" * 400})
    assert event["id"] == "1"


def test_a_change_that_no_bus_tells_is_found(site: Runtime, url: str, people: People, bearer: Bearer) -> None:
    """As when another process renders: only the row changes."""
    from tests.generation.test_run import change
    from visionsuit.jobs.tables import Job, JobState

    generation_id = submit(site, people.user)
    headers = bearer(people.user)
    events = read_events(url, generation_id, headers, after_first=lambda: change(site, Job, state=JobState.CANCELLED))
    assert events[-1]["data"]["status"] == "cancelled"


def _heard(site: Runtime) -> list[tuple[str, set[Any]]]:
    """Topics and who listens to them, while others come and go."""
    with site.bus._lock:
        return [(topic, set(listeners)) for topic, listeners in site.bus._listeners.items()]


def test_many_listeners_cost_no_threads_and_all_hear_the_end(
    site: Runtime, url: str, people: People, bearer: Bearer, worker: Worker
) -> None:
    with site.open_ctx(people.admin) as ctx:
        from visionsuit.generation.queue_admin import set_paused

        set_paused(ctx, True)
    generation_id = submit(site, people.user)
    headers = bearer(people.user)
    before = threading.active_count()
    ends: list[str] = []

    def listen() -> None:
        ends.append(read_events(url, generation_id, headers)[-1]["data"]["status"])

    listeners = [threading.Thread(target=listen) for _ in range(60)]
    for thread in listeners:
        thread.start()
    until(lambda: sum(len(all_of) for topic, all_of in _heard(site) if topic.startswith("job:")) >= 60)
    # The listeners are 60 threads of this test; the server adds its bounded pool and no more.
    assert threading.active_count() - before - len(listeners) < 45
    began = time.monotonic()
    assert httpx.get(f"{url}/api/base-models").status_code == 200
    assert time.monotonic() - began < 10
    with site.open_ctx(people.user) as ctx:
        service.cancel(ctx, generation_id)
    for thread in listeners:
        thread.join(15)
    assert ends == ["cancelled"] * 60


def test_a_listener_who_goes_away_is_forgotten(site: Runtime, url: str, people: People, bearer: Bearer) -> None:
    generation_id = submit(site, people.user)
    with (
        httpx.stream("GET", f"{url}/api/generations/{generation_id}/events", headers=bearer(people.user)) as answer,
    ):
        lines = answer.iter_lines()
        next(lines)
        assert any(topic.startswith("job:") for topic, _ in _heard(site))
    until(lambda: not any(topic.startswith("job:") for topic, _ in _heard(site)))
    assert show(site, people.user, generation_id).status == "queued"

"""`Prefer: wait`: one request from prompt to picture."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.conftest import People
from tests.generation.conftest import finished, submit
from tests.generation.test_run import change
from tests.jobs.conftest import until
from visionsuit.core.actor import Actor
from visionsuit.generation import service
from visionsuit.generation.wait import wait_of
from visionsuit.jobs.events import job_topic
from visionsuit.jobs.tables import Job, JobState
from visionsuit.jobs.worker import Worker
from visionsuit.runtime import Runtime

Bearer = Callable[[Actor], dict[str, str]]
BODY = {"prompt": "a red heart", "steps": 2}


def ask(url: str, generation_id: str, headers: dict[str, str], seconds: int = 30) -> httpx.Response:
    address = f"{url}/api/generations/{generation_id}"
    return httpx.get(address, headers={**headers, "Prefer": f"wait={seconds}"}, timeout=60)


def until_someone_waits(site: Runtime, generation_id: str) -> None:
    until(lambda: bool(site.bus._listeners.get(job_topic(generation_id))))


def test_the_answer_comes_with_the_pictures(url: str, people: People, bearer: Bearer, worker: Worker) -> None:
    headers = {**bearer(people.user), "Prefer": "respond-async, wait=40"}
    answer = httpx.post(f"{url}/api/generations", json=BODY, headers=headers, timeout=60)
    assert answer.status_code == 201
    assert answer.headers["Preference-Applied"] == "wait=40"
    render = answer.json()
    assert answer.headers["Location"] == f"/api/generations/{render['id']}"
    assert render["status"] == "completed"
    assert render["request"]["prompt"] == "a red heart"
    [image] = render["images"]
    assert httpx.get(url + image["url"], headers=bearer(people.user)).content.startswith(b"\x89PNG")


def test_who_waits_too_short_gets_it_as_it_is(url: str, people: People, bearer: Bearer) -> None:
    began = time.monotonic()
    headers = {**bearer(people.user), "Prefer": "wait=1"}
    answer = httpx.post(f"{url}/api/generations", json=BODY, headers=headers, timeout=60)
    assert time.monotonic() - began >= 1
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    again = ask(url, answer.json()["id"], bearer(people.user), 1)
    assert (again.status_code, again.json()["status"]) == (200, "queued")


def test_without_it_nothing_waits(url: str, people: People, bearer: Bearer) -> None:
    answer = httpx.post(f"{url}/api/generations", json=BODY, headers=bearer(people.user), timeout=60)
    assert answer.status_code == 202
    assert "Preference-Applied" not in answer.headers


def test_a_finished_render_is_answered_at_once(
    site: Runtime, url: str, people: People, bearer: Bearer, worker: Worker
) -> None:
    generation_id = submit(site, people.user)
    finished(site, people.user, generation_id)
    began = time.monotonic()
    assert ask(url, generation_id, bearer(people.user)).json()["status"] == "completed"
    assert time.monotonic() - began < 10


def test_the_end_is_heard_however_it_comes(site: Runtime, url: str, people: People, bearer: Bearer) -> None:
    def cancel(generation_id: str) -> None:
        with site.open_ctx(people.user) as ctx:
            service.cancel(ctx, generation_id)

    def cancel_elsewhere(_: str) -> None:
        """As when another process does it: only the row changes."""
        change(site, Job, state=JobState.CANCELLED)

    def delete(generation_id: str) -> None:
        with site.open_ctx(people.user) as ctx:
            service.delete(ctx, generation_id)

    with ThreadPoolExecutor(1) as pool:
        for end, status in ((cancel, 200), (cancel_elsewhere, 200), (delete, 404)):
            generation_id = submit(site, people.user)
            began = time.monotonic()
            answer = pool.submit(ask, url, generation_id, bearer(people.user), 50)
            until_someone_waits(site, generation_id)
            end(generation_id)
            assert answer.result().status_code == status
            assert status != 200 or answer.result().json()["status"] == "cancelled"
            assert time.monotonic() - began < 20
            until(lambda: not site.bus._listeners.get(job_topic(generation_id)))  # noqa: B023


def test_somebody_elses_render_is_not_waited_for(site: Runtime, url: str, people: People, bearer: Bearer) -> None:
    generation_id = submit(site, people.user)
    began = time.monotonic()
    assert ask(url, generation_id, bearer(people.curator)).status_code == 404
    assert ask(url, generation_id, {}).status_code == 404
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=30", 30),
        ('return=minimal; x=1, WAIT = "5"', 5),
        ("wait=100000", 60),
        ("wait=0", 0),
        ("wait=-3", 0),
        ("wait=1.5", 0),
        ("wait=99999999999999999999", 0),
        ("wait=\u0663", 0),
        ("await=9", 0),
        ("wait", 0),
        ("", 0),
    ],
)
def test_what_the_header_asks(prefer: str, seconds: int) -> None:
    assert wait_of(prefer) == seconds

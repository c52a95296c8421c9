"""What administrators do with the queue: order, cancel, try again, clear, drain, block a person."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from tests.conftest import People
from tests.generation.conftest import finished, show, submit
from tests.jobs.conftest import until
from visionsuit.core.actor import SYSTEM
from visionsuit.core.clock import utcnow
from visionsuit.engine.base import EngineError
from visionsuit.engine.mock import MockEngine
from visionsuit.generation import service
from visionsuit.generation.tables import GenerationBlock
from visionsuit.jobs import claims, queue
from visionsuit.jobs.worker import Worker
from visionsuit.runtime import Runtime

Bearer = Callable[..., dict[str, str]]
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


class Admin:
    def __init__(self, client: TestClient, headers: dict[str, str]) -> None:
        self.client, self.headers = client, headers

    def __call__(self, method: str, path: str = "", expect: int = 200, **body: Any) -> Any:
        answer = self.client.request(method, f"/api/queue{path}", json=body or None, headers=self.headers)
        assert answer.status_code == expect, answer.text
        return answer.json() if answer.content else None

    def waiting(self) -> list[str]:
        return [item["generation_id"] for item in self("GET")["waiting"]]

    def job(self, generation_id: str) -> str:
        return next(item["id"] for item in self("GET")["waiting"] if item["generation_id"] == generation_id)


@pytest.fixture
def admin(client: TestClient, people: People, bearer: Bearer) -> Admin:
    return Admin(client, bearer(people.admin))


def test_a_job_goes_first_when_an_administrator_says_so(site: Runtime, people: People, admin: Admin) -> None:
    first, second, third = (submit(site, people.user) for _ in range(3))
    assert admin.waiting() == [first, second, third]
    shown = admin("PATCH", f"/jobs/{admin.job(third)}", priority=10)
    assert [item["generation_id"] for item in shown["waiting"]] == [third, first, second]
    assert shown["waiting"][0]["priority"] == 10
    admin("PATCH", f"/jobs/{admin.job(first)}", priority=-1)
    assert admin.waiting() == [third, second, first]
    admin("PATCH", f"/jobs/{admin.job(first)}", expect=422, priority=101)
    admin("PATCH", "/jobs/nothing", expect=404, priority=1)


def test_the_order_is_that_in_which_they_are_rendered(
    site: Runtime, people: People, admin: Admin, engine: MockEngine, start_worker: Callable[[], Worker]
) -> None:
    first, second = submit(site, people.user), submit(site, people.user)
    admin("PATCH", f"/jobs/{admin.job(second)}", priority=1)
    start_worker()
    finished(site, people.user, first)
    times = [show(site, people.user, one).started_at for one in (second, first)]
    assert times[0] is not None
    assert times[1] is not None
    assert times[0] < times[1]


def test_a_failed_render_is_tried_again_and_a_finished_one_is_not(
    site: Runtime, people: People, admin: Admin, engine: MockEngine, worker: Worker
) -> None:
    engine.fail_with = EngineError("The device is on fire.")
    failed = submit(site, people.user)
    finished(site, people.user, failed)
    [failure] = admin("GET", "/failures")["items"]
    assert failure["generation_id"] == failed
    engine.fail_with = None
    admin("POST", f"/jobs/{failure['id']}/retry")
    finished(site, people.user, failed)
    shown = show(site, people.user, failed)
    assert shown.status == "completed", shown.error
    assert shown.error is None
    assert len(shown.images) == 1
    assert admin("GET", "/failures")["items"] == []
    error = admin("POST", f"/jobs/{failure['id']}/retry", expect=409)["error"]
    assert error["code"] == "job_not_over"
    assert engine.renders == 1


def test_failed_work_of_other_queues_is_no_failed_render(site: Runtime, admin: Admin) -> None:
    with site.open_ctx(SYSTEM) as ctx:
        queue.defer(ctx, "download", {}, owner_id=None, queue="fetch")
        claim = claims.claim(ctx, "w", "fetch")
        assert claim is not None
        claims.fail(ctx, claim, code="hub_unreachable", message="no", trace="", device_seconds=0)
    assert admin("GET", "/failures")["items"] == []


def test_nothing_is_tried_again_while_the_queue_is_emptied(site: Runtime, people: People, admin: Admin) -> None:
    job = admin.job(submit(site, people.user))
    admin("POST", f"/jobs/{job}/cancel")
    admin("POST", "/drain")
    assert admin("POST", f"/jobs/{job}/retry", expect=503)["error"]["code"] == "queue_draining"
    admin("POST", "/resume")
    assert [item["id"] for item in admin("POST", f"/jobs/{job}/retry")["waiting"]] == [job]


@on_postgresql
def test_what_comes_while_the_queue_is_read_is_shown_last(site: Runtime, people: People, admin: Admin) -> None:
    first, late = submit(site, people.user), []

    def come(connection: object, cursor: object, statement: str, *rest: object) -> None:
        if "owner_share" in statement and "run_after" in statement and not late:
            late.append("")
            late[0] = submit(site, people.other_user)

    sa.event.listen(site.database, "after_cursor_execute", come)
    assert admin.waiting() == [first, *late]
    assert len(late) == 1


@on_postgresql
def test_what_is_no_id_is_not_found(site: Runtime, admin: Admin) -> None:
    for name in ("%00", "a%00b", "x" * 500):
        admin("POST", f"/jobs/{name}/cancel", expect=404)
        admin("POST", f"/jobs/{name}/retry", expect=404)
        admin("PATCH", f"/jobs/{name}", expect=404, priority=1)
        admin("PUT", f"/blocks/{name}", expect=404, reason="who")


def test_what_was_deleted_cannot_be_tried_again(
    site: Runtime, people: People, admin: Admin, engine: MockEngine, worker: Worker
) -> None:
    engine.fail_with = EngineError("no")
    failed = submit(site, people.user)
    finished(site, people.user, failed)
    [failure] = admin("GET", "/failures")["items"]
    with site.open_ctx(people.user) as ctx:
        service.delete(ctx, failed)
    admin("POST", f"/jobs/{failure['id']}/retry", expect=404)


def test_cancel_one_and_clear_all(site: Runtime, people: People, admin: Admin) -> None:
    mine, yours, third = submit(site, people.user), submit(site, people.other_user), submit(site, people.other_user)
    admin("POST", f"/jobs/{admin.job(mine)}/cancel")
    assert admin.waiting() == [yours, third]
    assert show(site, people.user, mine).status == "cancelled"
    assert admin("POST", "/clear")["waiting"] == []
    assert {show(site, people.other_user, one).status for one in (yours, third)} == {"cancelled"}


def test_draining_takes_nothing_new_and_does_what_is_there(
    site: Runtime,
    people: People,
    admin: Admin,
    client: TestClient,
    bearer: Bearer,
    start_worker: Callable[[], Worker],
) -> None:
    before = submit(site, people.user)
    assert admin("POST", "/drain")["draining"] is True
    refused = client.post("/api/generations", json={"prompt": "late"}, headers=bearer(people.user))
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "queue_draining")
    start_worker()
    finished(site, people.user, before)
    assert show(site, people.user, before).status == "completed"
    assert admin("POST", "/resume")["draining"] is False
    assert client.post("/api/generations", json={"prompt": "now"}, headers=bearer(people.user)).status_code == 202


def test_a_blocked_person_reads_why_and_until_when(
    site: Runtime, people: People, admin: Admin, client: TestClient, bearer: Bearer
) -> None:
    waiting, others = submit(site, people.user), submit(site, people.other_user)
    path, end = f"/blocks/{people.user.public_id}", utcnow() + timedelta(days=1)
    made = admin("PUT", path, reason="Too many <b>requests</b>", until=end.isoformat())
    assert made["user"]["id"] == people.user.public_id
    assert show(site, people.user, waiting).status == "cancelled"
    assert admin.waiting() == [others]
    error = client.post("/api/generations", json={"prompt": "a"}, headers=bearer(people.user)).json()["error"]
    assert error["code"] == "generation_blocked"
    assert "Too many <b>requests</b>" in error["message"]
    assert f"{end:%Y-%m-%d}" in error["message"]
    assert [one["user"]["id"] for one in admin("GET", "/blocks")["items"]] == [people.user.public_id]
    assert client.post("/api/generations", json={"prompt": "a"}, headers=bearer(people.other_user)).status_code == 202
    with site.open_ctx(people.admin) as ctx:
        row = ctx.session.get(GenerationBlock, people.user.user_id)
        assert row is not None
        row.until = utcnow() - timedelta(seconds=1)
        ctx.session.add(row)
    assert client.post("/api/generations", json={"prompt": "a"}, headers=bearer(people.user)).status_code == 202
    assert admin("GET", "/blocks")["items"] == []
    admin("DELETE", path, expect=204)
    admin("DELETE", path, expect=404)


def test_a_blocked_person_is_not_rendered_for(
    site: Runtime, people: People, admin: Admin, start_worker: Callable[[], Worker]
) -> None:
    waiting = submit(site, people.user)
    job = admin.job(waiting)
    admin("PUT", f"/blocks/{people.user.public_id}", reason="Too many requests")
    admin("POST", f"/jobs/{job}/retry")
    start_worker()
    shown = finished(site, people.user, waiting)
    assert shown.status == "failed"
    assert shown.error is not None
    assert shown.error.code == "owner_may_not_render"
    assert "Too many requests" in shown.error.message
    admin("DELETE", f"/blocks/{people.user.public_id}", expect=204)
    admin("POST", f"/jobs/{job}/retry")
    until(lambda: show(site, people.user, waiting).status == "completed")


@pytest.mark.parametrize("end", ["9999-12-31T23:59:59-12:00", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+12:00"])
def test_a_block_ends_in_a_year_that_every_zone_has(people: People, admin: Admin, end: str) -> None:
    error = admin("PUT", f"/blocks/{people.user.public_id}", expect=422, reason="long", until=end)["error"]
    assert (error["code"], error["field"]) == ("bad_block", "until")
    made = admin("PUT", f"/blocks/{people.user.public_id}", reason="long", until="9998-12-31T23:59:59-12:00")
    assert made["until"].startswith("9999-01-01T11:59:59")


def test_blocks_follow_the_ranks(people: People, admin: Admin, client: TestClient, bearer: Bearer) -> None:
    admin("PUT", f"/blocks/{people.admin.public_id}", expect=409, reason="me")
    admin("PUT", f"/blocks/{people.superadmin.public_id}", expect=403, reason="you")
    admin("PUT", "/blocks/nobody", expect=404, reason="who")
    admin("PUT", f"/blocks/{people.user.public_id}", expect=422, reason=" ")
    past = (utcnow() - timedelta(hours=1)).isoformat()
    admin("PUT", f"/blocks/{people.user.public_id}", expect=422, reason="late", until=past)

"""The audit log is read by administrators alone."""

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from tests.conftest import People
from tests.postgres import both_databases
from visionsuit.audit.service import record
from visionsuit.core.actor import Actor
from visionsuit.runtime import Runtime

pytestmark = both_databases

Bearer = Callable[[Actor], dict[str, str]]


@pytest.mark.parametrize("name", ["guest", "user", "curator", "admin", "superadmin"])
def test_matrix(client: TestClient, people: People, bearer: Bearer, name: str) -> None:
    headers = {} if name == "guest" else bearer(getattr(people, name))
    expected = {"guest": 401, "user": 403, "curator": 403}.get(name, 200)
    assert client.get("/api/audit", headers=headers).status_code == expected


def test_pages_and_filters(client: TestClient, people: People, bearer: Bearer, runtime: Runtime) -> None:
    for number in range(5):
        with runtime.open_ctx(people.user) as ctx:
            record(ctx, f"thing.done_{number}", "target", {"number": number})
    with runtime.open_ctx(people.guest) as ctx:
        record(ctx, "other.deed")

    def items(**query: str | int) -> list[dict[str, object]]:
        return client.get("/api/audit", params=query, headers=bearer(people.admin)).json()["items"]

    seen: list[str] = []
    query: dict[str, str | int] = {"limit": 4}
    while True:
        body = client.get("/api/audit", params=query, headers=bearer(people.admin)).json()
        seen += [item["action"] for item in body["items"]]
        if body["next_cursor"] is None:
            break
        query["cursor"] = body["next_cursor"]
    assert seen == ["other.deed", *(f"thing.done_{number}" for number in (4, 3, 2, 1, 0))]
    assert len(items(action="thing.")) == 5
    assert len(items(action="thing%")) == 0
    assert len(items(actor=people.user.public_id)) == 5
    assert len(items(target="target")) == 5
    (deed,) = items(action="other.deed")
    assert deed["actor"] == {"id": None, "name": "guest", "role": "GUEST"}
    assert items(action="\0") is not None


def test_a_refused_deed_is_not_written(people: People, runtime: Runtime, client: TestClient, bearer: Bearer) -> None:
    def fail_after_recording() -> None:
        with runtime.open_ctx(people.user) as ctx:
            record(ctx, "thing.done")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_after_recording()
    assert client.get("/api/audit", headers=bearer(people.admin)).json()["items"] == []

"""API tokens over REST: made, used within their scopes, revoked."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlmodel import select
from starlette.testclient import TestClient

from tests.conftest import People
from tests.postgres import both_databases
from visionsuit.accounts.tables import Account, ApiToken
from visionsuit.accounts.tokens import MAX_TOKENS
from visionsuit.audit.tables import AuditEntry
from visionsuit.core.actor import SYSTEM, Actor, Role
from visionsuit.runtime import Runtime

Bearer = Callable[[Actor], dict[str, str]]
READ = {"name": "script", "scopes": ["read"]}


@pytest.fixture
def token(client: TestClient, bearer: Bearer) -> Callable[..., dict[str, str]]:
    """Headers with a new API token of `actor`."""

    def make(actor: Actor, *scopes: str) -> dict[str, str]:
        answer = client.post("/api/auth/tokens", json={"name": "t", "scopes": list(scopes)}, headers=bearer(actor))
        assert answer.status_code == 201
        return {"Authorization": f"Bearer {answer.json()['token']}"}

    return make


Token = Callable[..., dict[str, str]]


@both_databases
def test_made_once_listed_without_secret_revoked(
    client: TestClient, people: People, bearer: Bearer, runtime: Runtime
) -> None:
    mine = bearer(people.user)
    made = client.post("/api/auth/tokens", json={**READ, "expires_in_days": 30}, headers=mine).json()
    assert made["token"].startswith("vs_")
    assert made["last_used_at"] is None
    lives = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=29) < lives <= timedelta(days=30)
    with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        assert made["token"] not in str(ctx.session.exec(select(ApiToken)).one().model_dump())
    theirs = {"Authorization": f"Bearer {made['token']}"}
    assert client.get("/api/auth/me", headers=theirs).json()["id"] == people.user.public_id
    listed = client.get("/api/auth/tokens", headers=mine)
    assert made["token"] not in listed.text
    assert listed.json()["items"][0]["last_used_at"] is not None
    assert client.delete(f"/api/auth/tokens/{made['id']}", headers=bearer(people.other_user)).status_code == 404
    assert client.delete(f"/api/auth/tokens/{made['id']}", headers=mine).status_code == 204
    assert client.delete(f"/api/auth/tokens/{made['id']}", headers=mine).status_code == 404
    assert client.get("/api/auth/me", headers=theirs).status_code == 401


def test_nobody_sees_anothers(client: TestClient, people: People, bearer: Bearer, token: Token) -> None:
    token(people.user, "read")
    assert client.get("/api/auth/tokens", headers=bearer(people.superadmin)).json()["items"] == []


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", ""), ("DELETE", "/x")])
def test_guests(client: TestClient, method: str, path: str) -> None:
    answer = client.request(method, f"/api/auth/tokens{path}", json=READ if method == "POST" else None)
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": " "}, "name"),
        ({"name": "x" * 81}, "name"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["everything"]}, "scopes.0"),
        ({"expires_in_days": 0}, "expires_in_days"),
        ({"expires_in_days": 3651}, "expires_in_days"),
        ({"expires_in_days": 10**20}, "expires_in_days"),
    ],
)
def test_refused(client: TestClient, people: People, bearer: Bearer, change: dict[str, object], field: str) -> None:
    answer = client.post("/api/auth/tokens", json={**READ, **change}, headers=bearer(people.user))
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, field)


def test_scopes_bound_what_it_does(client: TestClient, people: People, token: Token) -> None:
    reader = token(people.admin, "read", "generate", "upload")
    manager = token(people.admin, "admin")
    for method, path, body in [
        ("GET", "/api/users", None),
        ("GET", "/api/settings", None),
        ("GET", "/api/audit", None),
        ("PATCH", "/api/users/me", {"bio": "changed"}),
        ("POST", "/api/auth/tokens", READ),
        ("GET", "/api/auth/tokens", None),
        ("GET", "/api/auth/sessions", None),
        ("PUT", "/api/users/me/password", {"current_password": "x", "new_password": "long enough"}),
    ]:
        answer = client.request(method, path, json=body, headers=reader)
        assert answer.status_code == 403, path
        assert "scope 'admin'" in answer.json()["error"]["message"]
    assert client.get("/api/users", headers=manager).status_code == 200
    assert client.get("/api/auth/me", headers=reader).json()["permissions"] == [
        "assets:download",
        "assets:upload",
        "assets:edit",
        "assets:save",
        "generations:create",
        "generations:edit",
    ]


def test_a_token_makes_no_wider_one(client: TestClient, people: People, token: Token) -> None:
    manager = token(people.admin, "admin")
    wider = client.post("/api/auth/tokens", json={"name": "t", "scopes": ["admin", "read"]}, headers=manager)
    assert (wider.status_code, wider.json()["error"]["field"]) == (403, "scopes")
    assert client.post("/api/auth/tokens", json={"name": "t", "scopes": ["admin"]}, headers=manager).status_code == 201


def test_admin_scope_of_a_member_grants_no_administration(client: TestClient, people: People, token: Token) -> None:
    assert client.get("/api/users", headers=token(people.user, "admin")).status_code == 403


def test_role_is_read_when_used(client: TestClient, people: People, runtime: Runtime, token: Token) -> None:
    headers = token(people.admin, "admin")
    with runtime.open_ctx(SYSTEM) as ctx:
        ctx.session.get_one(Account, people.admin.user_id).role = Role.USER
    assert client.get("/api/users", headers=headers).status_code == 403


def test_at_most_so_many(client: TestClient, people: People, bearer: Bearer, runtime: Runtime) -> None:
    with runtime.open_ctx(SYSTEM) as ctx:
        for number in range(MAX_TOKENS - 1):
            ctx.session.add(ApiToken(account_id=people.user.user_id, name="t", token_hash=str(number)))
    headers = bearer(people.user)
    assert client.post("/api/auth/tokens", json=READ, headers=headers).status_code == 201
    assert client.post("/api/auth/tokens", json=READ, headers=headers).status_code == 409


def test_logout_with_a_token_leaves_it(client: TestClient, people: People, token: Token) -> None:
    headers = token(people.user, "read")
    assert client.post("/api/auth/logout", headers=headers).status_code == 204
    assert client.get("/api/auth/me", headers=headers).status_code == 200


def test_administrators_tokens_leave_a_trace(
    client: TestClient, people: People, token: Token, audit: Callable[[], list[AuditEntry]]
) -> None:
    for actor in (people.user, people.admin):
        headers = token(actor, "read")
        for _ in range(3):
            client.get("/api/auth/me", headers=headers)
    assert [(entry.action, entry.actor_id) for entry in audit() if entry.action == "token.used"] == [
        ("token.used", people.admin.user_id)
    ]
    assert sum(entry.action == "token.created" for entry in audit()) == 2

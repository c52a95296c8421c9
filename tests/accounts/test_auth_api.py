"""Joining, signing in and out, sessions and the cookie, over REST."""

import json
import threading
from collections.abc import Callable

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from tests.accounts.conftest import PASSWORD
from tests.conftest import People
from tests.postgres import both_databases
from visionsuit.accounts.tables import Account
from visionsuit.audit.tables import AuditEntry
from visionsuit.core.actor import SYSTEM, Actor, Role
from visionsuit.core.config import RegistrationPolicy
from visionsuit.main import create_api, guarded
from visionsuit.runtime import Runtime
from visionsuit.site.live import change_settings

Bearer = Callable[[Actor], dict[str, str]]
JOIN = {"email": "Mira@Example.org", "password": PASSWORD, "name": "Mira"}


@pytest.fixture
def browser(api: FastAPI, runtime: Runtime) -> Callable[[], TestClient]:
    """A new browser with a cookie jar of its own."""

    def open_() -> TestClient:
        return TestClient(guarded(api, runtime), base_url="http://127.0.0.1:7860")  # type: ignore[arg-type]

    return open_


@both_databases
class TestRegister:
    def test_makes_a_user_and_signs_in(self, client: TestClient, audit: Callable[[], list[AuditEntry]]) -> None:
        answer = client.post("/api/auth/register", json={**JOIN, "role": "SUPERADMIN", "is_active": False})
        assert answer.status_code == 201
        user = answer.json()["user"]
        assert (user["email"], user["name"], user["role"]) == ("mira@example.org", "Mira", "USER")
        assert "assets:download" in user["permissions"]
        assert "assets:upload" not in user["permissions"]
        assert "password" not in answer.text.lower().replace(PASSWORD, "")
        assert client.get("/api/auth/me").json() == user
        headers = {"Authorization": f"Bearer {answer.json()['token']}"}
        client.cookies.clear()
        assert client.get("/api/auth/me").status_code == 401
        assert client.get("/api/auth/me", headers=headers).json() == user
        assert [entry.action for entry in audit()] == ["account.registered"]

    @pytest.mark.parametrize("email", ["mira@example.org", " MIRA@EXAMPLE.ORG"])
    def test_address_that_exists(self, client: TestClient, email: str) -> None:
        client.post("/api/auth/register", json=JOIN)
        answer = client.post("/api/auth/register", json={**JOIN, "email": email})
        assert answer.status_code == 409
        error = answer.json()["error"]
        assert (error["code"], error["message"], error["field"]) == ("email_taken", "Email already exists", "email")

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"email": "nonsense"}, "email"),
            ({"email": "a" * 400}, "email"),
            ({"email": 5}, "email"),
            ({"email": None}, "email"),
            ({"password": "seven77"}, "password"),
            ({"password": "x" * 1025}, "password"),
            ({"name": "M"}, "name"),
            ({"name": "x" * 161}, "name"),
            ({"name": "\0\0"}, "name"),
        ],
    )
    def test_what_cannot_be_used(self, client: TestClient, change: dict[str, object], field: str) -> None:
        answer = client.post("/api/auth/register", json={**JOIN, **change})
        assert answer.status_code == 422
        assert answer.json()["error"]["field"] == field
        assert "set-cookie" not in answer.headers

    def test_halves_of_characters_are_no_crash(self, client: TestClient) -> None:
        for field in JOIN:
            body = json.dumps({**JOIN, field: "\ud800aaaaaaaaa"})
            answer = client.post("/api/auth/register", content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code in (201, 409, 422)

    def test_long_passwords_count_to_the_last_character(self, client: TestClient) -> None:
        password = "p" * 1023
        assert client.post("/api/auth/register", json={**JOIN, "password": password + "a"}).status_code == 201
        login = {"email": JOIN["email"]}
        assert client.post("/api/auth/login", json={**login, "password": password + "b"}).status_code == 401
        assert client.post("/api/auth/login", json={**login, "password": password + "a"}).status_code == 200

    def test_closed(self, client: TestClient, runtime: Runtime) -> None:
        with runtime.open_ctx(SYSTEM) as ctx:
            change_settings(ctx, {"registration": RegistrationPolicy.CLOSED})
        answer = client.post("/api/auth/register", json=JOIN)
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "registration_closed"

    def test_too_many_from_one_address(self, client: TestClient) -> None:
        client.post("/api/auth/register", json=JOIN)
        statuses = [client.post("/api/auth/register", json=JOIN).status_code for _ in range(20)]
        assert statuses == [409] * 19 + [429]

    @pytest.mark.usefixtures("slow_hashes")
    def test_two_at_once(self, browser: Callable[[], TestClient]) -> None:
        barrier = threading.Barrier(4)
        statuses: list[int] = []

        def join(client: TestClient) -> None:
            barrier.wait()
            statuses.append(client.post("/api/auth/register", json=JOIN).status_code)

        threads = [threading.Thread(target=join, args=(browser(),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [201, 409, 409, 409]


@both_databases
class TestLogin:
    def test_signs_in(
        self,
        client: TestClient,
        people: People,
        with_password: Callable[[Actor], str],
        row_of: Callable[[Actor], Account],
        audit: Callable[[], list[AuditEntry]],
    ) -> None:
        answer = client.post(
            "/api/auth/login", json={"email": with_password(people.curator).upper(), "password": PASSWORD}
        )
        assert answer.status_code == 200
        assert answer.json()["user"]["id"] == people.curator.public_id
        assert client.get("/api/auth/me").json() == answer.json()["user"]
        assert row_of(people.curator).last_login_at is not None
        entry = audit()[-1]
        assert (entry.action, entry.actor_id, entry.actor_role) == ("login", people.curator.user_id, "CURATOR")

    def test_cookie(self, client: TestClient, people: People, with_password: Callable[[Actor], str]) -> None:
        login = {"email": with_password(people.user), "password": PASSWORD}
        cookie = client.post("/api/auth/login", json=login).headers["set-cookie"]
        attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
        assert cookie.startswith("visionsuit_session=")
        assert attributes == {"httponly", "max-age=604800", "path=/", "samesite=lax"}

    def test_cookie_is_secure_over_https(
        self, api: FastAPI, runtime: Runtime, people: People, with_password: Callable[[Actor], str]
    ) -> None:
        login = {"email": with_password(people.user), "password": PASSWORD}
        over_https = TestClient(guarded(api, runtime), base_url="https://127.0.0.1")  # type: ignore[arg-type]
        assert "; Secure" in over_https.post("/api/auth/login", json=login).headers["set-cookie"]

    def test_wrong_ones_are_answered_alike(
        self,
        client: TestClient,
        people: People,
        runtime: Runtime,
        with_password: Callable[[Actor], str],
        audit: Callable[[], list[AuditEntry]],
    ) -> None:
        gone = with_password(people.other_user)
        with runtime.open_ctx(SYSTEM) as ctx:
            ctx.session.get_one(Account, people.other_user.user_id).is_active = False
        attempts = [
            (with_password(people.user), "wrong password"),
            (with_password(people.user), PASSWORD[:-1]),
            ("nobody@example.org", PASSWORD),
            (people.curator.name + "@example.org", "!"),  # has no password at all
            (gone, PASSWORD),
            ("no address", PASSWORD),
            ("nul\0@example.org", PASSWORD),
        ]
        answers = [client.post("/api/auth/login", json={"email": e, "password": p}) for e, p in attempts]
        assert {answer.status_code for answer in answers} == {401}
        errors = [answer.json()["error"] for answer in answers]
        for error in errors:
            del error["request_id"]
        assert errors == [{"code": "invalid_credentials", "message": "Invalid credentials"}] * len(errors)
        assert not any("set-cookie" in answer.headers for answer in answers)
        entries = audit()
        assert [entry.action for entry in entries] == ["login.failed"] * len(attempts)
        assert not any(PASSWORD[:-1] in f"{entry.target}{entry.detail}" for entry in entries)

    def test_locked_says_when(self, client: TestClient, people: People, with_password: Callable[[Actor], str]) -> None:
        email = with_password(people.user)
        for _ in range(5):
            assert client.post("/api/auth/login", json={"email": email, "password": "wrong one"}).status_code == 401
        answer = client.post("/api/auth/login", json={"email": email, "password": PASSWORD})
        # The lock lasts a second; on a slow machine it is over by now.
        if answer.status_code == 429:
            assert answer.headers["Retry-After"] == "1"
            assert answer.json()["error"]["code"] == "too_many_attempts"

    def test_parallel_guesses_are_all_counted(
        self, browser: Callable[[], TestClient], people: People, with_password: Callable[[Actor], str]
    ) -> None:
        email = with_password(people.user)
        barrier = threading.Barrier(12)
        statuses: list[int] = []

        def guess(client: TestClient) -> None:
            barrier.wait()
            answer = client.post("/api/auth/login", json={"email": email, "password": "wrong password"})
            statuses.append(answer.status_code)

        threads = [threading.Thread(target=guess, args=(browser(),)) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(statuses) == 12
        assert 5 <= statuses.count(401) <= 7
        assert statuses.count(429) == 12 - statuses.count(401)

    def test_another_sites_page_cannot_sign_anybody_in_or_out(
        self, client: TestClient, people: People, with_password: Callable[[Actor], str]
    ) -> None:
        login = {"email": with_password(people.user), "password": PASSWORD}
        elsewhere = {"Origin": "http://127.0.0.1:9999"}
        assert client.post("/api/auth/login", json=login, headers=elsewhere).status_code == 403
        client.post("/api/auth/login", json=login)
        assert client.post("/api/auth/logout", headers=elsewhere).status_code == 403
        assert client.get("/api/auth/me").status_code == 200


class TestSessions:
    @pytest.fixture
    def signed_in(
        self, browser: Callable[[], TestClient], people: People, with_password: Callable[[Actor], str]
    ) -> Callable[[Actor], TestClient]:
        def open_(actor: Actor) -> TestClient:
            client = browser()
            login = {"email": with_password(actor), "password": PASSWORD}
            client.headers["User-Agent"] = "Browser/1"
            assert client.post("/api/auth/login", json=login).status_code == 200
            return client

        return open_

    def test_logout_ends_this_session_for_good(self, signed_in: Callable[[Actor], TestClient], people: People) -> None:
        first, second = signed_in(people.user), signed_in(people.user)
        token = first.cookies["visionsuit_session"]
        answer = first.post("/api/auth/logout")
        assert answer.status_code == 204
        assert 'visionsuit_session=""' in answer.headers["set-cookie"]
        assert "visionsuit_session" not in first.cookies
        assert first.get("/api/auth/me").status_code == 401
        assert second.get("/api/auth/me", headers={"Authorization": f"Bearer {token}"}).status_code == 401
        assert second.get("/api/auth/me").status_code == 200
        assert first.post("/api/auth/logout").status_code == 204

    def test_session_outlives_a_restart(
        self, signed_in: Callable[[Actor], TestClient], people: People, runtime: Runtime
    ) -> None:
        cookies = signed_in(people.user).cookies
        restarted = TestClient(
            guarded(create_api(runtime), runtime),  # type: ignore[arg-type]
            base_url="http://127.0.0.1:7860",
            cookies=cookies,
        )
        assert restarted.get("/api/auth/me").status_code == 200

    def test_list_and_end(
        self, signed_in: Callable[[Actor], TestClient], people: People, client: TestClient, bearer: Bearer
    ) -> None:
        first, second, third = (signed_in(people.user) for _ in range(3))
        stranger = signed_in(people.other_user)
        items = first.get("/api/auth/sessions").json()["items"]
        assert len(items) == 3
        assert {item["user_agent"] for item in items} == {"Browser/1"}
        assert [item["current"] for item in items].count(True) == 1
        mine = next(item["id"] for item in items if item["current"])
        other = next(i["id"] for i in second.get("/api/auth/sessions").json()["items"] if i["current"])
        assert mine != other
        assert stranger.delete(f"/api/auth/sessions/{other}").status_code == 404
        assert first.delete(f"/api/auth/sessions/{other}").status_code == 204
        assert first.delete(f"/api/auth/sessions/{other}").status_code == 404
        assert second.get("/api/auth/me").status_code == 401
        assert first.delete("/api/auth/sessions").status_code == 204
        assert third.get("/api/auth/me").status_code == 401
        assert first.get("/api/auth/me").status_code == 200
        assert stranger.get("/api/auth/me").status_code == 200

    def test_guests_have_none(self, client: TestClient) -> None:
        for method, path in [("GET", ""), ("DELETE", ""), ("DELETE", "/x")]:
            assert client.request(method, f"/api/auth/sessions{path}").status_code == 401

    def test_new_password_ends_all_and_begins_one(
        self, signed_in: Callable[[Actor], TestClient], people: People, audit: Callable[[], list[AuditEntry]]
    ) -> None:
        first, second = signed_in(people.user), signed_in(people.user)
        body = {"current_password": PASSWORD, "new_password": "another long one"}
        wrong = first.put("/api/users/me/password", json={**body, "current_password": "wrong password"})
        assert (wrong.status_code, wrong.json()["error"]["field"]) == (422, "current_password")
        short = first.put("/api/users/me/password", json={**body, "new_password": "short"})
        assert (short.status_code, short.json()["error"]["field"]) == (422, "new_password")
        assert second.get("/api/auth/me").status_code == 200
        old_token = first.cookies["visionsuit_session"]
        answer = first.put("/api/users/me/password", json=body)
        assert answer.status_code == 200
        assert first.cookies["visionsuit_session"] == answer.json()["token"] != old_token
        assert first.get("/api/auth/me").json() == answer.json()["user"]
        assert second.get("/api/auth/me").status_code == 401
        login = {"email": answer.json()["user"]["email"]}
        assert first.post("/api/auth/login", json={**login, "password": PASSWORD}).status_code == 401
        assert first.post("/api/auth/login", json={**login, "password": "another long one"}).status_code == 200
        assert {"password.refused", "password.changed"} <= {entry.action for entry in audit()}

    def test_guessing_the_current_password_is_slowed(
        self, signed_in: Callable[[Actor], TestClient], people: People
    ) -> None:
        thief = signed_in(people.user)
        body = {"current_password": "wrong password", "new_password": "another long one"}
        statuses = [thief.put("/api/users/me/password", json=body).status_code for _ in range(8)]
        assert statuses[:5] == [422] * 5
        assert 429 in statuses[5:]

    @pytest.mark.parametrize("change", [{"role": "CURATOR"}, {"is_active": False}, {"password": "set by the admin"}])
    def test_role_deactivation_and_reset_end_sessions(
        self,
        signed_in: Callable[[Actor], TestClient],
        people: People,
        client: TestClient,
        bearer: Bearer,
        change: dict[str, object],
    ) -> None:
        theirs, mine = signed_in(people.user), signed_in(people.curator)
        path = f"/api/users/{people.user.public_id}"
        assert client.patch(path, json=change, headers=bearer(people.admin)).status_code == 200
        assert theirs.get("/api/auth/me").status_code == 401
        assert mine.get("/api/auth/me").status_code == 200

    def test_a_change_of_name_ends_nothing(
        self, signed_in: Callable[[Actor], TestClient], people: People, client: TestClient, bearer: Bearer
    ) -> None:
        theirs = signed_in(people.user)
        path = f"/api/users/{people.user.public_id}"
        body = {"name": "Renamed", "role": "USER", "is_active": True}
        assert client.patch(path, json=body, headers=bearer(people.admin)).status_code == 200
        assert theirs.get("/api/auth/me").json()["name"] == "Renamed"


class TestMetaSession:
    def test_guest(self, client: TestClient) -> None:
        body = client.get("/api/meta/session").json()
        assert body["user"] is None
        assert body["may_generate"] is False
        assert (body["site_title"], body["registration"]) == ("VisionSuit", "open")
        assert body["limits"]["image_bytes"] == 10 * 1024**2

    def test_stale_cookie_is_a_guest(self, client: TestClient) -> None:
        client.cookies["visionsuit_session"] = "nonsense"
        assert client.get("/api/meta/session").json()["user"] is None

    @pytest.mark.parametrize("name", ["user", "curator", "admin", "superadmin"])
    def test_member(self, client: TestClient, people: People, bearer: Bearer, name: str) -> None:
        actor = getattr(people, name)
        body = client.get("/api/meta/session", headers=bearer(actor)).json()
        assert body["user"]["id"] == actor.public_id
        assert body["user"]["role"] == Role(actor.role)
        assert body["may_generate"] is True
        assert ("users:manage" in body["user"]["permissions"]) == actor.is_admin

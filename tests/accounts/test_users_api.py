"""Who may look after whom."""

import threading
from collections.abc import Callable
from itertools import permutations

import pytest
from starlette.testclient import TestClient

from tests.accounts.conftest import PASSWORD
from tests.conftest import People
from tests.postgres import both_databases
from visionsuit.accounts.members import MemberChanges, change_member
from visionsuit.accounts.roles import LastSuperadmin
from visionsuit.accounts.service import update_profile
from visionsuit.accounts.tables import Account
from visionsuit.audit.tables import AuditEntry
from visionsuit.core.actor import SYSTEM, Actor, Role
from visionsuit.core.errors import AppError, NotPermitted, NotSignedIn
from visionsuit.runtime import Runtime

Bearer = Callable[[Actor], dict[str, str]]
EVERYBODY = ["guest", "user", "curator", "admin", "superadmin"]


@pytest.fixture
def as_somebody(people: People, bearer: Bearer) -> Callable[[str], dict[str, str]]:
    return lambda name: {} if name == "guest" else bearer(getattr(people, name))


As = Callable[[str], dict[str, str]]


def refusal(name: str) -> int:
    return 401 if name == "guest" else 403


class TestOwnProfile:
    def test_change(self, client: TestClient, people: People, bearer: Bearer) -> None:
        body = {"name": " Mira  Dam ", "bio": "Foxes.\n", "shows_adult": True, "role": "ADMIN", "email": "x@y.org"}
        answer = client.patch("/api/users/me", json=body, headers=bearer(people.user))
        user = answer.json()
        assert answer.status_code == 200
        assert (user["name"], user["bio"], user["shows_adult"], user["role"]) == ("Mira Dam", "Foxes.", True, "USER")
        assert user["email"] == "user@example.org"
        unchanged = client.patch("/api/users/me", json={"name": None}, headers=bearer(people.user)).json()
        assert unchanged == user
        assert client.patch("/api/users/me", json={"bio": ""}, headers=bearer(people.user)).json()["bio"] == ""

    @pytest.mark.parametrize("body", [{"name": "x"}, {"bio": "x" * 601}, {"shows_adult": "maybe"}, {"name": 5}])
    def test_refused(self, client: TestClient, people: People, bearer: Bearer, body: dict[str, object]) -> None:
        answer = client.patch("/api/users/me", json=body, headers=bearer(people.user))
        assert answer.status_code == 422
        assert answer.json()["error"]["field"] == next(iter(body))

    def test_guest(self, client: TestClient, runtime: Runtime, people: People) -> None:
        assert client.patch("/api/users/me", json={"name": "Nobody"}).status_code == 401
        with pytest.raises(NotSignedIn), runtime.open_ctx(people.guest) as ctx:
            update_profile(ctx, name="Nobody")


class TestPublicProfile:
    @pytest.mark.parametrize("name", EVERYBODY)
    def test_everybody_sees_it(self, client: TestClient, people: People, as_somebody: As, name: str) -> None:
        answer = client.get(f"/api/users/{people.other_curator.public_id}", headers=as_somebody(name))
        assert answer.json() == {
            "id": people.other_curator.public_id,
            "name": "other_curator",
            "bio": "",
            "avatar_url": None,
            "role": "CURATOR",
        }

    @pytest.mark.parametrize("name", EVERYBODY)
    def test_deactivated(
        self, client: TestClient, people: People, runtime: Runtime, as_somebody: As, name: str
    ) -> None:
        with runtime.open_ctx(SYSTEM) as ctx:
            ctx.session.get_one(Account, people.other_user.user_id).is_active = False
        answer = client.get(f"/api/users/{people.other_user.public_id}", headers=as_somebody(name))
        assert answer.status_code == (200 if name in ("admin", "superadmin") else 404)

    @pytest.mark.parametrize("id_", ["1", "nobody", "%00", "..%2f", "x" * 400, "é"])
    def test_unknown(self, client: TestClient, id_: str) -> None:
        assert client.get(f"/api/users/{id_}").status_code == 404


@both_databases
class TestList:
    @pytest.mark.parametrize("name", ["guest", "user", "curator"])
    def test_refused(self, client: TestClient, as_somebody: As, name: str) -> None:
        assert client.get("/api/users", headers=as_somebody(name)).status_code == refusal(name)

    @pytest.mark.parametrize("name", ["admin", "superadmin"])
    def test_pages(self, client: TestClient, people: People, as_somebody: As, name: str) -> None:
        headers = as_somebody(name)
        for number in range(5):
            people.make(f"member{number}")
        seen: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            body = client.get(
                "/api/users", params={"limit": 2, "cursor": cursor} if cursor else {"limit": 2}, headers=headers
            ).json()
            seen += [item["name"] for item in body["items"]]
            cursor = body["next_cursor"]
        assert seen == [*(f"member{number}" for number in (4, 3, 2, 1, 0)), name]

    def test_search(self, client: TestClient, people: People, bearer: Bearer) -> None:
        for name in ("Ärmel", "100%", "under_score", "Mixed", "plain"):
            people.make(name)
        people.make("kurator", Role.CURATOR)

        def found(q: str, **more: str) -> set[str]:
            answer = client.get("/api/users", params={"q": q, **more}, headers=bearer(people.admin))
            assert answer.status_code == 200
            return {item["name"] for item in answer.json()["items"]}

        assert found("mix") == {"Mixed"}
        assert found("Ärm") == {"Ärmel"}
        assert found("%") == {"100%"}
        assert found("_") == {"under_score"}
        assert found("\\") == set()
        assert found("\0mix") == {"Mixed"}
        assert found("PLAIN@example.org") == {"plain"}
        assert found("", role="CURATOR") == {"kurator"}

    @pytest.mark.parametrize("query", [{"cursor": "nonsense"}, {"limit": 0}, {"limit": 101}, {"role": "KING"}])
    def test_bad_query(self, client: TestClient, people: People, bearer: Bearer, query: dict[str, str]) -> None:
        assert client.get("/api/users", params=query, headers=bearer(people.admin)).status_code == 422


class TestCreate:
    @pytest.mark.parametrize("role", ["USER", "CURATOR", "ADMIN", "SUPERADMIN"])
    @pytest.mark.parametrize("name", EVERYBODY)
    def test_matrix(self, client: TestClient, as_somebody: As, name: str, role: str) -> None:
        body = {"email": "new@example.org", "password": PASSWORD, "name": "New", "role": role}
        answer = client.post("/api/users", json=body, headers=as_somebody(name))
        allowed = name == "superadmin" or (name == "admin" and role in ("USER", "CURATOR"))
        assert answer.status_code == (201 if allowed else refusal(name))
        if allowed:
            assert (answer.json()["role"], answer.json()["is_active"]) == (role, True)
            assert client.post("/api/users", json=body, headers=as_somebody(name)).status_code == 409
            assert (
                client.post("/api/auth/login", json={"email": body["email"], "password": PASSWORD}).status_code == 200
            )

    def test_guest_is_no_role(self, client: TestClient, people: People, bearer: Bearer) -> None:
        body = {"email": "new@example.org", "password": PASSWORD, "name": "New", "role": "GUEST"}
        assert client.post("/api/users", json=body, headers=bearer(people.superadmin)).status_code == 422


def may_manage(name: str, target: str) -> bool:
    return name == "superadmin" or (name == "admin" and target in ("USER", "CURATOR"))


class TestChange:
    @pytest.mark.parametrize(
        ("was", "becomes"), permutations(["USER", "CURATOR", "ADMIN", "SUPERADMIN"], 2), ids=lambda role: str(role)
    )
    @pytest.mark.parametrize("name", EVERYBODY)
    def test_role_matrix(
        self,
        client: TestClient,
        people: People,
        row_of: Callable[[Actor], Account],
        as_somebody: As,
        name: str,
        was: str,
        becomes: str,
    ) -> None:
        target = people.make("target", Role(was))
        answer = client.patch(f"/api/users/{target.public_id}", json={"role": becomes}, headers=as_somebody(name))
        allowed = may_manage(name, was) and may_manage(name, becomes)
        assert answer.status_code == (200 if allowed else refusal(name))
        assert row_of(target).role == (becomes if allowed else was)

    @pytest.mark.parametrize(
        "change", [{"is_active": False}, {"name": "Renamed"}, {"bio": "x"}, {"password": PASSWORD}]
    )
    @pytest.mark.parametrize("was", ["USER", "CURATOR", "ADMIN", "SUPERADMIN"])
    @pytest.mark.parametrize("name", EVERYBODY)
    def test_other_changes_matrix(
        self, client: TestClient, people: People, as_somebody: As, name: str, was: str, change: dict[str, object]
    ) -> None:
        target = people.make("target", Role(was))
        answer = client.patch(f"/api/users/{target.public_id}", json=change, headers=as_somebody(name))
        assert answer.status_code == (200 if may_manage(name, was) else refusal(name))

    @pytest.mark.parametrize("name", ["admin", "superadmin"])
    def test_oneself(self, client: TestClient, people: People, as_somebody: As, name: str) -> None:
        people.make("spare", Role.SUPERADMIN)
        path = f"/api/users/{getattr(people, name).public_id}"
        own = client.patch(path, json={"is_active": False}, headers=as_somebody(name))
        assert (own.status_code, own.json()["error"]["code"]) == (409, "own_account")
        assert client.patch(path, json={"password": PASSWORD}, headers=as_somebody(name)).status_code == 409
        assert client.patch(path, json={"name": "Renamed"}, headers=as_somebody(name)).status_code == 200

    def test_admin_cannot_raise_or_resign(self, client: TestClient, people: People, bearer: Bearer) -> None:
        path = f"/api/users/{people.admin.public_id}"
        for role in ("SUPERADMIN", "USER"):
            assert client.patch(path, json={"role": role}, headers=bearer(people.admin)).status_code == 403

    @both_databases
    def test_last_superadmin_stays(self, client: TestClient, people: People, bearer: Bearer) -> None:
        path = f"/api/users/{people.superadmin.public_id}"
        resign = {"role": "ADMIN"}
        answer = client.patch(path, json=resign, headers=bearer(people.superadmin))
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "last_superadmin")
        other = people.make("inactive", Role.SUPERADMIN)
        client.patch(f"/api/users/{other.public_id}", json={"is_active": False}, headers=bearer(people.superadmin))
        assert client.patch(path, json=resign, headers=bearer(people.superadmin)).status_code == 409
        client.patch(f"/api/users/{other.public_id}", json={"is_active": True}, headers=bearer(people.superadmin))
        assert client.patch(path, json=resign, headers=bearer(people.superadmin)).status_code == 200

    def test_nothing_of_a_refused_change_stays(
        self, client: TestClient, people: People, bearer: Bearer, row_of: Callable[[Actor], Account]
    ) -> None:
        body = {"name": "Renamed", "role": "ADMIN"}
        path = f"/api/users/{people.user.public_id}"
        assert client.patch(path, json=body, headers=bearer(people.admin)).status_code == 403
        assert row_of(people.user).name == "user"

    @both_databases
    def test_audit(
        self, client: TestClient, people: People, bearer: Bearer, audit: Callable[[], list[AuditEntry]]
    ) -> None:
        body = {"role": "CURATOR", "is_active": False, "password": PASSWORD}
        client.patch(f"/api/users/{people.user.public_id}", json=body, headers=bearer(people.admin))
        entries = {entry.action: entry for entry in audit()}
        assert entries.keys() == {"role.changed", "account.deactivated", "account.edited"}
        changed = entries["role.changed"]
        assert (changed.actor_id, changed.target) == (people.admin.user_id, people.user.public_id)
        assert changed.detail == {"from": "USER", "to": "CURATOR"}
        assert PASSWORD not in str([entry.detail for entry in entries.values()])

    @pytest.mark.parametrize("change", [{"role": "KING"}, {"role": "GUEST"}, {"name": ""}, {"password": "short"}])
    def test_bad(self, client: TestClient, people: People, bearer: Bearer, change: dict[str, str]) -> None:
        path = f"/api/users/{people.user.public_id}"
        answer = client.patch(path, json=change, headers=bearer(people.superadmin))
        assert (answer.status_code, answer.json()["error"]["field"]) == (422, next(iter(change)))

    def test_unknown(self, client: TestClient, people: People, bearer: Bearer) -> None:
        assert client.patch("/api/users/nobody", json={}, headers=bearer(people.admin)).status_code == 404

    @both_databases
    def test_two_superadmins_who_demote_each_other(self, runtime: Runtime, people: People) -> None:
        pair = [people.make("first", Role.SUPERADMIN), people.make("second", Role.SUPERADMIN)]
        barrier = threading.Barrier(2)
        outcomes: list[AppError | None] = []

        def demote(actor: Actor, target: Actor) -> None:
            barrier.wait()
            try:
                change_member(runtime, actor, target.public_id, MemberChanges(role=Role.USER))
                outcomes.append(None)
            except AppError as error:
                outcomes.append(error)

        threads = [threading.Thread(target=demote, args=(a, b)) for a, b in (pair, pair[::-1])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(type(outcome) for outcome in outcomes if outcome is not None) == [NotPermitted]
        assert len(outcomes) == 2

    @both_databases
    def test_two_who_resign_at_once(self, runtime: Runtime, people: People) -> None:
        pair = [people.make("first", Role.SUPERADMIN), people.make("second", Role.SUPERADMIN)]
        barrier = threading.Barrier(2)
        refused: list[LastSuperadmin] = []

        def resign(actor: Actor) -> None:
            barrier.wait()
            try:
                change_member(runtime, actor, actor.public_id, MemberChanges(role=Role.USER))
            except LastSuperadmin as error:
                refused.append(error)

        threads = [threading.Thread(target=resign, args=(actor,)) for actor in pair]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) == 1

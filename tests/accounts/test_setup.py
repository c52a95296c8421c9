"""How the first administrator comes to be."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlmodel import select
from starlette.testclient import TestClient

from tests.accounts.conftest import PASSWORD
from tests.conftest import People
from tests.postgres import both_databases
from visionsuit.accounts.passwords import BadPassword, verify_password
from visionsuit.accounts.roles import BadRole, LastSuperadmin
from visionsuit.accounts.service import upsert_admin
from visionsuit.accounts.sessions import Source
from visionsuit.accounts.setup import BadSetupLink, accept_setup, prepare_first_admin
from visionsuit.accounts.tables import Account, SetupInvitation
from visionsuit.audit.tables import AuditEntry
from visionsuit.core.actor import SYSTEM, Actor, Role
from visionsuit.core.config import Settings
from visionsuit.runtime import Runtime

pytestmark = both_databases

BODY = {"email": "ada@example.org", "password": PASSWORD, "name": "Ada"}


def accounts(runtime: Runtime) -> list[Account]:
    with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        return list(ctx.session.exec(select(Account)))


class TestLink:
    def test_same_link_until_used_then_none(
        self, runtime: Runtime, client: TestClient, audit: Callable[[], list[AuditEntry]]
    ) -> None:
        path = prepare_first_admin(runtime)
        assert path is not None
        assert path.startswith("/setup?token=")
        assert prepare_first_admin(runtime) == path
        token = path.partition("=")[2]
        with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
            assert token not in str(ctx.session.get_one(SetupInvitation, 1).model_dump())
        answer = client.post("/api/auth/setup", json={**BODY, "token": token})
        assert answer.status_code == 201
        assert answer.json()["user"]["role"] == "SUPERADMIN"
        assert client.get("/api/users").status_code == 200
        again = client.post("/api/auth/setup", json={**BODY, "email": "eve@example.org", "token": token})
        assert (again.status_code, again.json()["error"]["code"]) == (403, "bad_setup_link")
        assert prepare_first_admin(runtime) is None
        assert [entry.action for entry in audit()] == ["setup.used"]

    @pytest.mark.parametrize("token", ["", "x", "0" * 64, "é", "\0"])
    def test_wrong_token(self, runtime: Runtime, client: TestClient, token: str) -> None:
        prepare_first_admin(runtime)
        assert client.post("/api/auth/setup", json={**BODY, "token": token}).status_code == 403
        assert accounts(runtime) == []

    def test_no_link_was_made(self, client: TestClient) -> None:
        assert client.post("/api/auth/setup", json={**BODY, "token": "0" * 64}).status_code == 403

    def test_a_bad_form_leaves_the_link_good(self, runtime: Runtime, client: TestClient) -> None:
        token = str(prepare_first_admin(runtime)).partition("=")[2]
        assert client.post("/api/auth/setup", json={**BODY, "token": token, "password": "short"}).status_code == 422
        assert client.post("/api/auth/setup", json={**BODY, "token": token}).status_code == 201

    def test_somebody_who_joins_first_does_not_close_it(self, runtime: Runtime, client: TestClient) -> None:
        client.post("/api/auth/register", json={**BODY, "email": "early@example.org"})
        token = str(prepare_first_admin(runtime)).partition("=")[2]
        assert client.post("/api/auth/setup", json={**BODY, "token": token}).status_code == 201

    @pytest.mark.usefixtures("slow_hashes")
    def test_used_by_one_of_many_at_once(self, runtime: Runtime) -> None:
        token = str(prepare_first_admin(runtime)).partition("=")[2]
        barrier = threading.Barrier(3)
        outcomes: list[str] = []

        def accept(number: int) -> None:
            barrier.wait()
            try:
                accept_setup(runtime, token, f"a{number}@example.org", PASSWORD, "Ada", Source())
                outcomes.append("made")
            except BadSetupLink:
                outcomes.append("refused")

        threads = [threading.Thread(target=accept, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["made", "refused", "refused"]
        assert len(accounts(runtime)) == 1

    def test_link_is_of_this_server(self, runtime: Runtime, settings: Settings) -> None:
        first = prepare_first_admin(runtime)
        elsewhere = Runtime(
            settings=settings,
            database=runtime.database,
            storage=runtime.storage,
            engine=runtime.engine,
            secret=b"t" * 32,
        )
        assert prepare_first_admin(elsewhere) != first


class TestEnvironment:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        return Settings(
            _env_file=None,  # type: ignore[call-arg]
            data_dir=tmp_path / "data",
            worker=False,
            admin_email="Root@Example.org",
            admin_password=SecretStr(PASSWORD),
        )

    def test_makes_one_once(self, runtime: Runtime, client: TestClient) -> None:
        assert prepare_first_admin(runtime) is None
        (account,) = accounts(runtime)
        assert (account.email, account.role) == ("root@example.org", Role.SUPERADMIN)
        login = {"email": "root@example.org", "password": PASSWORD}
        assert client.post("/api/auth/login", json=login).status_code == 200
        body = {"current_password": PASSWORD, "new_password": "changed since then"}
        assert client.put("/api/users/me/password", json=body).status_code == 200
        assert prepare_first_admin(runtime) is None
        (account,) = accounts(runtime)
        assert verify_password("changed since then", account.password_hash)

    def test_leaves_an_existing_superadmin_alone(self, runtime: Runtime, people: People) -> None:
        assert people.superadmin
        assert prepare_first_admin(runtime) is None
        assert [account.name for account in accounts(runtime)] == ["superadmin"]


def test_environment_with_a_short_password_says_so(runtime: Runtime) -> None:
    settings = runtime.settings.model_copy(update={"admin_email": "a@b.org", "admin_password": SecretStr("short")})
    short = Runtime(
        settings=settings, database=runtime.database, storage=runtime.storage, engine=runtime.engine, secret=b"s" * 32
    )
    with pytest.raises(BadPassword, match="8 to 1,024"):
        prepare_first_admin(short)


class TestUpsert:
    def test_new_and_existing(self, runtime: Runtime, people: People, client: TestClient) -> None:
        with runtime.open_ctx(SYSTEM) as ctx:
            made = upsert_admin(ctx, "ada@example.org", PASSWORD, "Ada", "Counts.")
        assert (made.role, made.name, made.bio) == (Role.SUPERADMIN, "Ada", "Counts.")
        with runtime.open_ctx(SYSTEM) as ctx:
            ctx.session.get_one(Account, people.user.user_id).is_active = False
        with runtime.open_ctx(SYSTEM) as ctx:
            changed = upsert_admin(ctx, "USER@example.org", PASSWORD, role=Role.ADMIN)
        assert (changed.id, changed.role, changed.name) == (people.user.user_id, Role.ADMIN, "user")
        assert changed.is_active
        assert (
            client.post("/api/auth/login", json={"email": "user@example.org", "password": PASSWORD}).status_code == 200
        )

    def test_ends_sessions(
        self, runtime: Runtime, people: People, client: TestClient, bearer: Callable[[Actor], dict[str, str]]
    ) -> None:
        headers = bearer(people.admin)
        with runtime.open_ctx(SYSTEM) as ctx:
            upsert_admin(ctx, "admin@example.org", PASSWORD)
        assert client.get("/api/auth/me", headers=headers).status_code == 401

    def test_keeps_the_last_superadmin(self, runtime: Runtime) -> None:
        with runtime.open_ctx(SYSTEM) as ctx:
            upsert_admin(ctx, "ada@example.org", PASSWORD)
        with pytest.raises(LastSuperadmin), runtime.open_ctx(SYSTEM) as ctx:
            upsert_admin(ctx, "ada@example.org", PASSWORD, role=Role.ADMIN)
        with pytest.raises(BadRole), runtime.open_ctx(SYSTEM) as ctx:
            upsert_admin(ctx, "ada@example.org", PASSWORD, role=Role.GUEST)

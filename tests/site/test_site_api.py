"""Live settings, public numbers, status and health."""

import shutil
from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlmodel import select
from starlette.testclient import TestClient

from tests.conftest import People
from tests.postgres import both_databases
from visionsuit.audit.tables import AuditEntry
from visionsuit.core.actor import SYSTEM, Actor, Scope
from visionsuit.core.config import GeneratorAccess, RegistrationPolicy, Settings
from visionsuit.core.errors import NotPermitted, NotSignedIn
from visionsuit.db import open_database
from visionsuit.engine.mock import MockEngine
from visionsuit.main import create_api, guarded
from visionsuit.runtime import Runtime
from visionsuit.site.live import (
    GeneratorClosed,
    change_settings,
    get_live,
    get_setting,
    may_generate,
    require_may_generate,
)
from visionsuit.site.stats import KEPT_SECONDS, StatsCache
from visionsuit.site.status import State, StatusCache, check_site
from visionsuit.site.tables import SettingRow

Bearer = Callable[[Actor], dict[str, str]]
EVERYBODY = ["guest", "user", "curator", "admin", "superadmin"]


def headers_of(people: People, bearer: Bearer, name: str) -> dict[str, str]:
    return {} if name == "guest" else bearer(getattr(people, name))


@both_databases
class TestSettings:
    @pytest.mark.parametrize("name", EVERYBODY)
    @pytest.mark.parametrize("method", ["GET", "PATCH"])
    def test_matrix(self, client: TestClient, people: People, bearer: Bearer, name: str, method: str) -> None:
        body = {"site_title": "Foxes"} if method == "PATCH" else None
        answer = client.request(method, "/api/settings", json=body, headers=headers_of(people, bearer, name))
        expected = {"guest": 401, "user": 403, "curator": 403}.get(name, 200)
        assert answer.status_code == expected
        title = client.get("/api/meta/session").json()["site_title"]
        assert title == ("Foxes" if method == "PATCH" and expected == 200 else "VisionSuit")

    def test_change_applies_at_once_and_is_written_down(
        self, client: TestClient, people: People, bearer: Bearer, runtime: Runtime
    ) -> None:
        body = {"registration": "closed", "generator_access": "members", "unknown": 1}
        answer = client.patch("/api/settings", json=body, headers=bearer(people.admin))
        assert answer.json() == {
            "site_title": "VisionSuit",
            "registration": "closed",
            "generator_access": "members",
            "auto_test_sheets": False,
        }
        assert client.get("/api/meta/session").json()["registration"] == "closed"
        with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
            (entry,) = ctx.session.exec(select(AuditEntry)).all()
            (row,) = ctx.session.exec(select(SettingRow)).all()
        assert (entry.action, entry.actor_id) == ("settings.changed", people.admin.user_id)
        assert entry.detail == {"registration": {"from": "open", "to": "closed"}}
        assert (row.key, row.changed_by) == ("registration", people.admin.user_id)
        client.patch("/api/settings", json={"registration": "open"}, headers=bearer(people.admin))
        assert client.get("/api/meta/session").json()["registration"] == "open"

    @pytest.mark.parametrize(
        "body",
        [
            {"site_title": " "},
            {"site_title": "x" * 81},
            {"site_title": "\0"},
            {"registration": "maybe"},
            {"generator_access": 1},
        ],
    )
    def test_refused(self, client: TestClient, people: People, bearer: Bearer, body: dict[str, object]) -> None:
        answer = client.patch("/api/settings", json=body, headers=bearer(people.admin))
        assert (answer.status_code, answer.json()["error"]["field"]) == (422, next(iter(body)))

    def test_a_row_of_another_version_does_no_harm(self, runtime: Runtime) -> None:
        with runtime.open_ctx(SYSTEM) as ctx:
            ctx.session.add(SettingRow(key="registration", value="by invitation"))
            ctx.session.add(SettingRow(key="theme", value={"accent": "violet"}))
            ctx.session.add(SettingRow(key="site_title", value="Foxes"))
        with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
            live = get_live(ctx)
        assert (live.registration, live.site_title) == (RegistrationPolicy.OPEN, "Foxes")

    def test_environment_is_the_default(self, runtime: Runtime) -> None:
        settings = runtime.settings.model_copy(update={"site_title": "Ours", "registration": RegistrationPolicy.CLOSED})
        with replace(runtime, settings=settings).open_ctx(SYSTEM) as ctx:
            assert get_setting(ctx, "site_title") == "Ours"
            assert get_setting(ctx, "registration") is RegistrationPolicy.CLOSED
            change_settings(ctx, {"registration": RegistrationPolicy.OPEN})
            assert get_setting(ctx, "registration") is RegistrationPolicy.OPEN


class TestMayGenerate:
    @pytest.mark.parametrize("access", list(GeneratorAccess))
    @pytest.mark.parametrize("name", EVERYBODY)
    def test_by_role(self, runtime: Runtime, people: People, name: str, access: GeneratorAccess) -> None:
        with runtime.open_ctx(SYSTEM) as ctx:
            change_settings(ctx, {"generator_access": access})
        allowed = {
            GeneratorAccess.ADMINS: EVERYBODY[3:],
            GeneratorAccess.CURATORS: EVERYBODY[2:],
            GeneratorAccess.MEMBERS: EVERYBODY[1:],
            GeneratorAccess.OPEN: EVERYBODY[1:],
        }
        with runtime.open_ctx(getattr(people, name), read_only=True) as ctx:
            assert may_generate(ctx) == (name in allowed[access])
            if name in allowed[access]:
                require_may_generate(ctx)
            else:
                with pytest.raises(NotSignedIn if name == "guest" else GeneratorClosed):
                    require_may_generate(ctx)

    def test_token_needs_the_scope(self, runtime: Runtime, people: People) -> None:
        reader = replace(people.admin, scopes=frozenset({Scope.READ}))
        with runtime.open_ctx(reader, read_only=True) as ctx:
            assert not may_generate(ctx)
            with pytest.raises(NotPermitted, match="scope 'generate'"):
                require_may_generate(ctx)


@both_databases
class TestStats:
    def test_counts_and_keeps_them_for_seconds(self, runtime: Runtime, people: People) -> None:
        now = [0.0]
        cache = StatsCache(clock=lambda: now[0])

        def members() -> int:
            with runtime.open_ctx(people.guest, read_only=True) as ctx:
                return cache.read(ctx)["members"]

        people.make("first")
        assert members() == 1
        people.make("second")
        assert members() == 1
        now[0] += KEPT_SECONDS
        assert members() == 2

    def test_public(self, client: TestClient, people: People) -> None:
        people.make("somebody")
        body = client.get("/api/meta/stats").json()
        assert body == {"models": 0, "images": 0, "galleries": 0, "generations": 0, "members": 1}


class TestStatus:
    def client(self, runtime: Runtime) -> TestClient:
        return TestClient(guarded(create_api(runtime), runtime), base_url="http://127.0.0.1:7860")  # type: ignore[arg-type]

    def test_alive(self, client: TestClient) -> None:
        assert client.get("/health").json() == {"status": "ok"}

    @both_databases
    def test_ready(self, runtime: Runtime) -> None:
        runtime.engine.start()
        answer = self.client(runtime).get("/health/ready")
        assert answer.status_code == 200
        assert {part: body["state"] for part, body in answer.json().items()} == {
            "database": "ok",
            "storage": "ok",
            "engine": "ok",
        }

    def test_a_process_without_worker_needs_no_engine(self, runtime: Runtime) -> None:
        assert self.client(runtime).get("/health/ready").status_code == 200
        assert self.client(runtime).get("/api/meta/status").json()["engine"]["state"] == "degraded"

    def test_engine_that_is_not_up(self, runtime: Runtime) -> None:
        settings = runtime.settings.model_copy(update={"worker": True})
        engine = MockEngine()
        for state in ("starting", "down"):
            answer = self.client(replace(runtime, settings=settings, engine=engine)).get("/health/ready")
            assert (answer.status_code, answer.json()["engine"]["state"]) == (503, state)
            engine.close()

    def test_storage_that_cannot_be_written(self, runtime: Runtime, settings: Settings) -> None:
        shutil.rmtree(settings.storage_folder)
        settings.storage_folder.write_text("a file where the folder was")
        answer = self.client(runtime).get("/health/ready")
        assert (answer.status_code, answer.json()["storage"]["state"]) == (503, "down")
        assert str(settings.storage_folder) not in answer.text

    def test_database_that_does_not_answer(self, runtime: Runtime) -> None:
        gone = replace(runtime, database=open_database("postgresql://user:secret@127.0.0.1:9/nothing"))
        answer = self.client(gone).get("/health/ready")
        assert (answer.status_code, answer.json()["database"]["state"]) == (503, "down")
        assert "secret" not in answer.text
        assert self.client(gone).get("/health").status_code == 200

    def test_probe_leaves_nothing_behind(self, runtime: Runtime, settings: Settings) -> None:
        assert check_site(runtime).storage.state is State.OK
        assert [path for path in settings.storage_folder.rglob("*") if path.is_file()] == []

    def test_kept_for_seconds(self, runtime: Runtime) -> None:
        now = [0.0]
        cache = StatusCache(clock=lambda: now[0])
        assert cache.read(runtime).engine.state is State.DEGRADED
        runtime.engine.start()
        assert cache.read(runtime).engine.state is State.DEGRADED
        now[0] += 60
        assert cache.read(runtime).engine.state is State.OK

    def test_public_status(self, client: TestClient) -> None:
        body = client.get("/api/meta/status").json()
        assert body.keys() == {"web", "database", "storage", "engine"}
        assert body["web"]["state"] == "ok"

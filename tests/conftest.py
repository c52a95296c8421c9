"""Fixtures that every area shares: a runtime on real SQLite and folder storage, people, a client."""

import gc
import os
import shutil

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from tests.browser import browser, watched  # noqa: F401  (fixtures)
from tests.postgres import find_binaries, reused_database, running_server
from tests.s3server import serve_s3
from visionsuit.accounts.tables import Account
from visionsuit.core.actor import GUEST, SYSTEM, Actor, Role
from visionsuit.core.config import Settings, StorageSettings
from visionsuit.db import create_schema, open_database
from visionsuit.engine.mock import MockEngine
from visionsuit.log import configure_logging
from visionsuit.main import create_api, guarded
from visionsuit.runtime import Ctx, Runtime
from visionsuit.storage.folder import FolderStorage

configure_logging(Settings(_env_file=None, log_level="WARNING"))  # type: ignore[call-arg]

MODELS_DIR = Path(__file__).parents[1] / "models_cache"


#: Files that take longest, many of them with few tests: begun first, so that none of them runs alone at the end.
LONG = (
    "tests/uploads/test_process.py",
    "tests/pages/test_generator.py",
    "tests/uploads/test_api.py",
    "tests/engine/test_memory.py",
    "tests/journeys/",
    "tests/pages/test_modes.py",
    "tests/pages/test_shell.py",
    "tests/generation/test_crash.py",
    "tests/pages/test_base_models.py",
    "tests/engine/test_init.py",
    "tests/pages/test_accounts.py",
    "tests/engine/test_render.py",
    "tests/pages/test_details.py",
    "tests/engine/test_batching.py",
    "tests/security/test_rest_matrix.py",
    "tests/demo_model/test_stages.py",
    "tests/test_app.py",
)


@pytest.fixture(scope="module", autouse=True)
def _what_is_there_stays() -> None:
    """Imports, collected tests, servers of the session: looking through them at every collection of garbage takes a
    good part of the time, and tests of memory collect often."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return next((at for at, path in enumerate(LONG) if item.nodeid.startswith(path)), len(LONG))

    items.sort(key=place)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(  # type: ignore[call-arg]
        _env_file=None, data_dir=tmp_path / "data", models_dir=MODELS_DIR, worker=False, auto_test_sheets=False
    )


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Address of a PostgreSQL server of our own; without its programs, tests on it are skipped."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL's programs are not installed (apt install postgresql)")
    with running_server(binaries) as server:
        yield server


@pytest.fixture(scope="session")
def _postgres_database(postgres_server: str) -> Iterator[Callable[[], str]]:
    with reused_database(postgres_server) as emptied:
        yield emptied


@pytest.fixture
def postgres_url(_postgres_database: Callable[[], str]) -> str:
    """Address of a PostgreSQL database with the schema and no row. Who changes the schema takes `fresh_database`."""
    return _postgres_database()


@pytest.fixture
def database_url(request: pytest.FixtureRequest, settings: Settings) -> str:
    """SQLite, or what `tests.postgres.both_databases` asks for."""
    kind = getattr(request, "param", "sqlite")
    return request.getfixturevalue("postgres_url") if kind == "postgresql" else settings.database


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the schema, to be copied for each test."""
    path = tmp_path_factory.mktemp("template") / "empty.db"
    database = open_database(f"sqlite:///{path}")
    create_schema(database)
    database.dispose()
    assert not path.with_name("empty.db-wal").exists()
    return path


@pytest.fixture
def runtime(settings: Settings, database_url: str, sqlite_template: Path) -> Iterator[Runtime]:
    if database_url == settings.database:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sqlite_template, settings.data_dir / "visionsuit.db")
    database = open_database(database_url)
    storage = FolderStorage(settings.storage_folder)
    storage.prepare()
    yield Runtime(settings=settings, database=database, storage=storage, engine=MockEngine(), secret=b"s" * 32)
    database.dispose()


class People:
    """Accounts made when first asked for: `people.curator` is an Actor with a row behind it."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._made: dict[str, Actor] = {}

    def __getattr__(self, name: str) -> Actor:
        roles = {"user": Role.USER, "curator": Role.CURATOR, "admin": Role.ADMIN, "superadmin": Role.SUPERADMIN}
        if name == "guest":
            return GUEST
        if name.startswith("_"):
            raise AttributeError(name)
        kind = name.removeprefix("other_")
        if kind not in roles:
            raise AttributeError(name)
        if name not in self._made:
            self._made[name] = self.make(name, roles[kind])
        return self._made[name]

    def make(self, name: str, role: Role = Role.USER, *, shows_adult: bool = False) -> Actor:
        with self._runtime.open_ctx(SYSTEM) as ctx:
            account = Account(
                email=f"{name}@example.org", name=name, role=role, password_hash="!", shows_adult=shows_adult
            )
            ctx.session.add(account)
            ctx.session.flush()
        return Actor(user_id=account.id, role=role, name=name, public_id=account.public_id, shows_adult=shows_adult)

    def with_adult(self, actor: Actor) -> Actor:
        return replace(actor, shows_adult=True)


@pytest.fixture
def people(runtime: Runtime) -> People:
    return People(runtime)


@pytest.fixture
def as_(runtime: Runtime) -> Iterator[Callable[[Actor], Ctx]]:
    """`as_(people.curator)` is a Ctx of that person, in a transaction of its own that ends with the test.

    For reads. What writes uses `with runtime.open_ctx(actor) as ctx`, since SQLite has one writer at a time.
    """
    with ExitStack() as stack:
        yield lambda actor: stack.enter_context(runtime.open_ctx(actor, read_only=True))


@pytest.fixture(scope="session")
def _shared_api(sqlite_template: Path) -> FastAPI:
    settings = Settings(_env_file=None, data_dir=sqlite_template.parent, worker=False)  # type: ignore[call-arg]
    database = open_database(f"sqlite:///{sqlite_template}")
    storage = FolderStorage(settings.storage_folder)
    return create_api(Runtime(settings=settings, database=database, storage=storage, engine=MockEngine(), secret=b""))


@pytest.fixture
def api(runtime: Runtime, _shared_api: FastAPI) -> FastAPI:
    """Routes build themselves when first asked, which takes longer than most tests, and get their runtime with each
    request: without a worker, which begins and ends with its application, all tests share one."""
    return create_api(runtime) if runtime.settings.worker else _shared_api


@pytest.fixture
def client(api: FastAPI, runtime: Runtime) -> Iterator[TestClient]:
    """A guest; send `headers=bearer(people.curator)` to be somebody."""
    with TestClient(guarded(api, runtime), base_url="http://127.0.0.1:7860") as client:  # type: ignore[arg-type]
        yield client


@pytest.fixture
def bearer(runtime: Runtime) -> Callable[[Actor], dict[str, str]]:
    """Headers that make a request come from `actor`, through the real token code."""

    def headers(actor: Actor) -> dict[str, str]:
        from visionsuit.accounts.sessions import issue_token

        with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
            account = ctx.session.get(Account, actor.user_id)
            assert account is not None
            return {"Authorization": f"Bearer {issue_token(runtime, account)}"}

    return headers


@pytest.fixture(scope="session")
def s3_settings() -> Iterator[StorageSettings]:
    """A real S3 server over HTTP; tests take a bucket prefix of their own."""
    with serve_s3() as settings:
        yield settings

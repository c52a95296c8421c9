"""The whole app in a uvicorn thread, opened in Chromium by people of every kind."""

import functools
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page

from app import create_app
from pages.shell import build_ui  # noqa: F401  (imported here so that its cost is not a test's)
from tests.browser import PATIENCE_MS, Watched
from tests.conftest import MODELS_DIR
from visionsuit.accounts.passwords import hash_password
from visionsuit.accounts.setup import prepare_first_admin
from visionsuit.accounts.tables import Account
from visionsuit.boot import build_runtime
from visionsuit.core.actor import SYSTEM, Role
from visionsuit.core.config import EngineKind, Settings
from visionsuit.db import create_schema
from visionsuit.generation.base_models import sync_base_models
from visionsuit.runtime import Runtime

PASSWORD = "correct horse battery"


@functools.cache
def password_hash() -> str:
    """Of PASSWORD, made once: it is slow on purpose."""
    return hash_password(PASSWORD)


@dataclass
class Site:
    """A running site. `person("curator")` makes an account; `client(person)` is signed in by bearer token."""

    url: str
    runtime: Runtime
    setup_path: str | None
    _serial: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def person(self, role: Role = Role.USER, name: str | None = None) -> str:
        """E-mail address of a new account, whose password is PASSWORD."""
        name = name or f"{role.lower()}{next(self._serial)}"
        email = f"{name.replace(' ', '-')}@example.org"
        with self.runtime.open_ctx(SYSTEM) as ctx:
            ctx.session.add(Account(email=email, name=name, role=role, password_hash=password_hash()))
        return email

    def client(self, email: str | None = None) -> httpx.Client:
        """Signed in by bearer token if an account is named."""
        headers = {}
        if email:
            answer = httpx.post(f"{self.url}/api/auth/login", json={"email": email, "password": PASSWORD}, timeout=30)
            answer.raise_for_status()
            headers["Authorization"] = f"Bearer {answer.json()['token']}"
        return httpx.Client(base_url=self.url, timeout=30, headers=headers)


def start_site(data_dir: Path, **changed: Any) -> Iterator[Site]:
    """`changed`: settings that are other than usual."""
    usual: dict[str, Any] = {"data_dir": data_dir, "models_dir": MODELS_DIR, "engine": EngineKind.MOCK, "port": 0}
    settings = Settings(_env_file=None, **(usual | changed))
    runtime = build_runtime(settings)
    create_schema(runtime.database)
    runtime.storage.prepare()
    settings.scratch_dir.mkdir(parents=True, exist_ok=True)
    sync_base_models(runtime)
    setup_path = prepare_first_admin(runtime)
    server = uvicorn.Server(
        uvicorn.Config(create_app(runtime), port=0, log_level="warning", timeout_graceful_shutdown=2)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        assert time.monotonic() < deadline, "the server did not start in time"
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Site(url=f"http://127.0.0.1:{port}", runtime=runtime, setup_path=setup_path)
    server.should_exit = True
    thread.join(20)
    runtime.database.dispose()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One site for all page tests; each test makes its own people. The library holds what earlier tests left."""
    yield from start_site(tmp_path_factory.mktemp("site") / "data")


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(site: Site, browser: Browser, watched: Watched) -> Iterator[OpenPage]:
    """`open_page("/models", email=..., width=390)` -> a page of its own browser session, signed in if asked."""
    contexts: list[BrowserContext] = []

    def open_at(path: str = "/", *, email: str | None = None, width: int = 1400, height: int = 900) -> Page:
        context = browser.new_context(base_url=site.url, viewport={"width": width, "height": height})
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        if email:
            answer = context.request.post("/api/auth/login", data={"email": email, "password": PASSWORD})
            assert answer.ok, answer.text()
        page = context.new_page()
        watched.watch(page)
        page.goto(path)
        return page

    yield open_at
    for context in contexts:
        context.close()

"""The whole app in a uvicorn thread, opened in Chromium by people of every kind."""

import functools
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, Page
from sqlmodel import select

from pages.shell import build_ui, mount
from tests.browser import PATIENCE_MS, Watched
from tests.conftest import MODELS_DIR
from visionsuit.accounts.passwords import hash_password
from visionsuit.accounts.sessions import start_session
from visionsuit.accounts.setup import prepare_first_admin
from visionsuit.accounts.tables import Account
from visionsuit.boot import build_runtime
from visionsuit.core.actor import SYSTEM, Role
from visionsuit.core.config import EngineKind, Settings
from visionsuit.db import create_schema
from visionsuit.generation.base_models import sync_base_models
from visionsuit.main import create_api, guarded
from visionsuit.runtime import Runtime
from visionsuit.web import SESSION_COOKIE

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
        headers = {"Authorization": f"Bearer {self.token(email)}"} if email else {}
        return httpx.Client(base_url=self.url, timeout=60, headers=headers, verify=False)

    def token(self, email: str) -> str:
        """Of a session, as a login answers it, but at once: passwords are slow on purpose."""
        with self.runtime.open_ctx(SYSTEM) as ctx:
            return start_session(ctx, ctx.session.exec(select(Account).where(Account.email == email)).one())


def start_site(data_dir: Path, **changed: Any) -> Iterator[Site]:
    """`changed`: settings that are other than usual."""
    usual: dict[str, Any] = {
        "data_dir": data_dir,
        "models_dir": MODELS_DIR,
        "engine": EngineKind.MOCK,
        "port": 0,
        "auto_test_sheets": False,
    }
    settings = Settings(_env_file=None, **(usual | changed))
    runtime = build_runtime(settings)
    create_schema(runtime.database)
    runtime.storage.prepare()
    settings.scratch_dir.mkdir(parents=True, exist_ok=True)
    sync_base_models(runtime)
    setup_path = prepare_first_admin(runtime)
    # As `app.create_app`, but with Blocks of its own: a site that ends stops their queue.
    app = guarded(mount(create_api(runtime), build_ui(), runtime), runtime)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=2))
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


class BrowserSessions:
    """Browser sessions that are used again, with their page: a new page takes as long as what it shows.

    What was fetched stays; cookies, rights and all that was kept go.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._free: dict[tuple[str, int, int], list[Page]] = {}

    @contextmanager
    def lend(self, url: str, width: int, height: int) -> Iterator[Page]:
        """One that nobody else has meanwhile."""
        free = self._free.setdefault((url, width, height), [])
        page = free.pop() if free else self._new(url, width, height)
        yield page
        page.unroute_all(behavior="ignoreErrors")
        # Nothing of the interface runs there that would write again what is cleared.
        page.goto("/health")
        page.evaluate("localStorage.clear(); sessionStorage.clear()")
        page.mouse.move(0, 0)
        page.set_viewport_size({"width": width, "height": height})
        page.context.clear_cookies()
        page.context.clear_permissions()
        free.append(page)

    @contextmanager
    def make(self, url: str, width: int, height: int) -> Iterator[Page]:
        """One that nobody has afterwards."""
        page = self._new(url, width, height)
        yield page
        page.context.close()

    def _new(self, url: str, width: int, height: int) -> Page:
        context = self._browser.new_context(base_url=url, viewport={"width": width, "height": height})
        context.set_default_timeout(PATIENCE_MS)
        return context.new_page()


@pytest.fixture(scope="session")
def browser_sessions(browser: Browser) -> BrowserSessions:
    return BrowserSessions(browser)


@pytest.fixture
def open_page(site: Site, browser_sessions: BrowserSessions, watched: Watched) -> Iterator[OpenPage]:
    """`open_page("/models", email=..., width=390)` -> the page of a browser session of its own, signed in if asked."""
    pages: list[Page] = []
    with ExitStack() as lent:

        def open_at(
            path: str = "/", *, email: str | None = None, width: int = 1400, height: int = 900, fresh: bool = False
        ) -> Page:
            """`fresh`: for what is done to a page or its session for good: init scripts, a clock, CDP."""
            sessions = browser_sessions.make if fresh else browser_sessions.lend
            page = lent.enter_context(sessions(site.url, width, height))
            pages.append(page)
            watched.watch(page)
            give_session(page, site, email)
            page.goto(path)
            return page

        yield open_at
    for page in pages:
        watched.leave(page)


def sign_in(page: Page, site: Site, email: str | None) -> None:
    """From what it loads next on, a page is somebody else's; None is a guest."""
    page.goto("/health")  # what is shown still asks for things, and would ask for them as somebody else
    page.context.clear_cookies()
    give_session(page, site, email)


def give_session(page: Page, site: Site, email: str | None) -> None:
    if email:
        page.context.add_cookies([{"name": SESSION_COOKIE, "value": site.token(email), "url": site.url}])

"""The real program as a process, with the engine and base model that come with it, and people with browsers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.browser import PATIENCE_MS, Watched
from tests.server import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A fresh machine: nobody has an account yet, the setup link is in the log."""
    data = tmp_path_factory.mktemp("journeys") / "data"
    with Server(data, with_admin=False, VISIONSUIT_ENGINE="diffusers") as server:
        yield server


@dataclass
class Visitor:
    """Somebody's browser. Pages opened in it share cookies, as tabs do."""

    context: BrowserContext
    watched: Watched

    def open(self, path: str = "/") -> Page:
        page = self.context.new_page()
        self.watched.watch(page)
        page.goto(path)
        return page


NewVisitor = Callable[..., Visitor]


@pytest.fixture
def visitor(server: Server, browser: Browser, watched: Watched) -> Iterator[NewVisitor]:
    """`visitor(width=390)` is somebody whom the site does not know yet."""
    contexts: list[BrowserContext] = []

    def arrive(width: int = 1440, height: int = 900) -> Visitor:
        is_phone = width < 500
        context = browser.new_context(
            base_url=server.url,
            viewport={"width": width, "height": height},
            has_touch=is_phone,
            permissions=["clipboard-read", "clipboard-write"],
        )
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        return Visitor(context, watched)

    yield arrive
    for context in contexts:
        context.close()

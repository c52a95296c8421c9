"""Chromium for tests, and what it must never do: report errors, or ask another machine for anything."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Error, Locator, Page

CHROMIUM = "/usr/bin/chromium"
#: For whatever a page is waited for: a busy machine takes seconds where a person's takes none.
PATIENCE_MS = 30_000
#: Names lead nowhere, so a page that asks another machine for anything gets an error, which `Watched` notes.
ALONE = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"

Found = TypeVar("Found")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One for all tests; each opens sessions of its own in it."""
    if not Path(CHROMIUM).exists():
        pytest.skip("no Chromium on this machine (apt install chromium)")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", ALONE])
        yield chromium
        chromium.close()


def until(read: Callable[[], Found], what: str, seconds: float = PATIENCE_MS / 1000) -> Found:
    """Read again and again until something true comes; `what` is waited for."""
    deadline = time.monotonic() + seconds
    while not (found := read()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)
    return found


def comes_true(place: Page | Locator, script: str) -> None:
    """Wait until a script gives something true: of the page, or of an element, if it takes one."""
    until(lambda: place.evaluate(script), script)


def fits(page: Page) -> None:
    """Nothing stands out at the side, as soon as all has found its place."""
    comes_true(page, "document.documentElement.scrollWidth <= innerWidth")


@dataclass
class Watched:
    """What a page did that no page should do. Refusals that a test provokes are named in `expected` before."""

    errors: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        page.on("pageerror", self._failed)
        page.on("console", self._note)

    def leave(self, page: Page) -> None:
        page.remove_listener("pageerror", self._failed)
        page.remove_listener("console", self._note)

    def _failed(self, error: Error) -> None:
        self.errors.append(str(error))

    def _note(self, message: ConsoleMessage) -> None:
        text = f"{message.text} {message.location.get('url', '')}"
        if message.type == "error" and not any(part in text for part in self.expected):
            self.errors.append(text)


@pytest.fixture
def watched() -> Iterator[Watched]:
    seen = Watched()
    yield seen
    assert not seen.errors, seen.errors

"""Administrators steer the queue in the browser."""

import pytest
from playwright.sync_api import expect

from tests.browser import Watched
from tests.pages.conftest import OpenPage, Site
from tests.pages.test_generator import paused_queue
from visionsuit.core.actor import Role

pytestmark = pytest.mark.browser


def send_some(site: Site, email: str, count: int = 2) -> None:
    with site.client(email) as client:
        for number in range(count):
            client.post("/api/generations", json={"prompt": f"owl {number}"}).raise_for_status()


def test_first_cancel_and_clear(open_page: OpenPage, site: Site) -> None:
    one, two = site.person(name="ada early"), site.person(name="zoe late")
    with paused_queue(site):
        send_some(site, one)
        send_some(site, two)
        page = open_page("/admin#queue", email=site.person(Role.ADMIN))
        page.get_by_role("tab", name="Queue").click()
        expect(page.get_by_role("heading", name="Paused")).to_be_visible()
        rows = page.locator("tbody tr")
        expect(rows).to_have_count(4)
        last = str(rows.last.get_attribute("data-key"))
        rows.last.get_by_role("button", name="First").click()
        expect(rows.first).to_have_attribute("data-key", last)
        rows.first.get_by_role("button", name="Cancel").click()
        expect(rows).to_have_count(3)
        page.get_by_role("button", name="Cancel waiting").click()
        page.get_by_role("button", name="Keep them").click()
        expect(rows).to_have_count(3)
        page.get_by_role("button", name="Cancel waiting").click()
        page.get_by_role("button", name="Cancel them").click()
        expect(rows).to_have_count(0)


def test_a_person_is_kept_from_rendering_and_reads_why(open_page: OpenPage, site: Site, watched: Watched) -> None:
    watched.expected += ["/api/generations"]
    email = site.person(name="bo busy")
    page = open_page("/admin", email=site.person(Role.ADMIN))
    page.get_by_label("Search people").fill("bo busy")
    # Before that, the row moves away under the pointer.
    expect(page.get_by_role("button", name="Edit ")).to_have_count(1)
    page.get_by_role("button", name="Edit bo busy").click()
    page.get_by_role("button", name="Keep from rendering…").click()
    page.get_by_label("Why").fill("Let others have a turn <b>")
    page.get_by_label("For how long").select_option("24")
    page.get_by_role("button", name="Keep from rendering", exact=True).click()
    expect(page.get_by_text("bo busy may not render now.")).to_be_visible()
    blocked = open_page("/generate", email=email)
    blocked.get_by_label("Prompt", exact=True).fill("an owl")
    blocked.locator("[data-send]").click()
    expect(blocked.get_by_text("Let others have a turn <b>")).to_be_visible()
    page.get_by_role("tab", name="Queue").click()
    page.locator("li", has_text="bo busy").get_by_role("button", name="Let render again").click()
    expect(page.get_by_role("heading", name="May not render")).to_have_count(0)
    blocked.locator("[data-send]").click()
    expect(blocked.locator("vs-job[data-status=completed]")).to_be_visible()

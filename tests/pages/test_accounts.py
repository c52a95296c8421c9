"""Joining, signing in and out, the setup link, the account page, and what an administrator does to others."""

import re
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from tests.browser import Watched
from tests.pages.conftest import PASSWORD, OpenPage, Site, sign_in
from tests.pages.files import png
from visionsuit.core.actor import Role

pytestmark = pytest.mark.browser


def test_register_log_out_log_in(open_page: OpenPage, watched: Watched) -> None:
    watched.expected += ["/api/auth/login"]
    page = open_page("/register")
    page.get_by_label("Name", exact=True).fill("Mira <b>")
    page.get_by_label("E-mail").fill("mira@example.org")
    page.get_by_label("Password").fill("short")
    page.get_by_role("button", name="Register").click()
    expect(page.locator("[data-error=password]")).not_to_be_empty()
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Register").click()
    expect(page.locator(".sidebar .account")).to_contain_text("Mira <b>")
    page.reload()
    page.locator(".sidebar button.account").click()
    page.get_by_role("menuitem", name="Log out").click()
    expect(page.locator(".sidebar .account-guest")).to_be_visible()

    page.goto("/history")
    page.locator(".sidebar >> text=Log in").click()
    page.get_by_label("E-mail").fill("mira@example.org")
    page.get_by_label("Password").fill("a wrong password")
    page.get_by_role("main").get_by_role("button", name="Log in").click()
    expect(page.locator("[data-form-error]")).to_contain_text("Invalid credentials")
    expect(page.get_by_label("E-mail")).to_have_value("mira@example.org")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("main").get_by_role("button", name="Log in").click()
    expect(page.locator("vs-page-history")).to_be_visible()


def test_logging_in_leads_nowhere_else(open_page: OpenPage, site: Site) -> None:
    page = open_page("/login")
    core = page.evaluate("document.querySelector('link[href$=\"core.js\"]').href")
    targets = ["https://example.org/", "/\\example.org", "javascript:alert(1)", "//example.org"]
    for target in targets:
        page.goto(f"/login?next={quote(target, safe='')}")
        assert page.evaluate(f"import('{core}').then((core) => core.nextPath())") == "/", target
    page.get_by_label("E-mail").fill(site.person())
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("main").get_by_role("button", name="Log in").click()
    expect(page.locator("vs-page-home")).to_be_visible()
    expect(page).to_have_url(f"{site.url}/")


def test_the_setup_link_makes_the_owner_once(open_page: OpenPage, site: Site, watched: Watched) -> None:
    watched.expected += ["/api/auth/setup"]
    assert site.setup_path
    page = open_page("/health")
    for attempt in ("first", "second"):
        sign_in(page, site, None)
        page.goto(site.setup_path)
        page.get_by_label("Name", exact=True).fill("Owner")
        page.get_by_label("E-mail").fill(f"{attempt}-owner@example.org")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Make the owner").click()
        if attempt == "first":
            expect(page.locator(".sidebar .account")).to_contain_text("Owner")
            expect(page.locator(".sidebar .nav-link", has_text="Admin")).to_be_visible()
        else:
            expect(page.locator("[data-form-error]")).not_to_be_empty()


def test_profile_picture_and_switches(open_page: OpenPage, site: Site) -> None:
    page = open_page("/account", email=site.person())
    page.get_by_label("Name", exact=True).fill("New name")
    page.get_by_label("About").fill("<script>window.pwned = 1</script>")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".sidebar .account")).to_contain_text("New name")
    page.set_input_files("[data-avatar]", {"name": "me.png", "mimeType": "image/png", "buffer": png(1)})
    expect(page.locator(".sidebar .account img.avatar")).to_be_visible()
    page.locator(".switch", has_text="Show adult").click()
    page.wait_for_function("() => fetch('/api/auth/me').then((a) => a.json()).then((me) => me.shows_adult)")
    page.reload()
    expect(page.locator("[data-adult]")).to_be_checked()
    expect(page.get_by_label("About")).to_have_value("<script>window.pwned = 1</script>")
    page.get_by_role("button", name="Remove").click()
    expect(page.locator(".sidebar .account img.avatar")).to_have_count(0)


def test_a_token_is_shown_once_works_and_is_revoked(open_page: OpenPage, site: Site) -> None:
    page = open_page("/account?tab=tokens", email=site.person())
    page.get_by_role("button", name="New token").click()
    page.get_by_label("Name", exact=True).fill("Script")
    page.get_by_role("button", name="Make token").click()
    expect(page.locator(".secret code")).to_have_text(re.compile(r"\S{20}"))
    token = str(page.locator(".secret code").text_content()).strip()
    page.get_by_role("button", name="Done").click()
    expect(page.locator(".lines > li")).to_contain_text("Script")
    expect(page.locator(".secret")).to_have_count(0)
    assert token not in page.content()
    header = {"Authorization": f"Bearer {token}"}
    assert site.client().get("/api/auth/me", headers=header).status_code == 200
    page.get_by_role("button", name="Revoke").click()
    page.locator("dialog").get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("No tokens yet.")).to_be_visible()
    assert site.client().get("/api/auth/me", headers=header).status_code == 401


def test_a_changed_password_ends_other_sessions(open_page: OpenPage, site: Site, watched: Watched) -> None:
    email = site.person()
    other = open_page("/", email=email)
    page = open_page("/account?tab=security", email=email)
    expect(page.locator(".lines > li")).to_have_count(2)
    page.get_by_label("Current password").fill(PASSWORD)
    page.get_by_label("New password").fill("another long password")
    page.get_by_role("button", name="Change password").click()
    expect(page.locator(".toast", has_text="Password changed")).to_be_visible()
    expect(page.locator(".lines > li")).to_have_count(1)
    other.reload()
    expect(other.locator(".sidebar .account-guest")).to_be_visible()


def test_an_administrator_makes_a_curator(open_page: OpenPage, site: Site) -> None:
    page = open_page("/admin", email=site.person(Role.ADMIN))
    page.get_by_role("button", name="New account").click()
    page.get_by_label("Name", exact=True).fill("Kai the new")
    page.get_by_label("E-mail").fill("kai@example.org")
    page.get_by_label("First password").fill(PASSWORD)
    page.locator("dialog").get_by_role("button", name="Make account").click()
    page.get_by_placeholder("Name or e-mail").fill("Kai the")
    row = page.locator("tr", has_text="kai@example.org")
    expect(row).to_contain_text("Member")
    row.get_by_role("button").click()
    # Only the owner names administrators, so the choice is not offered.
    expect(page.locator("dialog .role")).to_have_count(2)
    page.locator("dialog .role", has_text="Curator").click()
    page.locator("dialog").get_by_role("button", name="Save").click()
    expect(row).to_contain_text("Curator")
    assert "assets:upload" in site.client("kai@example.org").get("/api/auth/me").json()["permissions"]


def test_settings_apply_at_once(open_page: OpenPage, site: Site) -> None:
    page = open_page("/admin?tab=settings", email=site.person(Role.ADMIN))
    page.get_by_label("Name of the site").fill("Foxes & <Co>")
    page.get_by_label("Registration").select_option("closed")
    page.get_by_role("button", name="Save").click()
    try:
        expect(page.locator(".sidebar .brand")).to_contain_text("Foxes & <Co>")
        guest = open_page("/register")
        expect(guest.get_by_text("Registration is closed")).to_be_visible()
        expect(guest).to_have_title("Register · Foxes & <Co>")
    finally:
        page.get_by_label("Name of the site").fill("VisionSuit")
        page.get_by_label("Registration").select_option("open")
        page.get_by_role("button", name="Save").click()
        expect(page.locator(".sidebar .brand")).to_contain_text("VisionSuit")


def test_the_queue_pauses_and_goes_on(open_page: OpenPage, site: Site) -> None:
    page = open_page("/admin?tab=queue", email=site.person(Role.ADMIN))
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    page.get_by_role("tab", name="Audit log").click()
    expect(page.locator("code", has_text="queue.resumed").first).to_be_visible()


def test_others_see_no_administration(open_page: OpenPage, site: Site) -> None:
    page = open_page("/health")
    for role in (None, Role.USER, Role.CURATOR):
        sign_in(page, site, site.person(role) if role else None)
        page.goto("/admin")
        expect(page.get_by_text("For administrators")).to_be_visible()

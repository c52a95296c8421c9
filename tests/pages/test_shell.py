"""The frame: loads clean, knows who looks, moves between pages, survives unknown addresses."""

import re

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser import Watched, comes_true, until
from tests.pages.conftest import OpenPage, Site, sign_in
from visionsuit.core.actor import Role

pytestmark = pytest.mark.browser
PATHS = ["/", "/models", "/images", "/galleries", "/generate", "/login", "/register", "/setup", "/account", "/upload"]


ADMIN_PATHS = ["/", "/generate", "/history", "/upload", "/account", "/admin", "/admin?tab=queue"]
WIDTHS = (1400, 390)


def see_all_of(page: Page, paths: list[str]) -> None:
    """Everything on these pages has come, without an error, and fits on a desk and on a phone."""
    for path in paths:
        page.set_viewport_size({"width": WIDTHS[0], "height": 900})
        page.goto(path)
        expect(page.locator("#view h1, #view h2").first).to_be_attached()
        comes_true(page, "!document.querySelector('[aria-busy=true], .skeleton, .is-waiting, [data-state=unknown]')")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            comes_true(page, f"document.documentElement.scrollWidth === {width}")
        expect(page.locator("body")).to_have_css("background-color", "rgb(10, 10, 11)")


def test_every_page_loads_for_a_guest_without_an_error(open_page: OpenPage) -> None:
    see_all_of(open_page("/health"), PATHS)


def test_every_page_loads_for_an_administrator(open_page: OpenPage, site: Site) -> None:
    see_all_of(open_page("/health", email=site.person(Role.ADMIN)), ADMIN_PATHS)


def test_navigation_follows_the_role(open_page: OpenPage, site: Site) -> None:
    everybody = ["Home", "Models", "Images", "Galleries", "Generate"]
    wanted = {
        None: everybody,
        Role.USER: [*everybody, "History"],
        Role.CURATOR: [*everybody, "History", "Upload"],
        Role.ADMIN: [*everybody, "History", "Upload", "Admin"],
    }
    page = open_page("/health")
    for role, labels in wanted.items():
        sign_in(page, site, site.person(role) if role else None)
        page.goto("/")
        expect(page.locator(".sidebar button.account, .sidebar .account-guest")).to_be_visible()
        expect(page.locator(".sidebar .nav-link")).to_have_text(labels)


def test_moving_between_pages_loads_nothing_anew(open_page: OpenPage) -> None:
    page = open_page("/")
    page.evaluate("window.stillHere = true")
    page.click(".sidebar .nav-link:has-text('Models')")
    expect(page.locator("vs-page-models")).to_be_visible()
    expect(page).to_have_title("Models · VisionSuit")
    page.click(".sidebar .nav-link:has-text('Home')")
    expect(page.locator("vs-page-home")).to_be_visible()
    page.go_back()
    expect(page.locator("vs-page-models")).to_be_visible()
    assert page.evaluate("window.stillHere") is True


def test_another_machine_is_not_asked_for_anything_unnoticed(open_page: OpenPage, watched: Watched) -> None:
    page = open_page("/health")
    page.set_content("<img src='http://example.org/a.png'><script src='https://198.51.100.1/b.js'></script>")
    for host in ("example.org", "198.51.100.1"):
        until(lambda host=host: page.evaluate("true") and any(host in error for error in watched.errors), host)
    watched.errors.clear()


def test_an_unknown_address_has_a_page_and_says_404(open_page: OpenPage, site: Site, watched: Watched) -> None:
    watched.expected.append("/nothing-here")
    page = open_page("/nothing-here")
    expect(page.get_by_text("There is no page here")).to_be_visible()
    expect(page.locator(".sidebar .nav-link").first).to_be_visible()
    assert httpx.get(f"{site.url}/nothing-here", headers={"Accept": "text/html"}).status_code == 404
    # A program is told so as JSON.
    plain = httpx.get(f"{site.url}/api/nothing")
    assert plain.status_code == 404
    assert plain.json()["error"]["code"] == "not_found"


def test_short_addresses_lead_to_the_page(site: Site) -> None:
    for short, page in (("m", "models"), ("i", "images"), ("g", "galleries")):
        answer = httpx.get(f"{site.url}/{short}/a%26b%2Fc")
        if answer.status_code == 404:  # an encoded slash is no id
            answer = httpx.get(f"{site.url}/{short}/a%26b")
        assert answer.status_code == 302
        assert re.fullmatch(rf"/{page}\?id=a%26b(%2Fc)?", answer.headers["location"])


def test_the_theme_is_kept_and_set_before_the_first_paint(open_page: OpenPage) -> None:
    page = open_page("/", fresh=True)
    page.click("[data-run=switchTheme]")
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    expect(page.locator("body")).to_have_css("background-color", "rgb(250, 250, 250)")
    page.add_init_script(
        "document.addEventListener('DOMContentLoaded', () => (window.early = document.documentElement.dataset.theme))"
    )
    page.reload()
    assert page.evaluate("window.early") == "light"


def test_services_say_how_they_are(open_page: OpenPage) -> None:
    page = open_page("/")
    for name in ("Web", "Data", "Files", "Engine"):
        expect(page.locator(f".sidebar .service[aria-label^='{name}: working']")).to_be_visible()


def test_slash_opens_the_search_and_enter_goes_to_the_list(open_page: OpenPage) -> None:
    page = open_page("/")
    page.keyboard.press("/")
    box = page.get_by_placeholder("Search models, images, galleries")
    expect(box).to_be_focused()
    box.fill("no such thing & more")
    expect(page.get_by_text("Nothing matches")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.locator("vs-page-images")).to_be_visible()
    expect(page).to_have_url(re.compile(r"/images\?q=no%20such%20thing%20%26%20more$"))


def test_a_phone_reaches_everything(open_page: OpenPage, site: Site) -> None:
    page = open_page("/", email=site.person(Role.ADMIN), width=390, height=844)
    page.click(".tabbar >> text=More")
    for label in ("Galleries", "History", "Upload", "Admin", "Account", "Log out"):
        expect(page.locator(".sheet").get_by_text(label, exact=True)).to_be_visible()
    page.locator(".sheet >> text=Admin").click()
    expect(page.locator("vs-page-admin")).to_be_visible()
    expect(page.locator("dialog[open]")).to_have_count(0)


def test_nothing_of_gradio_is_to_be_seen(open_page: OpenPage) -> None:
    page = open_page("/models")
    page.wait_for_load_state("networkidle")
    expect(page.locator("gradio-app")).to_be_hidden()
    fetched = page.evaluate("performance.getEntriesByType('resource').map((one) => new URL(one.name).pathname)")
    assert [path for path in fetched if not path.startswith(("/ui/", "/api/"))] == []


def test_the_front_door_suggests_what_renders_here(open_page: OpenPage, site: Site) -> None:
    email = site.person()
    with site.client(email) as client:
        items = client.get("/api/base-models").json()["items"]
    [suggestion] = [one["suggestions"][0] for one in items if one["is_default"]]
    prompt = open_page("/", email=email).get_by_label("Prompt")
    expect(prompt).to_have_attribute("placeholder", f"Try “{suggestion}”")

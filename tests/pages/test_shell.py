"""The frame: loads clean, knows who looks, moves between pages, survives unknown addresses."""

import re

import httpx
import pytest
from playwright.sync_api import expect

from tests.browser import Watched
from tests.pages.conftest import OpenPage, Site
from visionsuit.core.actor import Role

pytestmark = pytest.mark.browser
PATHS = ["/", "/models", "/images", "/galleries", "/generate", "/login", "/register", "/setup", "/account", "/upload"]


@pytest.mark.parametrize("width", [1400, 390])
def test_every_page_loads_for_a_guest_without_an_error(open_page: OpenPage, width: int) -> None:
    page = open_page(width=width)
    for path in PATHS:
        page.goto(path)
        expect(page.locator("#view > *").first).to_be_visible()
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") == width, path
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(10, 10, 11)", path


@pytest.mark.parametrize("width", [1400, 390])
def test_every_page_loads_for_an_administrator(open_page: OpenPage, site: Site, width: int) -> None:
    page = open_page(email=site.person(Role.ADMIN), width=width)
    for path in ("/", "/generate", "/history", "/upload", "/account", "/admin", "/admin?tab=queue"):
        page.goto(path)
        # The render page and the queue keep asking for news: wait for what is there, not for silence.
        expect(page.locator("#view h1").first).to_be_attached()
        assert page.evaluate("document.documentElement.scrollWidth") == width, path


def test_navigation_follows_the_role(open_page: OpenPage, site: Site) -> None:
    wanted = {
        None: {"Home", "Models", "Images", "Galleries", "Generate"},
        Role.USER: {"Home", "Models", "Images", "Galleries", "Generate", "History"},
        Role.CURATOR: {"Home", "Models", "Images", "Galleries", "Generate", "History", "Upload"},
        Role.ADMIN: {"Home", "Models", "Images", "Galleries", "Generate", "History", "Upload", "Admin"},
    }
    for role, labels in wanted.items():
        page = open_page("/", email=site.person(role) if role else None)
        expect(page.locator(".sidebar .account, .sidebar .account-guest")).to_be_visible()
        assert set(page.locator(".sidebar .nav-link").all_inner_texts()) == labels


def test_moving_between_pages_loads_nothing_anew(open_page: OpenPage) -> None:
    page = open_page("/")
    page.evaluate("window.stillHere = true")
    page.click(".sidebar .nav-link:has-text('Models')")
    expect(page.locator("vs-page-models")).to_be_visible()
    assert page.title() == "Models · VisionSuit"
    page.click(".sidebar .nav-link:has-text('Home')")
    expect(page.locator("vs-page-home")).to_be_visible()
    page.go_back()
    expect(page.locator("vs-page-models")).to_be_visible()
    assert page.evaluate("window.stillHere") is True


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
    page = open_page("/")
    page.click("[data-run=switchTheme]")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(250, 250, 250)"
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
    assert page.url.endswith("/images?q=no%20such%20thing%20%26%20more")


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

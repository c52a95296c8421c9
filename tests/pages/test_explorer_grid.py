"""The explorer's grid: search as one types, chips, the address, infinite scroll that stays small, the lightbox."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser import Watched, comes_true, fits
from tests.pages.conftest import OpenPage, Site
from tests.pages.library import add_cards, add_gallery, add_lora, add_pictures
from visionsuit.core.actor import Role

pytestmark = pytest.mark.browser


def tiles(page: Page) -> Locator:
    return page.locator(".vs-tile[data-index]")


def test_search_chips_and_the_back_button(open_page: OpenPage, site: Site) -> None:
    curator = site.person(Role.CURATOR)
    add_lora(site, curator, "Quartz lantern", seed=101, tags=["quartz", "lamp"])
    add_lora(site, curator, "Quartz river", seed=102, tags=["quartz", "water"])
    page = open_page("/models")
    page.keyboard.press("/")
    expect(page.locator("input.vs-search-input")).to_be_focused()
    page.keyboard.type("quartz lan")
    expect(tiles(page)).to_have_count(1)
    expect(page).to_have_url(re.compile(r"/models\?q=quartz\+lan$"))
    page.keyboard.press("Escape")
    page.locator("input.vs-search-input").fill("")
    page.locator("input.vs-search-input").press_sequentially("quart", delay=15)
    page.get_by_role("option", name="#quartz").click()
    chip = page.get_by_role("button", name="Remove filter #quartz")
    expect(chip).to_be_visible()
    expect(tiles(page)).to_have_count(2)
    page.goto("/models?tag=quartz&tag=water")
    expect(tiles(page)).to_have_count(1)
    page.get_by_role("button", name="Remove filter #water").click()
    expect(tiles(page)).to_have_count(2)
    expect(page).to_have_url(re.compile(r"/models\?tag=quartz$"))
    page.go_back()
    expect(tiles(page)).to_have_count(1)
    expect(page.get_by_role("button", name="Remove filter #water")).to_be_visible()


def test_tags_are_not_offered_to_somebody_who_has_gone_on(open_page: OpenPage) -> None:
    page = open_page("/models", fresh=True)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.install()
    page.clock.pause_at(datetime.now(UTC) + timedelta(minutes=1))
    field = page.locator("input.vs-search-input")
    field.press_sequentially("quartz")
    field.press("Enter")
    expect(page).to_have_url(re.compile(r"\?q=quartz$"))
    page.clock.run_for(2000)
    expect(page.get_by_role("listbox")).to_be_hidden()
    assert [url for url in asked if "/api/images" in url or "/api/models" in url]
    assert not [url for url in asked if "/api/tags" in url]


def test_filters_by_type_owner_and_order(open_page: OpenPage, site: Site) -> None:
    mine, other = site.person(Role.CURATOR), site.person(Role.CURATOR)
    add_cards(site, mine, 2, "Basalt", tags=["basalt"])
    add_cards(site, other, 1, "Basalt other", tags=["basalt"], type="CHECKPOINT")
    page = open_page("/models?tag=basalt", email=mine)
    expect(tiles(page)).to_have_count(3)
    page.get_by_label("Type").select_option("CHECKPOINT")
    expect(tiles(page)).to_have_count(1)
    page.get_by_role("button", name="Remove filter Checkpoint").click()
    page.get_by_role("button", name="Mine").click()
    expect(tiles(page)).to_have_count(2)
    expect(page.get_by_role("button", name="Remove filter Mine")).to_be_visible()
    page.get_by_label("Sort").select_option("oldest")
    expect(page.locator(".vs-tile[data-index='0'] b")).to_have_text("Basalt 0000")
    page.get_by_role("button", name="Clear all").click()
    expect(page).to_have_url(re.compile(r"/models$"))


def test_hundreds_of_cards_stay_few_nodes(open_page: OpenPage, site: Site) -> None:
    add_cards(site, site.person(Role.CURATOR), 800, "Granite", tags=["granite"])
    page = open_page("/models?tag=granite&sort=title")
    expect(page.locator(".vs-tile[data-index='0'] b")).to_have_text("Granite 0000")
    grid = "document.querySelector('vs-tile-grid')"
    page.evaluate("window.mostNodes = 0")
    # Goes to the end again and again, as somebody does who leans on the End key.
    page.wait_for_function(
        f"""() => {{
            window.mostNodes = Math.max(window.mostNodes, {grid}.querySelectorAll("*").length);
            scrollTo(0, document.documentElement.scrollHeight);
            return {grid}.done;
        }}""",
        timeout=60_000,
    )
    assert page.evaluate("window.mostNodes") <= 400
    assert page.evaluate(f"{grid}.items.length") == 800
    comes_true(
        page,
        "scrollTo(0, document.documentElement.scrollHeight), document.querySelector('.vs-tile[data-index=\"799\"]')",
    )
    expect(page.locator(".vs-tile[data-index='799']")).to_be_visible()
    page.evaluate("scrollTo(0, 0)")
    expect(page.locator(".vs-tile[data-index='0'] b")).to_have_text("Granite 0000")


def test_five_columns_on_wide_screens_and_two_on_a_phone(open_page: OpenPage, site: Site) -> None:
    add_cards(site, site.person(Role.CURATOR), 12, "Column", tags=["column"])
    for width, columns in ((1400, 5), (390, 2)):
        page = open_page("/models?tag=column", width=width, height=844)
        expect(page.locator(".vs-tile[data-index='0']")).to_be_visible()
        comes_true(
            page,
            f"""() => {{
                const tiles = [...document.querySelectorAll(".vs-tile[data-index]")].slice(0, {columns + 1});
                const boxes = tiles.map((tile) => tile.getBoundingClientRect());
                const kinds = (of) => new Set(boxes.map(of).map(Math.round)).size;
                return boxes.length === {columns + 1} && kinds((box) => box.width) === 1
                    && kinds((box) => box.height) === 1 && kinds((box) => box.y) === 2
                    && boxes.slice(0, -1).every((box) => Math.abs(box.y - boxes[0].y) < 1)
                    && boxes.at(-1).y > boxes[0].y;
            }}""",
        )
        fits(page)


def test_keyboard_moves_through_tiles(open_page: OpenPage, site: Site) -> None:
    add_cards(site, site.person(Role.CURATOR), 12, "Ladder", tags=["ladder"])
    page = open_page("/models?tag=ladder&sort=title")
    expect(tiles(page)).to_have_count(12)
    page.keyboard.press("/")
    page.keyboard.press("ArrowDown")
    expect(page.locator(".vs-tile[data-index='0'] a")).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    expect(page.locator(".vs-tile[data-index='6'] a")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("vs-model-detail h1")).to_have_text("Ladder 0006")
    page.get_by_role("main").get_by_role("link", name="Models", exact=True).click()
    expect(tiles(page)).to_have_count(12)


def test_the_lightbox_is_an_address_and_answers_to_keys(open_page: OpenPage, site: Site) -> None:
    recipe = (
        "amber fox in snow\nNegative prompt: blur\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 4711, Size: 512x512"
    )
    items = add_pictures(
        site, site.person(Role.CURATOR), ["Amber one", "Amber two", "Amber three"], tags="amber", parameters=recipe
    )
    one, two, three = (item["id"] for item in items)
    page = open_page("/images?tag=amber")
    page.locator(".vs-tile[data-index='0'] a").click()
    box = page.locator("dialog.vs-lightbox")
    expect(box.locator("h2")).to_have_text("Amber three")
    expect(page).to_have_url(re.compile(f"id={three}$"))
    expect(box.locator(".vs-recipe")).to_contain_text("amber fox in snow")
    expect(box.locator(".vs-recipe")).to_contain_text("4711")
    page.keyboard.press("ArrowRight")
    expect(box.locator("h2")).to_have_text("Amber two")
    expect(page).to_have_url(re.compile(f"id={two}$"))
    page.keyboard.press("End")
    expect(box.locator("h2")).to_have_text("Amber one")
    page.keyboard.press("i")
    expect(box.locator(".vs-lightbox-rail")).to_be_hidden()
    for _ in range(12):  # the focus stays inside
        page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body || document.activeElement.closest('dialog') !== null"
        )
    page.keyboard.press("Escape")
    expect(box).to_have_count(0)
    expect(page).to_have_url(re.compile(r"/images\?tag=amber$"))
    expect(page.locator(".vs-tile[data-index='2'] a")).to_be_focused()
    page.go_forward()
    expect(page.locator("vs-image-detail h1")).to_have_text("Amber one")
    page.go_back()
    expect(tiles(page)).to_have_count(3)
    page.goto(f"/images?id={two}")
    expect(page.locator("vs-image-detail h1")).to_have_text("Amber two")
    assert one


def test_back_closes_the_lightbox(open_page: OpenPage, site: Site) -> None:
    add_pictures(site, site.person(Role.CURATOR), ["Onyx one", "Onyx two"], tags="onyx")
    page = open_page("/images?tag=onyx")
    page.locator(".vs-tile[data-index='0'] a").click()
    expect(page.locator("dialog.vs-lightbox")).to_be_visible()
    page.go_back()
    expect(page.locator("dialog.vs-lightbox")).to_have_count(0)
    expect(tiles(page)).to_have_count(2)


def test_empty_lists_and_failures_say_what_to_do(open_page: OpenPage, site: Site, watched: Watched) -> None:
    page = open_page("/galleries?q=nothingiscalledthis")
    expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()
    page.get_by_role("button", name="Clear search and filters").click()
    expect(page).to_have_url(re.compile("/galleries$"))
    watched.expected += ["/api/images", "net::ERR_FAILED"]
    page.goto("/images?owner=me", wait_until="commit")
    page.route("**/api/images?*", lambda route: route.abort())
    page.goto("/images?q=anything")
    expect(page.get_by_role("heading", name="This could not be loaded")).to_be_visible()
    page.unroute("**/api/images?*")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()


def test_a_guest_never_sees_what_is_private(open_page: OpenPage, site: Site) -> None:
    curator = site.person(Role.CURATOR)
    add_pictures(site, curator, ["Opal secret"], tags="opal", visibility="private")
    add_gallery(site, curator, "Opal gallery", tags=["opal"])
    page = open_page("/images?tag=opal")
    expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()
    own = open_page("/images?tag=opal", email=curator)
    expect(own.locator(".vs-tile[data-index='0']")).to_contain_text("Private")


def test_the_lightbox_is_dark_and_readable_in_the_light_theme(open_page: OpenPage, site: Site) -> None:
    add_pictures(site, site.person(Role.CURATOR), ["Pearl"], tags="pearl")
    page = open_page("/images?tag=pearl")
    page.click("[data-run=switchTheme]")
    page.locator(".vs-tile[data-index='0'] a").click()
    button = page.locator("dialog.vs-lightbox").get_by_role("link", name="Download")
    expect(button).to_be_visible()
    expect(button).to_have_css("color", "rgb(255, 255, 255)")
    expect(button).to_have_css("background-color", "rgb(20, 20, 22)")

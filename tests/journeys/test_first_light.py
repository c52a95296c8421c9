"""From a fresh machine to a picture that a stranger finds: every step of it in a browser, on the real engine."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser import comes_true, fits
from tests.journeys.conftest import NewVisitor, Visitor
from tests.journeys.files import kohya_lora
from tests.pages.files import png
from tests.server import Server

pytestmark = pytest.mark.browser

PASSWORD = "correct horse battery"
#: The engine loads its libraries first, on a busy machine slowly.
RENDERED_MS = 120_000


def test_first_light(server: Server, visitor: NewVisitor) -> None:
    owner, ink, guest = visitor(), visitor(), visitor()
    take_the_setup_link(server, owner)
    register(ink, "Ink", "ink@example.org")
    make_curator(owner, "ink@example.org")
    log_in(ink, "ink@example.org")
    base = server.client().get("/api/base-models").json()["items"][0]["label"]
    upload_lora(ink, "Northern light", seed=1, trigger="northern light", base=base)
    upload_lora(ink, "Paper cut", seed=2, trigger="papercut", base=base)
    page = render_with_both(ink)
    save_to_gallery(page, "Evening hearts")
    cancel_another(page)
    close_and_come_back(page, ink)
    log_out(ink)
    find_as_guest(guest)


def take_the_setup_link(server: Server, owner: Visitor) -> None:
    """It is printed at the first start, makes the owner, and works once."""
    link = re.search(r"http://\S+(/setup\?token=\S+)", server.log())
    assert link
    page = owner.open(link[1])
    fill_in_person(page, "Olga", "olga@example.org")
    page.get_by_role("button", name="Make the owner's account").click()
    expect(page.locator(".sidebar .account")).to_contain_text("Owner")
    expect(page.get_by_text("The library is empty")).to_be_visible()
    owner.watched.expected.append("/api/auth/setup")
    late = owner.context.browser.new_context(base_url=server.url).new_page()  # type: ignore[union-attr]
    late.goto(link[1])
    fill_in_person(late, "Late", "late@example.org")
    late.get_by_role("button", name="Make the owner's account").click()
    expect(late.locator("[data-form-error]")).not_to_be_empty()
    late.context.close()


def fill_in_person(page: Page, name: str, email: str) -> None:
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("Password").fill(PASSWORD)


def register(person: Visitor, name: str, email: str) -> None:
    page = person.open("/")
    page.get_by_role("link", name="Register").click()
    fill_in_person(page, name, email)
    page.get_by_role("button", name="Register").click()
    expect(page.locator(".sidebar .account")).to_contain_text(name)
    expect(page.locator(".sidebar .nav-link", has_text="Upload")).to_have_count(0)
    page.close()


def make_curator(owner: Visitor, email: str) -> None:
    page = owner.open("/admin")
    page.locator("tr", has_text=email).get_by_role("button").click()
    page.locator("dialog .role", has_text="Curator").click()
    page.locator("dialog").get_by_role("button", name="Save").click()
    expect(page.locator("tr", has_text=email)).to_contain_text("Curator")
    page.close()


def log_in(person: Visitor, email: str) -> None:
    """Another role ends the sessions of before."""
    page = person.open("/upload")
    page.get_by_role("main").get_by_role("link", name="Log in").click()
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("main").get_by_role("button", name="Log in").click()
    expect(page.locator("#up-tags")).to_be_visible()
    page.close()


def upload_lora(person: Visitor, title: str, *, seed: int, trigger: str, base: str) -> None:
    page = person.open("/upload")
    page.get_by_label("Title").fill(title)
    page.get_by_label("Trigger").fill(trigger)
    page.locator("#up-base").fill(base)
    page.locator("#up-tags").fill("light,")
    page.get_by_role("button", name="Continue").click()
    weights = {"name": f"{seed}.safetensors", "mimeType": "application/octet-stream", "buffer": kohya_lora(seed)}
    page.set_input_files("[data-pick=weights]", weights)  # type: ignore[arg-type]
    page.set_input_files("[data-pick=cover]", {"name": "c.png", "mimeType": "image/png", "buffer": png(900 + seed)})
    expect(page.locator(".picked .facts")).to_contain_text("F16")
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Publish").click()
    expect(page.locator("vs-model-detail h1")).to_have_text(title)
    expect(page.locator("vs-model-detail .vs-facts").first).to_contain_text("kohya")
    page.close()


def render_with_both(person: Visitor) -> Page:
    page = person.open("/models")
    page.locator(".vs-tile", has_text="Paper cut").click()
    page.get_by_role("link", name="Open in generator").click()
    mix = page.locator("vs-lora-mixer li")
    expect(mix).to_have_count(1)
    page.get_by_role("button", name="Add LoRA").click()
    picker = page.locator("dialog.vs-picker")
    picker.get_by_role("combobox").fill("northern")
    expect(picker.locator(".vs-tile[data-index]")).to_have_count(1)
    picker.get_by_role("button", name="Northern light").click()
    expect(picker).to_contain_text("2 of 12 chosen")
    picker.get_by_role("button", name="Done").click()
    expect(mix).to_have_count(2)
    page.get_by_label("Weight of Paper cut", exact=True).fill("0.6")
    page.get_by_label("Weight of Northern light", exact=True).fill("-0.35")
    expect(page.get_by_label("Weight of Northern light, number")).to_have_value("-0.35")
    page.get_by_label("Prompt", exact=True).fill("red heart")
    mix.first.get_by_role("button", name="papercut").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("red heart, papercut")
    page.get_by_label("Seed", exact=True).fill("4711")
    page.get_by_role("button", name="Generate", exact=False).first.click()
    # Waiting and progress are told, then the picture is there.
    expect(page.get_by_role("progressbar", name="Progress")).to_be_visible()
    expect(page.locator("vs-job[data-status=completed] img").first).to_be_visible(timeout=RENDERED_MS)
    expect(page.locator(".vs-job-facts")).to_contain_text("seed 4711")
    expect(page.locator(".vs-job-facts")).to_contain_text("Northern light -0.35")
    comes_true(page.locator("vs-job[data-status=completed] img").first, "image => image.complete && image.naturalWidth")
    return page


def save_to_gallery(page: Page, title: str) -> None:
    page.get_by_role("button", name="Save to gallery").click()
    page.get_by_label("Name of the new gallery").fill(title)
    page.get_by_role("radio", name="Public").check()
    page.locator("dialog").get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".toast", has_text=f"Saved to “{title}”")).to_be_visible()
    expect(page.get_by_role("button", name="Saved")).to_be_visible()


def cancel_another(page: Page) -> None:
    page.get_by_label("Prompt", exact=True).fill("blue heart")
    page.get_by_label("Steps", exact=True).last.fill("200")
    page.get_by_label("Prompt", exact=True).press("Control+Enter")
    expect(page.locator(".vs-job-line")).to_contain_text(["Step "])
    expect(page.locator(".vs-job-canvas img[alt^='Preview']")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", name="Cancelled")).to_be_visible()


def close_and_come_back(page: Page, person: Visitor) -> None:
    """Leave in the middle of a render: it goes on without anybody looking."""
    page.get_by_label("Prompt", exact=True).fill("green apple")
    page.get_by_label("Steps", exact=True).last.fill("30")
    page.get_by_label("Prompt", exact=True).press("Control+Enter")
    expect(page.locator("vs-job[data-status=running], vs-job[data-status=completed]")).to_be_visible()
    page.close()
    back = person.open("/generate")
    expect(back.get_by_label("Prompt", exact=True)).to_have_value("green apple")
    expect(back.locator("vs-job[data-status=completed] img").first).to_be_visible(timeout=RENDERED_MS)
    back.get_by_role("link", name="History").first.click()
    tiles = back.locator(".vs-render")
    expect(tiles).to_have_count(3)
    for number, state in enumerate(("completed", "cancelled", "completed")):
        expect(tiles.nth(number)).to_have_attribute("data-state", state, timeout=RENDERED_MS)
    expect(tiles.last).to_contain_text("red heart, papercut")
    # What is asked for while somebody logs out is refused.
    comes_true(back, "[...document.querySelectorAll('.vs-render img')].every((image) => image.complete)")


def log_out(person: Visitor) -> None:
    page = person.context.pages[-1]
    page.locator(".sidebar button.account").click()
    page.get_by_role("menuitem", name="Log out").click()
    expect(page.locator(".sidebar .account-guest")).to_be_visible()
    page.goto("/history")
    expect(page.locator(".vs-render")).to_have_count(0)


def find_as_guest(guest: Visitor) -> None:
    """With the keyboard alone, from the search to the recipe."""
    page = guest.open("/")
    expect(page.locator("vs-page-home .vs-tile").first).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("papercut heart")
    expect(page.locator(".palette .hit").first).to_be_visible()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/images\?q=papercut"))
    tile = page.locator(".vs-tile[data-index]")
    expect(tile).to_have_count(1)
    page.keyboard.press("/")
    page.keyboard.press("ArrowDown")
    expect(tile.locator("a")).to_be_focused()
    page.keyboard.press("Enter")
    lightbox = page.locator("dialog.vs-lightbox")
    expect(lightbox.locator(".vs-recipe")).to_contain_text("red heart, papercut")
    expect(lightbox.locator(".vs-recipe-loras")).to_contain_text("Northern light")
    lightbox.get_by_role("button", name="Copy prompt").click()
    expect(page.locator(".toast", has_text="copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "red heart, papercut"
    lightbox.get_by_role("link", name="Page").click()
    expect(page.locator("vs-image-detail h1")).to_be_visible()
    expect(page.locator("vs-image-detail")).to_contain_text("Ink")
    page.get_by_role("link", name="Evening hearts").click()
    expect(page.locator("vs-gallery-detail h1")).to_have_text("Evening hearts")
    expect(page.locator("vs-gallery-detail .vs-tile[data-index]")).to_have_count(1)
    page.locator("vs-gallery-detail .vs-tile a").first.focus()
    page.keyboard.press("Enter")
    expect(lightbox).to_be_visible()
    page.keyboard.press("Escape")
    expect(lightbox).to_have_count(0)


def test_the_main_path_on_a_phone(server: Server, visitor: NewVisitor) -> None:
    phone = visitor(width=390, height=844)
    page = phone.open("/register")
    fill_in_person(page, "Pia", "pia@example.org")
    page.get_by_role("button", name="Register").click()
    expect(page.get_by_role("button", name="Account of Pia")).to_be_visible()
    page.locator(".tabbar").get_by_role("link", name="Generate").click()
    idea = page.locator(".vs-suggestions .chip").first
    expect(idea).not_to_be_empty()
    words = str(idea.get_attribute("data-suggest"))
    idea.click()
    page.get_by_label("Steps", exact=True).last.fill("4")
    page.locator("[data-send]").click()
    picture = page.locator("vs-job[data-status=completed] img").first
    expect(picture).to_be_visible(timeout=RENDERED_MS)
    expect(picture).to_be_in_viewport()
    fits(page)
    page.get_by_role("button", name="Save to gallery").click()
    fits(page)
    page.get_by_label("Name of the new gallery").fill("Pond")
    page.locator("dialog").get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("dialog")).to_have_count(0)
    page.locator(".tabbar").get_by_role("link", name="Images").click()
    page.get_by_role("main").get_by_role("combobox", name="Search prompts").fill(words)
    expect(page).to_have_url(re.compile(r"\?q="))
    tile = page.locator(".vs-grid:not([aria-busy]) .vs-tile[data-index]")
    expect(tile).to_have_count(1)
    fits(page)
    tile.tap()
    expect(page.locator("dialog.vs-lightbox")).to_be_visible()
    page.get_by_role("button", name="Recipe").click()
    expect(page.locator(".vs-lightbox-rail .vs-recipe")).to_contain_text(words)
    fits(page)
    page.go_back()
    expect(page.locator("dialog.vs-lightbox")).to_have_count(0)
    expect(tile).to_have_count(1)

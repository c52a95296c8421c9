"""Pages of one thing: a card, a picture, a gallery. Their owner edits, arranges and deletes; others look and copy."""

import re

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser import Watched, comes_true, fits, until
from tests.pages.conftest import OpenPage, Site
from tests.pages.library import HOSTILE, add_gallery, add_lora, add_pictures
from visionsuit.core.actor import Role

pytestmark = pytest.mark.browser


def copied(page: Page) -> str:
    return str(page.evaluate("navigator.clipboard.readText()"))


def fill_gallery(site: Site, email: str, title: str, pictures: list[str]) -> str:
    """Id of a public gallery of pictures in this order."""
    ids = [item["id"] for item in add_pictures(site, email, pictures)]
    gallery = add_gallery(site, email, title)
    with site.client(email) as client:
        client.post(f"/api/galleries/{gallery}/items", json={"image_ids": ids}).raise_for_status()
        order = {"items": [{"kind": "image", "id": image} for image in ids]}
        client.put(f"/api/galleries/{gallery}/order", json=order).raise_for_status()
    return gallery


def test_a_new_lora_shows_how_it_acts(open_page: OpenPage, site: Site, watched: Watched) -> None:
    owner, admin = site.person(Role.CURATOR), site.person(Role.ADMIN)
    with site.client(admin) as client:
        client.patch("/api/settings", json={"auto_test_sheets": True}).raise_for_status()
        card = add_lora(site, owner, "Acts", 4711)
        client.patch("/api/settings", json={"auto_test_sheets": False}).raise_for_status()
        expect_sheet(client, card)
    for width in (1400, 390):
        page = open_page(f"/models?id={card}", width=width)
        sheet = page.get_by_role("region", name="Test sheet")
        picture = sheet.get_by_role("img")
        picture.scroll_into_view_if_needed()
        comes_true(picture, "image => image.complete && image.naturalWidth > 100")
        fits(page)
        expect(sheet.get_by_role("link", name="Open the render")).to_have_count(0)
        picture.click()
        expect(page.get_by_role("dialog", name="Picture viewer")).to_be_visible()
        page.keyboard.press("Escape")
    page = open_page(f"/models?id={card}", email=owner, width=390, height=844)
    page.get_by_role("region", name="Test sheet").get_by_role("link", name="Open the render").click()
    expect(page).to_have_url(re.compile("/generate"))
    # On a phone the pictures are below the form.
    expect(page.locator("[data-stage] img").first).to_be_in_viewport()


def expect_sheet(client: httpx.Client, card: str) -> None:
    """Wait until the sheet of a card is rendered."""

    def states() -> list[str]:
        return [sheet["status"] for sheet in client.get(f"/api/models/{card}/test-sheets").json()["items"]]

    until(lambda: states()[:1] == ["completed"], "the test sheet", seconds=60)


def titles(page: Page) -> Locator:
    return page.locator("vs-gallery-detail .vs-tile .vs-tile-info > b")


def test_a_card_shows_copies_and_leads_on(open_page: OpenPage, site: Site) -> None:
    curator = site.person(Role.CURATOR, "card maker")
    card = add_lora(site, curator, "Copper", seed=801, tags=["metal"], description="For **old** pipes")
    page = open_page(f"/models?id={card}")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    expect(page.locator("vs-model-detail h1")).to_have_text("Copper")
    expect(page.locator(".vs-prose strong")).to_have_text("old")
    page.locator("[data-copy]", has_text="copper style").click()
    expect(page.locator(".toast", has_text="copied")).to_be_visible()
    assert copied(page) == "copper style"
    page.get_by_role("button", name="Copy SHA-256").click()
    expect(page.locator(".toast", has_text="Hash copied")).to_be_visible()
    with site.client() as client:
        digest = client.get(f"/api/models/{card}").json()["versions"][0]["sha256"]
    assert copied(page) == digest
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator(".toast", has_text="Link copied")).to_be_visible()
    assert copied(page) == f"{site.url}/models?id={card}"
    # A download belongs to a member; afterwards one is back here.
    page.get_by_role("link", name="Sign in to download").click()
    page.get_by_label("E-mail").fill(site.person())
    page.get_by_label("Password").fill("correct horse battery")
    page.get_by_role("main").get_by_role("button", name="Log in").click()
    with page.expect_download() as download:
        page.get_by_role("main").get_by_role("link", name=re.compile("^Download")).click()
    assert download.value.suggested_filename == "801.safetensors"
    page.get_by_role("link", name="#metal").click()
    expect(page.locator(".vs-tile[data-index]")).to_have_count(1)
    expect(page.get_by_role("button", name="Remove filter #metal")).to_be_visible()


def test_its_owner_edits_a_card_and_the_list_knows(open_page: OpenPage, site: Site, watched: Watched) -> None:
    watched.expected += ["/api/models"]
    curator = site.person(Role.CURATOR)
    card = add_lora(site, curator, "Draft name", seed=802, tags=["editable"])
    page = open_page("/models?tag=editable", email=curator)
    page.locator(".vs-tile[data-index] a").click()
    page.get_by_role("button", name="Edit").click()
    dialog = page.locator("dialog[open]")
    dialog.get_by_label("Title").fill("")
    dialog.get_by_role("button", name="Save changes").click()
    expect(dialog.locator("[data-field=title] [role=alert]")).not_to_be_empty()
    dialog.get_by_label("Title").fill(HOSTILE)
    dialog.get_by_label("Tags").fill("editable, #brass , brass")
    dialog.get_by_role("radio", name="Unlisted").check()
    dialog.get_by_role("button", name="Save changes").click()
    expect(page.locator("vs-model-detail h1")).to_have_text(HOSTILE)
    expect(page.locator(".vs-detail-tags a")).to_have_text(["#editable", "#brass"])
    expect(page.locator("vs-model-detail .vs-badges")).to_contain_text("Unlisted")
    page.get_by_role("main").get_by_role("link", name="Models", exact=True).click()
    expect(page.locator(".vs-tile[data-index]")).to_contain_text("Unlisted")
    guest = open_page(f"/models?id={card}")
    expect(guest.locator("vs-model-detail h1")).to_have_text(HOSTILE)
    expect(guest.get_by_role("button", name="Edit")).to_have_count(0)
    guest.goto("/models?tag=editable")
    expect(guest.get_by_role("heading", name="Nothing matches")).to_be_visible()
    assert page.evaluate("window.hacked") is None
    assert guest.evaluate("window.hacked") is None


def test_deleting_says_what_goes(open_page: OpenPage, site: Site) -> None:
    curator = site.person(Role.CURATOR)
    add_pictures(site, curator, ["Fleeting one", "Fleeting two"], tags="fleeting")
    page = open_page("/images?tag=fleeting", email=curator)
    page.locator(".vs-tile", has_text="Fleeting one").locator("a").click()
    page.locator("dialog").get_by_role("link", name="Page").click()
    page.get_by_role("button", name="Delete").click()
    expect(page.locator("dialog")).to_contain_text("“Fleeting one”")
    expect(page.locator("dialog")).to_contain_text("This cannot be undone. Gone is gone.")
    page.locator("dialog").get_by_role("button", name="Cancel").click()
    expect(page.locator("dialog")).to_have_count(0)
    expect(page.locator("vs-image-detail h1")).to_have_text("Fleeting one")
    page.get_by_role("button", name="Delete").click()
    page.locator("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("vs-image-detail")).to_have_count(0)
    page.goto("/images?tag=fleeting")
    expect(page.locator(".vs-tile[data-index]")).to_have_count(1)


def test_a_gallery_is_arranged_by_buttons_and_by_dragging(open_page: OpenPage, site: Site) -> None:
    curator = site.person(Role.CURATOR)
    gallery = fill_gallery(site, curator, "Arranged", ["Aone", "Btwo", "Cthree", "Dfour"])
    page = open_page(f"/galleries?id={gallery}", email=curator)
    tiles = page.locator("vs-gallery-detail .vs-tile[data-index]")
    expect(tiles).to_have_count(4)
    expect(titles(page)).to_have_text(["Aone", "Btwo", "Cthree", "Dfour"])
    page.get_by_role("button", name="Arrange").click()
    page.get_by_role("button", name="Move back: Aone").click()
    expect(tiles.first).to_contain_text("Btwo")
    tiles.nth(3).drag_to(tiles.nth(0))
    expect(tiles.first).to_contain_text("Dfour")
    page.get_by_role("button", name="Done").click()
    expect(page.locator(".toast", has_text="Order saved")).to_be_visible()
    page.reload()
    expect(tiles.first).to_contain_text("Dfour")
    expect(titles(page)).to_have_text(["Dfour", "Btwo", "Aone", "Cthree"])
    page.get_by_role("button", name="Arrange").click()
    page.get_by_role("button", name="Take out of the gallery: Btwo").click()
    expect(tiles).to_have_count(3)
    expect(page.locator(".vs-gallery-head")).to_contain_text("3 pictures")
    page.locator(".toast", has_text="no longer in this gallery").get_by_role("button", name="Undo").click()
    expect(tiles).to_have_count(4)
    expect(tiles.nth(1)).to_contain_text("Btwo")


def test_a_picture_goes_into_a_gallery_and_is_shown_in_it(open_page: OpenPage, site: Site) -> None:
    curator, member = site.person(Role.CURATOR), site.person()
    picture = add_pictures(site, curator, ["Wanted picture"])[0]["id"]
    page = open_page(f"/images?id={picture}", email=member)
    page.get_by_role("button", name="Add to gallery").click()
    page.locator("dialog").get_by_role("button", name="Add").click()
    expect(page.locator("dialog [data-field=gallery_title] [role=alert]")).to_contain_text("Name the gallery")
    page.get_by_label("Name of the new gallery").fill("Things I like")
    page.locator("dialog").get_by_role("button", name="Add").click()
    page.locator(".toast", has_text="Added to").get_by_role("link", name="Open").click()
    expect(page.locator("vs-gallery-detail h1")).to_have_text("Things I like")
    page.locator("vs-gallery-detail .vs-tile a").click()
    expect(page.locator("dialog.vs-lightbox h2")).to_have_text("Wanted picture")
    expect(page).to_have_url(re.compile(f"image={picture}"))
    address = page.url
    # The address of a picture in a gallery opens on that picture.
    again = open_page(address.removeprefix(site.url), email=member)
    expect(again.locator("dialog.vs-lightbox h2")).to_have_text("Wanted picture")


def test_a_new_gallery_begins_empty_and_says_so(open_page: OpenPage, site: Site) -> None:
    page = open_page("/galleries", email=site.person())
    page.get_by_role("button", name="New gallery").first.click()
    page.locator("dialog").get_by_label("Title").fill("Nothing yet")
    page.locator("dialog").get_by_role("button", name="Create gallery").click()
    expect(page.locator("vs-gallery-detail h1")).to_have_text("Nothing yet")
    expect(page.get_by_role("heading", name="This gallery is empty")).to_be_visible()


def test_adult_things_show_once_the_switch_is_on(open_page: OpenPage, site: Site) -> None:
    member = site.person()
    add_pictures(site, site.person(Role.CURATOR), ["For grown-ups"], tags="grownup", adult="true")
    page = open_page("/images?tag=grownup", email=member)
    expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()
    page.goto("/account")
    page.locator(".switch", has_text="Show adult").click()
    page.wait_for_function("() => fetch('/api/auth/me').then((a) => a.json()).then((me) => me.shows_adult)")
    page.goto("/images?tag=grownup")
    expect(page.locator(".vs-tile[data-index]")).to_contain_text("18+")


def test_what_is_gone_or_hidden_says_so(open_page: OpenPage, site: Site, watched: Watched) -> None:
    watched.expected += ["/api/models/", "/api/images/", "/api/galleries/"]
    hidden = add_pictures(site, site.person(Role.CURATOR), ["Hidden"], visibility="private")[0]["id"]
    page = open_page("/health")
    for address in ("/models?id=nothing", f"/images?id={hidden}", "/galleries?id=nothing"):
        page.goto(address)
        expect(page.get_by_role("alert")).to_contain_text("or it is not shared with you")
        expect(page.locator(".vs-detail-back a")).to_be_visible()

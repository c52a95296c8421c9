"""The upload wizards: nothing typed is lost, refusals are told beside the file, what is published can be found."""

import base64

import pytest
from playwright.sync_api import Page, expect

from tests.browser import Watched
from tests.pages.conftest import OpenPage, Site, sign_in
from tests.pages.files import lora, png
from visionsuit.core.actor import Role

pytestmark = pytest.mark.browser


def picked(name: str, body: bytes, mime: str = "image/png") -> dict[str, object]:
    return {"name": name, "mimeType": mime, "buffer": body}


def fill_model(page: Page, title: str) -> None:
    page.get_by_label("Title").fill(title)
    page.get_by_label("Trigger").fill("inkstyle")
    page.get_by_label("Description").fill("From **old** books")
    page.locator("#up-tags").fill("ink, drawing,")


def test_a_model_from_the_first_word_to_its_page(open_page: OpenPage, site: Site) -> None:
    page = open_page("/upload", email=site.person(Role.CURATOR))
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("[data-error=title]")).to_contain_text("Give the model a title")
    fill_model(page, "Ink & <i>paper</i>")
    page.reload()
    expect(page.get_by_label("Title")).to_have_value("Ink & <i>paper</i>")
    expect(page.locator("vs-tag-input .chip")).to_have_text(["ink", "drawing"])
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("[data-error=weights]")).to_contain_text("Choose the weights")
    page.set_input_files("[data-pick=weights]", picked("old.ckpt", b"x" * 100, "application/octet-stream"))
    expect(page.locator("[data-error=weights]")).to_contain_text("pickle")
    page.set_input_files("[data-pick=weights]", picked("cut.safetensors", lora(1)[:-9], "application/octet-stream"))
    expect(page.locator("[data-error=weights]")).to_contain_text("missing at its end")
    page.get_by_role("button", name="Remove").click()
    page.set_input_files("[data-pick=weights]", picked("ink.safetensors", lora(1), "application/octet-stream"))
    expect(page.locator(".picked .facts")).to_contain_text("F16")
    page.set_input_files("[data-pick=cover]", picked("cover.png", png(10)))
    page.get_by_role("button", name="Continue").click()
    expect(page.locator(".review")).to_contain_text("Ink & <i>paper</i>")
    page.get_by_role("button", name="Publish").click()
    page.wait_for_url("**/models?id=*")
    expect(page.locator("h1:visible")).to_have_text("Ink & <i>paper</i>")
    found = site.client().get("/api/models", params={"q": "ink paper"}).json()["items"]
    assert [item["title"] for item in found] == ["Ink & <i>paper</i>"]
    page.goto("/upload")
    expect(page.get_by_label("Title")).to_have_value("")


def test_the_same_weights_again_lead_to_the_card_that_has_them(
    open_page: OpenPage, site: Site, watched: Watched
) -> None:
    watched.expected += ["/api/uploads/models"]
    email = site.person(Role.CURATOR)
    with site.client(email) as client:
        files = {"file": ("a.safetensors", lora(2)), "cover": ("a.png", png(20), "image/png")}
        data = {"title": "The first one", "trigger": "first", "visibility": "public"}
        assert client.post("/api/uploads/models", files=files, data=data).status_code == 201
    page = open_page("/upload", email=email)
    fill_model(page, "The second one")
    page.get_by_role("button", name="Continue").click()
    page.set_input_files("[data-pick=weights]", picked("b.safetensors", lora(2), "application/octet-stream"))
    page.set_input_files("[data-pick=cover]", picked("b.png", png(21)))
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Publish").click()
    expect(page.locator("[data-form-error]")).to_be_visible()
    page.get_by_text("Open “The first one”").click()
    expect(page.locator("h1:visible")).to_have_text("The first one")
    page.go_back()
    expect(page.get_by_label("Title")).to_have_value("The second one")


def test_large_weights_go_through_a_draft(open_page: OpenPage, site: Site) -> None:
    page = open_page("/upload", email=site.person(Role.CURATOR))
    sent: list[str] = []
    page.on("request", lambda request: sent.append(f"{request.method} {request.url.partition('/api')[2]}"))
    fill_model(page, "A large one")
    page.get_by_role("button", name="Continue").click()
    page.set_input_files("[data-pick=cover]", picked("c.png", png(30)))
    expect(page.get_by_alt_text("Chosen cover")).to_be_visible()
    # Playwright hands over at most 50 MB, so the page makes the file: a real LoRA with padding as one more tensor.
    page.evaluate(
        """(base) => {
            const small = Uint8Array.from(atob(base), (sign) => sign.charCodeAt(0));
            const length = Number(new DataView(small.buffer).getBigUint64(0, true));
            const header = JSON.parse(new TextDecoder().decode(small.slice(8, 8 + length)));
            const data = small.slice(8 + length), pad = 65 * 1024 * 1024;
            header["lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"] =
                { dtype: "F16", shape: [pad / 2], data_offsets: [data.length, data.length + pad] };
            const text = new TextEncoder().encode(JSON.stringify(header));
            const size = new Uint8Array(8);
            new DataView(size.buffer).setBigUint64(0, BigInt(text.length), true);
            const box = new DataTransfer();
            box.items.add(new File([size, text, data, new Uint8Array(pad)], "large.safetensors"));
            const input = document.querySelector("[data-pick=weights]");
            input.files = box.files;
            input.dispatchEvent(new Event("change", { bubbles: true }));
        }""",
        base64.b64encode(lora(3)).decode(),
    )
    expect(page.locator(".picked").first).to_contain_text("68.2 MB")
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Publish").click()
    page.wait_for_url("**/models?id=*", timeout=60000)
    assert "POST /uploads/drafts" in sent
    assert sum(line.startswith("PUT /uploads/drafts/") for line in sent) == 2
    assert not any(line == "POST /uploads/models" for line in sent)


def test_pictures_into_a_new_gallery_one_of_them_bad(open_page: OpenPage, site: Site, watched: Watched) -> None:
    watched.expected += ["/api/uploads/images"]
    page = open_page("/upload?kind=images", email=site.person(Role.CURATOR))
    page.get_by_label("Title of the gallery").fill("Orbs <b>")
    page.get_by_role("button", name="Continue").click()
    good = [picked(f"orb {n}.png", png(40 + n)) for n in range(3)]
    page.set_input_files("[data-pick=files]", [good[0], picked("broken.png", png(49)[:200]), *good[1:]])
    expect(page.locator(".upload-picture")).to_have_count(4)
    page.set_input_files("[data-pick=files]", picked("notes.txt", b"x", "text/plain"))
    expect(page.locator("[data-error=files]")).to_contain_text("notes.txt is not a PNG")
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Upload 4 pictures").click()
    expect(page.locator(".upload-picture[data-state=done]")).to_have_count(3)
    failed = page.locator(".upload-picture[data-state=failed]")
    expect(failed).to_contain_text("broken.png")
    expect(failed.locator("[role=alert]")).not_to_be_empty()
    failed.get_by_role("button", name="Remove broken.png").click()
    # Nothing is left to send: the gallery is there.
    expect(page.get_by_text("3 pictures are in the library")).to_be_visible()
    page.get_by_role("link", name="Open the gallery").click()
    expect(page.locator("h1:visible")).to_have_text("Orbs <b>")
    gallery = site.client().get("/api/galleries", params={"q": "orbs"}).json()["items"][0]
    assert gallery["image_count"] == 3


def test_files_dropped_on_the_page_are_taken(open_page: OpenPage, site: Site) -> None:
    page = open_page("/upload?kind=images", email=site.person(Role.CURATOR))
    page.locator(".segmented label", has_text="No gallery").click()
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("[data-pick=files]")).to_be_attached()
    page.evaluate(
        """() => {
            const box = new DataTransfer();
            box.items.add(new File([new Uint8Array(20)], "dropped.png", { type: "image/png" }));
            document.querySelector("h2").dispatchEvent(new DragEvent("drop", { dataTransfer: box, bubbles: true }));
        }"""
    )
    expect(page.locator(".upload-picture")).to_contain_text("dropped.png")
    page.get_by_role("button", name="Remove dropped.png").click()
    expect(page.locator(".upload-picture")).to_have_count(0)


def test_who_may_not_upload_learns_why(open_page: OpenPage, site: Site) -> None:
    page = open_page("/upload")
    expect(page.get_by_text("Log in to upload")).to_be_visible()
    sign_in(page, site, site.person())
    page.goto("/upload")
    expect(page.get_by_text("Uploading is for curators")).to_be_visible()

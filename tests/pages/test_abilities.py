"""The generator asks a base model for what it can do, and says what it leaves out."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.engine.tiny import make_tiny_sd
from tests.engine.tiny_flux import make_flux_lora, make_tiny_flux
from tests.engine.tiny_whole import make_tiny_lcm, make_tiny_pixart
from tests.pages.conftest import OpenPage, Site, start_site
from tests.pages.files import png
from tests.pages.library import add_lora
from tests.pages.test_generator import done, last_request, prompt, send
from visionsuit.core.actor import Role

pytestmark = pytest.mark.browser
MADE: dict[str, Any] = {"flux": make_tiny_flux, "lcm": make_tiny_lcm, "pixart": make_tiny_pixart, "sd": make_tiny_sd}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("able") / "models"
    for name, make in MADE.items():
        make(folder / name)
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Site]:
    yield from start_site(tmp_path_factory.mktemp("able-site") / "data", models_dir=models)


def choose(page: Page, label: str) -> None:
    page.locator(".vs-bases label").filter(has=page.get_by_text(label, exact=True)).click()


def give_picture(page: Page) -> None:
    page.locator("vs-init-panel summary").click()
    file: Any = {"name": "start.png", "mimeType": "image/png", "buffer": png(3)}
    page.get_by_label("Picture to start from").set_input_files(file)
    expect(page.get_by_alt_text("The picture to start from")).to_be_visible()


def test_the_form_asks_for_what_the_base_model_can(open_page: OpenPage, site: Site) -> None:
    email = site.person()
    page = open_page("/generate", email=email)
    mixer, panel, note = page.locator("vs-lora-mixer"), page.locator("vs-init-panel"), page.locator(".vs-left-out")
    second = page.locator("details[data-fold=hires]")
    choose(page, "sd")
    give_picture(page)
    extend = page.get_by_text("Extend the picture")
    expect(page.get_by_role("button", name="Draw a mask")).to_be_visible()
    page.get_by_label("Pixels to add: left").fill("16")
    page.get_by_label("Pixels to add: left").press("Tab")
    expect(panel.locator("summary")).to_contain_text("extended")
    choose(page, "lcm")
    expect(page.get_by_role("button", name="Draw a mask")).to_have_count(0)
    expect(extend).to_have_count(0)
    expect(panel.locator("summary")).not_to_contain_text("extended")
    expect(note).to_have_count(0)
    choose(page, "pixart")
    for part in (mixer, panel, second):
        expect(part).to_be_hidden()
    expect(note).to_have_text("pixart takes no LoRAs, and renders from a prompt alone; your picture is left out.")
    prompt(page).fill("a red door")
    send(page)
    expect(done(page)).to_be_visible()
    assert last_request(site, email)["init"] is None
    page.get_by_role("button", name="Vary").first.click()
    expect(page.get_by_text("pixart makes no variations of a seed")).to_be_visible()
    choose(page, "sd")
    for part in (mixer, panel, second):
        expect(part).to_be_visible()
    expect(panel.locator("summary")).to_contain_text("extended")
    expect(note).to_have_count(0)


def test_the_picker_offers_what_fits(open_page: OpenPage, site: Site, models: Path, tmp_path: Path) -> None:
    email = site.person(Role.CURATOR)
    path = tmp_path / "flux.safetensors"
    make_flux_lora(path, models / "flux", "kohya")
    with closing(site.client(email)) as client:
        files = {
            "file": (path.name, path.read_bytes(), "application/octet-stream"),
            "cover": ("c.png", png(9), "image/png"),
        }
        data = {"title": "Ink for Flux", "trigger": "ink", "visibility": "public"}
        answer = client.post("/api/uploads/models", data=data, files=files)
        assert answer.status_code == 201, answer.text
    add_lora(site, email, "Other", 4)
    page = open_page("/generate", email=email)
    for label, there in (("sd", False), ("flux", True)):
        choose(page, label)
        page.locator("vs-lora-mixer [data-add]").first.click()
        expect(page.locator(".vs-picker-tools")).to_contain_text(f"Fits {label}")
        if not there:
            expect(page.locator(".vs-picker-grid")).to_contain_text("Only LoRAs that fit sd are shown")
        expect(page.locator(".vs-pick").filter(has_text="Ink for Flux")).to_have_count(int(there))
        expect(page.locator(".vs-pick").filter(has_text="Other")).to_have_count(0)
        if there:
            page.locator(".vs-pick a").first.click()
        page.get_by_role("button", name="Done").click()
    prompt(page).fill("a red door")
    send(page)
    expect(done(page)).to_be_visible()
    assert [lora["title"] for lora in last_request(site, email)["loras"]] == ["Ink for Flux"]
    choose(page, "pixart")
    expect(page.locator(".vs-left-out")).to_contain_text("pixart takes no LoRAs; the one in your mix is left out")

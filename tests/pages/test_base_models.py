"""Administrators keep the list of base models in the browser; the weights come from a hub on this machine."""

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser import Watched, comes_true, fits, until
from tests.engine.tiny import make_tiny_sd
from tests.engine.tiny_sd3 import make_tiny_sd3
from tests.hub_server import FakeHub, serve_hub
from tests.pages.conftest import OpenPage, Site, start_site
from tests.pages.library import HOSTILE
from visionsuit.core.actor import Role
from visionsuit.core.config import HubSettings
from visionsuit.engine.base import SAMPLERS, Family, samplers_for

pytestmark = pytest.mark.browser

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_sd(tmp_path_factory.mktemp("tiny") / "sd")


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with serve_hub() as served:
        yield served


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, hub: FakeHub) -> Iterator[Site]:
    """With a models folder of its own, which is empty at first."""
    place = tmp_path_factory.mktemp("base-models")
    (place / "models").mkdir()
    (place / "shelf").mkdir()
    yield from start_site(
        place / "data",
        models_dir=place / "models",
        base_model_dirs=[place / "shelf"],
        hub=HubSettings(endpoint=hub.url, reserve_bytes=0),
    )


@pytest.fixture
def ask(site: Site) -> Iterator[Ask]:
    """`ask("GET", "/all")` on /api/base-models as an administrator; the list is empty before and after."""
    with site.client(site.person(Role.ADMIN)) as client:

        def call(method: str, path: str = "", json: Any = None) -> Any:
            answer = client.request(method, f"/api/base-models{path}", json=json)
            assert answer.is_success, answer.text
            return answer.json() if answer.content else None

        yield call
        for entry in site.runtime.settings.models_dir.iterdir():
            shutil.rmtree(entry)
        for item in call("POST", "/sync")["items"]:
            call("DELETE", f"/{item['id']}")


def open_list(open_page: OpenPage, site: Site, **options: Any) -> Page:
    return open_page("/admin?tab=models", email=site.person(Role.ADMIN), **options)


def row(page: Page, label: str) -> Locator:
    return page.locator(".bm", has=page.get_by_role("heading", name=label, exact=True))


def release(hub: FakeHub) -> None:
    assert hub.hold is not None
    hub.hold.set()
    hub.hold = None


def add_from_hub(page: Page, repo_id: str, **fields: str) -> None:
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_label("Repository").fill(repo_id)
    for label, value in fields.items():
        page.get_by_label(label).fill(value)
    page.locator("dialog").get_by_role("button", name="Add").click()


def test_a_model_comes_from_the_hub_and_goes_again(
    open_page: OpenPage, site: Site, hub: FakeHub, tiny: Path, ask: Ask
) -> None:
    hub.add("artist/tiny", tiny)
    hub.hold = threading.Event()
    page = open_list(open_page, site)
    expect(page.get_by_text("No base model yet")).to_be_visible()
    add_from_hub(page, "artist/tiny", **{"Name in pickers": "Tiny"})
    # Half of the largest file has come.
    expect(row(page, "Tiny").get_by_role("progressbar")).to_have_attribute("aria-valuenow", re.compile("[1-9]"))
    expect(row(page, "Tiny").locator(".bm-fetch")).to_contain_text(re.compile(r"[\d.]+ kB of [\d.]+ (kB|MB)"))
    release(hub)
    expect(row(page, "Tiny").get_by_text("Ready", exact=True)).to_be_visible()
    expect(row(page, "Tiny").get_by_role("progressbar")).to_have_count(0)
    expect(row(page, "Tiny")).to_contain_text("hub: artist/tiny")
    assert [item["label"] for item in ask("GET")["items"]] == ["Tiny"]

    row(page, "Tiny").get_by_role("button", name="Edit").click()
    page.get_by_label("Name in pickers").fill(HOSTILE)
    page.get_by_label("Steps").fill("9")
    page.get_by_label("Sampler").select_option("euler")
    page.get_by_label("Suggested sizes").fill("64 x 96, 64 × 64")
    page.get_by_label("Number format").select_option("bf16")
    page.get_by_label("Curators").check()
    page.get_by_role("button", name="Save").click()
    expect(row(page, HOSTILE)).to_contain_text("for curators")
    expect(row(page, HOSTILE)).to_contain_text("bf16")
    expect(row(page, HOSTILE)).to_contain_text("9 steps")
    [item] = ask("GET", "/all")["items"]
    assert (item["label"], item["default"]["steps"], item["default"]["sampler"]) == (HOSTILE, 9, "euler")
    assert (item["sizes"], item["allowed_roles"]) == ([[64, 96], [64, 64]], ["CURATOR"])
    assert item["dtype"] == "bf16"
    assert page.evaluate("window.hacked") is None

    page.get_by_role("checkbox", name=f"Offer {HOSTILE}").uncheck()
    expect(row(page, HOSTILE)).to_contain_text("offered to nobody")
    assert ask("GET")["items"] == []

    folder = site.runtime.settings.models_dir / "artist--tiny"
    assert (folder / "model_index.json").is_file()
    page.get_by_role("button", name=f"Delete {HOSTILE}").click()
    expect(page.get_by_role("dialog")).to_contain_text("is deleted from disk: artist--tiny")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("No base model yet")).to_be_visible()
    until(lambda: not folder.exists(), "the folder's end")


def test_a_download_is_stopped_gone_on_with_and_says_why_it_failed(
    open_page: OpenPage, site: Site, hub: FakeHub, tiny: Path, ask: Ask
) -> None:
    hub.add("artist/tiny", tiny)
    hub.hold = threading.Event()
    page = open_list(open_page, site)
    add_from_hub(page, "artist/tiny")
    tiny_row = row(page, "artist/tiny")
    expect(tiny_row.get_by_role("progressbar")).to_have_attribute("aria-valuenow", re.compile("[1-9]"))
    with page.expect_response(lambda answer: answer.url.endswith("/cancel")):
        tiny_row.get_by_role("button", name="Cancel").click()
    release(hub)
    expect(tiny_row).to_contain_text("What came is kept")
    tiny_row.get_by_role("button", name="Go on").click()
    expect(page.locator(".bm").get_by_text("Ready", exact=True)).to_be_visible()

    add_from_hub(page, "artist/nowhere")
    expect(row(page, "artist/nowhere")).to_contain_text("Not downloaded: The hub has no artist/nowhere")
    row(page, "artist/nowhere").get_by_role("button", name="Edit").click()
    expect(page.locator("dialog")).to_contain_text("can be set once its files are known")
    expect(page.get_by_label("Suggested sizes")).to_have_count(0)
    page.get_by_label("Curators").check()
    page.get_by_role("button", name="Save").click()
    expect(row(page, "artist/nowhere")).to_contain_text("for curators")
    hub.add("artist/nowhere", tiny)
    row(page, "artist/nowhere").get_by_role("button", name="Try again").click()
    expect(page.locator(".bm").get_by_text("Ready", exact=True)).to_have_count(2)


def test_refusals_stand_beside_the_field_they_name(
    open_page: OpenPage, site: Site, tiny: Path, ask: Ask, watched: Watched
) -> None:
    watched.expected += ["/api/base-models"]
    shutil.copytree(tiny, site.runtime.settings.models_dir / "found")
    page = open_list(open_page, site)
    page.get_by_role("button", name="Look for new ones").click()
    expect(page.locator(".toast", has_text="1 new base model")).to_be_visible()
    add_from_hub(page, "no repository", Revision="../x")
    expect(page.locator("[data-error=repo_id]")).to_contain_text("owner/name")
    expect(page.get_by_label("Repository")).to_be_focused()
    page.get_by_text("From the server").click()
    page.locator("dialog").get_by_role("button", name="Add").click()
    expect(page.locator("[data-error=path]")).not_to_be_empty()
    page.get_by_label("Folder or checkpoint").fill("/etc")
    page.locator("dialog").get_by_role("button", name="Add").click()
    expect(page.locator("[data-error=path]")).to_contain_text("VISIONSUIT_BASE_MODEL_DIRS")
    page.keyboard.press("Escape")

    row(page, "found").get_by_role("button", name="Edit").click()
    for label, value, field, words in (
        ("Width", "65", "default.width", "multiples of 8"),
        ("Guidance", "much", "default.guidance", "a number"),
        ("Suggested sizes", "64", "sizes", "is no size"),
    ):
        page.get_by_label(label).fill(value)
        page.get_by_role("button", name="Save").click()
        expect(page.locator(f"[data-error='{field}']")).to_contain_text(words)
        expect(page.get_by_label(label)).to_be_focused()
        page.get_by_label(label).fill("")


def test_the_order_is_changed_by_keys_and_what_was_put_there_by_hand_stays(
    open_page: OpenPage, site: Site, tiny: Path, ask: Ask
) -> None:
    settings = site.runtime.settings
    for place in (settings.models_dir / "found", settings.base_model_dirs[0] / "shelf"):
        shutil.copytree(tiny, place)
    ask("POST", "/sync")
    page = open_list(open_page, site)
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_text("From the server").click()
    page.get_by_label("Folder or checkpoint").fill(str(settings.base_model_dirs[0] / "shelf"))
    page.locator("dialog").get_by_role("button", name="Add").click()
    headings = page.locator(".bm h3")
    expect(headings).to_have_text(["found", "shelf"])
    page.get_by_role("button", name="Move shelf up").focus()
    page.keyboard.press("Enter")
    expect(headings).to_have_text(["shelf", "found"])
    # At the end of the list, the other way is left to go.
    expect(page.get_by_role("button", name="Move shelf down")).to_be_focused()
    until(lambda: [item["label"] for item in ask("GET", "/all")["items"]] == ["shelf", "found"], "the order")
    page.reload()
    expect(headings).to_have_text(["shelf", "found"])

    page.get_by_role("button", name="Delete shelf").click()
    expect(page.get_by_role("dialog")).to_contain_text("Nothing is deleted from disk")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(headings).to_have_text(["found"])
    assert (settings.base_model_dirs[0] / "shelf" / "model_index.json").is_file()

    page.get_by_role("button", name="Delete found").click()
    expect(page.get_by_role("dialog")).to_contain_text("Remove found from the models folder first")
    page.get_by_role("button", name="Hide it").click()
    expect(row(page, "found")).to_contain_text("offered to nobody")
    assert ask("GET")["items"] == []


def test_the_generator_offers_the_samplers_of_the_chosen_model(
    open_page: OpenPage, site: Site, tiny: Path, ask: Ask, watched: Watched
) -> None:
    # Between a model's leaving and the page's reading the list again, its form may ask about it.
    watched.expected += ["/api/prompts/check", "/api/loras/"]
    shutil.copytree(tiny, site.runtime.settings.models_dir / "noisy")
    make_tiny_sd3(site.runtime.settings.models_dir / "straight")
    ask("POST", "/sync")
    page = open_page("/generate", email=site.person())
    page.locator("summary", has_text="Advanced").click()
    page.locator(".vs-bases label", has_text="noisy").click()
    options = page.get_by_label("Sampler").locator("option")
    expect(options).to_have_count(len(SAMPLERS))
    page.get_by_label("Sampler").select_option("ddim")
    page.locator(".vs-bases label", has_text="straight").click()
    expect(options).to_have_text(list(samplers_for(Family.SD3).values()))
    expect(page.get_by_label("Sampler")).to_have_value("euler")
    page.get_by_label("Prompt", exact=True).fill("a line")
    page.locator("[data-send]").click()
    expect(page.locator("vs-job[data-status=completed]")).to_be_visible()
    # The form of a model that left the list becomes one of a model that is there.
    page.locator(".vs-bases label", has_text="noisy").click()
    page.get_by_label("Sampler").select_option("ddim")
    shutil.rmtree(site.runtime.settings.models_dir / "noisy")
    ask("POST", "/sync")
    page.reload()
    expect(page.get_by_label("Sampler")).to_have_value("euler")


def test_the_longest_label_fits_on_a_phone(open_page: OpenPage, site: Site, tiny: Path, ask: Ask) -> None:
    for name in ("short", "long"):
        shutil.copytree(tiny, site.runtime.settings.models_dir / name)
    items = {item["label"]: item for item in ask("POST", "/sync")["items"]}
    ask("PATCH", f"/{items['long']['id']}", {"label": "W" * 180, "description": "w" * 500, "is_default": True})
    page = open_list(open_page, site, width=390, height=844)
    expect(page.locator(".bm")).to_have_count(2)
    fits(page)
    page.get_by_role("button", name="Edit W").click()
    comes_true(page.locator("dialog"), "dialog => dialog.scrollWidth <= dialog.clientWidth")
    page.goto("/generate")
    page.locator("summary", has_text="Advanced").click()
    expect(page.get_by_role("button", name="Back to the defaults of W")).to_be_visible()
    fits(page)


@pytest.mark.parametrize("role", [Role.USER, Role.CURATOR])
def test_members_see_nothing_of_it(open_page: OpenPage, site: Site, role: Role) -> None:
    email = site.person(role)
    page = open_page("/admin?tab=models", email=email)
    expect(page.get_by_text("For administrators")).to_be_visible()
    expect(page.get_by_role("tab")).to_have_count(0)
    expect(page.get_by_role("link", name="Admin")).to_have_count(0)
    with site.client(email) as client:
        assert client.get("/api/base-models/all").status_code == 403
        assert client.post("/api/base-models", json={"repo_id": "artist/tiny"}).status_code == 403

"""The generator: what is typed is what is rendered, what cannot be rendered says why, and pictures lead back here."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser import Watched
from tests.generation.conftest import lora_bytes
from tests.pages.conftest import OpenPage, Site
from tests.pages.files import png
from tests.pages.library import add_lora, add_pictures
from visionsuit.core.actor import Role

pytestmark = pytest.mark.browser


def prompt(page: Page) -> Locator:
    return page.get_by_label("Prompt", exact=True)


def done(page: Page) -> Locator:
    return page.locator("vs-job[data-status=completed]")


def last_request(site: Site, email: str) -> dict[str, Any]:
    with site.client(email) as client:
        return dict(client.get("/api/generations").json()["items"][0]["request"])


def send(page: Page) -> None:
    page.locator("[data-send]").click()


@contextmanager
def paused_queue(site: Site) -> Iterator[None]:
    with site.client(site.person(Role.ADMIN)) as client:
        client.post("/api/queue/pause").raise_for_status()
        try:
            yield
        finally:
            client.post("/api/queue/resume").raise_for_status()


def test_what_is_set_is_what_is_rendered(open_page: OpenPage, site: Site) -> None:
    email = site.person()
    page = open_page("/generate", email=email)
    counter = page.locator("[data-counter=prompt]")
    prompt(page).fill("an owl")
    expect(counter).to_have_text("2 / 30 tokens")
    prompt(page).fill("an owl on a branch, " * 16)
    expect(counter).to_contain_text("chunks of 30")
    prompt(page).fill("an owl at night")
    page.get_by_label("Negative prompt").fill("day")
    size = page.locator("[data-size]").last
    width, height = (int(side) for side in str(size.get_attribute("data-size")).split("x"))
    size.click()
    expect(size).to_have_attribute("aria-pressed", "true")
    page.locator("#gen-steps").fill("5")
    page.locator("#gen-guidance").fill("2.5")
    page.get_by_role("button", name="2 pictures").click()
    page.get_by_label("Seed", exact=True).fill("12x34")
    expect(page.get_by_label("Seed", exact=True)).to_have_value("1234")
    page.locator("summary", has_text="Advanced").click()
    page.get_by_label("Sampler").select_option(index=1)
    sampler = page.get_by_label("Sampler").input_value()
    prompt(page).press("Control+Enter")
    expect(done(page).locator("img")).to_have_count(2)
    request = last_request(site, email)
    wanted = {"prompt": "an owl at night", "negative_prompt": "day", "width": width, "height": height, "steps": 5}
    assert wanted.items() <= request.items()
    assert (request["guidance"], request["count"], request["seed"], request["sampler"]) == (2.5, 2, 1234, sampler)
    # All of it is there again, the fold-out too.
    page.reload()
    expect(prompt(page)).to_have_value("an owl at night")
    expect(page.locator("#gen-steps")).to_have_value("5")
    expect(page.get_by_label("Sampler")).to_be_visible()
    page.get_by_role("button", name="Back to the defaults").click()
    expect(page.get_by_label("Seed", exact=True)).to_have_value("")
    expect(prompt(page)).to_have_value("an owl at night")


def test_a_free_size_is_told_when_it_cannot_be(open_page: OpenPage, site: Site, watched: Watched) -> None:
    watched.expected += ["/api/generations"]
    page = open_page("/generate", email=site.person())
    prompt(page).fill("a pond")
    page.locator("summary", has_text="Advanced").click()
    width = page.get_by_label("Width")
    step, least = int(str(width.get_attribute("step"))), int(str(width.get_attribute("min")))
    width.fill(str(least + step + 1))
    width.press("Tab")
    expect(page.locator("[data-free]")).to_be_visible()
    send(page)
    expect(page.locator("[data-error=width]")).to_contain_text(str(step))
    expect(width).to_have_attribute("aria-invalid", "true")
    width.fill(str(least + step))
    send(page)
    expect(done(page)).to_be_visible()
    expect(page.locator("[data-error=width]")).to_be_hidden()


def test_an_old_answer_takes_no_render_back(open_page: OpenPage, site: Site) -> None:
    email = site.person()
    with site.client(email) as client:
        client.post("/api/generations", json={"prompt": "an earlier one", "steps": 1}).raise_for_status()
    held: list[Route] = []
    page = open_page("/health", email=email)
    page.route(re.compile(r"/api/generations\?limit="), lambda route: held.append(route))
    page.goto("/generate")
    with paused_queue(site):
        prompt(page).fill("a sundial")
        send(page)
        expect(page.locator("vs-job:not([data-status=completed])")).to_be_visible()
        # The list of the latest renders, in which this one still waits.
        old = held[0].fetch()
    expect(done(page)).to_be_visible()
    page.evaluate(
        """() => {
            window.states = [];
            const job = document.querySelector("vs-job");
            new MutationObserver(() => window.states.push(job.dataset.status)).observe(job, { attributes: true });
        }"""
    )
    held[0].fulfill(response=old)
    expect(page.locator("[data-strip] [data-job]")).to_have_count(2)
    assert set(page.evaluate("window.states")) <= {"completed"}


def test_a_seed_stays_until_it_is_let_go(open_page: OpenPage, site: Site) -> None:
    page = open_page("/generate", email=site.person())
    seed = page.get_by_label("Seed", exact=True)
    prompt(page).fill("a kite")
    send(page)
    expect(done(page)).to_be_visible()
    page.get_by_role("button", name="Reuse the last seed").click()
    expect(seed).not_to_have_value("")
    expect(page.locator(".vs-job-facts")).to_contain_text(f"seed {seed.input_value()}")
    page.get_by_role("button", name="Random seed each time").click()
    expect(seed).to_have_value("")
    page.get_by_role("button", name="Vary").click()
    page.get_by_role("button", name="Another seed altogether").click()
    expect(page.locator("[data-strip] [data-job]")).to_have_count(2)


def test_the_mix_triggers_mute_order_and_both_weights(open_page: OpenPage, site: Site) -> None:
    curator, email = site.person(Role.CURATOR), site.person()
    for seed, title in ((501, "Mixone"), (502, "Mixtwo"), (503, "Mixthree")):
        add_lora(site, curator, title, seed=seed, tags=["mixing"])
    page = open_page("/generate", email=email)
    page.get_by_role("button", name="Add LoRA").click()
    picker = page.locator("dialog.vs-picker")
    picker.get_by_role("combobox").fill("mixing")
    expect(picker.locator(".vs-grid:not([aria-busy]) .vs-tile[data-index]")).to_have_count(3)
    for title in ("Mixone", "Mixtwo", "Mixthree"):
        picker.get_by_role("button", name=title).click()
    picker.get_by_role("button", name="Mixtwo").click()
    picker.get_by_role("button", name="Mixtwo").click()
    expect(picker).to_contain_text("3 of 12 chosen")
    page.keyboard.press("Escape")
    rows = page.locator("vs-lora-mixer li[data-index]")
    expect(rows.locator(".vs-mix-title a")).to_have_text(["Mixone", "Mixthree", "Mixtwo"])
    prompt(page).fill("a boat")
    rows.nth(0).get_by_role("button", name="mixone style").click()
    expect(prompt(page)).to_have_value("a boat, mixone style")
    expect(rows.nth(0).locator("[data-trigger]")).to_have_attribute("aria-pressed", "true")
    rows.nth(0).hover()
    page.get_by_role("button", name="Move Mixone down").click()
    expect(rows.locator(".vs-mix-title a")).to_have_text(["Mixthree", "Mixone", "Mixtwo"])
    page.get_by_role("button", name="Mute Mixthree").click()
    page.locator("summary", has_text="Advanced").click()
    page.get_by_label("Weight of Mixone", exact=True).fill("1.25")
    page.get_by_label("Text-encoder weight of Mixone", exact=True).fill("-0.5")
    page.get_by_label("Weight of Mixtwo, number", exact=True).fill("9")
    page.get_by_label("Weight of Mixtwo, number", exact=True).press("Tab")
    expect(page.get_by_label("Weight of Mixtwo", exact=True)).to_have_value("2")
    send(page)
    expect(done(page)).to_be_visible()
    mix = [(one["title"], one["weight"], one["text_encoder_weight"]) for one in last_request(site, email)["loras"]]
    assert mix[0] == ("Mixone", 1.25, -0.5)
    assert mix[1][:2] == ("Mixtwo", 2)
    page.get_by_role("button", name="Solo Mixthree").click()
    expect(page.locator("vs-lora-mixer")).to_contain_text("1 of 3 active")


def test_the_meter_says_who_drowns_whom(open_page: OpenPage, site: Site) -> None:
    curator = site.person(Role.CURATOR)
    cards = [add_lora(site, curator, title, seed=seed) for seed, title in ((511, "Quiet <b>"), (512, "Loud"))]
    page = open_page(f"/generate?lora={cards[0]}", email=site.person())
    meter = page.locator("vs-lora-meter")
    expect(page.locator("vs-lora-mixer li[data-index]")).to_have_count(1)
    expect(meter).to_be_empty()
    page.goto(f"/generate?lora={cards[1]}")
    expect(meter.get_by_role("img")).to_have_count(1)
    expect(meter.locator("p")).to_contain_text("“Quiet <b>” and “Loud”")
    page.get_by_label("Weight of Quiet <b>", exact=True).fill("0.1")
    page.get_by_label("Weight of Loud", exact=True).fill("2")
    expect(meter).to_contain_text("“Loud” drowns “Quiet <b>”")
    expect(meter.get_by_role("img")).to_have_attribute(
        "aria-label", re.compile(r"Quiet <b> \d percent, Loud 9\d percent")
    )
    page.get_by_role("button", name="Mute Loud").click()
    expect(meter).to_be_empty()


def test_a_prompt_is_counted_and_its_tags_go_into_the_mixer(open_page: OpenPage, site: Site) -> None:
    curator = site.person(Role.CURATOR)
    add_lora(site, curator, "Tagged", seed=521)
    page = open_page("/generate", email=site.person())
    prompt(page).fill("a harbour, <lora:Tagged:0.65>, fog, __nothinglikeit__")
    notes = page.locator("[data-notes=prompt]")
    expect(notes.locator(".is-bad")).to_contain_text("nothinglikeit")
    prompt(page).fill("a harbour, <lora:Tagged:0.65>, fog <lora:nobody:1>")
    expect(notes.locator(".is-bad")).to_contain_text("<lora:nobody:1>")
    expect(notes.locator("code")).to_have_text("<lora:Tagged:0.65>")
    notes.get_by_role("button", name="Put into the mixer").click()
    expect(page.locator("vs-lora-mixer li")).to_contain_text("Tagged")
    expect(page.get_by_label("Weight of Tagged", exact=True)).to_have_value("0.65")
    expect(prompt(page)).to_have_value("a harbour, fog <lora:nobody:1>")
    page.get_by_label("Negative prompt").fill("<lora:Tagged:1>")
    expect(page.locator("[data-notes=negative_prompt]")).to_contain_text("negative prompt")


def test_the_picker_knows_what_fits_from_the_files(open_page: OpenPage, site: Site) -> None:
    curator = site.person(Role.CURATOR)
    add_lora(site, curator, "Fitting one", seed=531, tags=["fitting"], base_model="SDXL")
    with site.client(curator) as client:
        files = {
            "file": ("w.safetensors", lora_bytes(seed=532, inputs=96)),
            "cover": ("c.png", png(532), "image/png"),
        }
        data = {"title": "Other width", "trigger": "x", "tags": ["fitting"], "base_model": "VisionSuit Demo"}
        client.post("/api/uploads/models", data={**data, "visibility": "public"}, files=files).raise_for_status()
    page = open_page("/generate", email=site.person())
    page.get_by_role("button", name="Add LoRA").click()
    picker = page.locator("dialog.vs-picker")
    picker.get_by_role("combobox").fill("fitting")
    tiles = picker.locator(".vs-grid:not([aria-busy]) .vs-tile[data-index]")
    expect(tiles).to_have_count(1)
    expect(tiles).to_contain_text("Fitting one")
    picker.get_by_role("button", name="Fits").click()
    expect(tiles).to_have_count(2)
    picker.get_by_role("button", name="Other width").click()
    page.keyboard.press("Escape")
    expect(page.locator("vs-lora-mixer li")).to_contain_text("Does not fit")


def test_a_lora_that_does_not_fit_is_refused_with_the_reason(open_page: OpenPage, site: Site, watched: Watched) -> None:
    watched.expected += ["/api/generations"]
    email = site.person(Role.CURATOR)
    with site.client(email) as client:
        files = {
            "file": ("wide.safetensors", lora_bytes(seed=601, inputs=96)),
            "cover": ("c.png", png(601), "image/png"),
        }
        data = {"title": "Too wide", "trigger": "wide"}
        card = client.post("/api/uploads/models", data=data, files=files)
        assert card.status_code == 201, card.text
    page = open_page(f"/generate?lora={card.json()['id']}", email=email)
    expect(page.locator("vs-lora-mixer li")).to_have_count(1)
    prompt(page).fill("a wide sea")
    send(page)
    error = page.locator("vs-lora-mixer [role=alert]")
    expect(error).to_contain_text("Too wide")
    expect(page.locator("vs-job")).to_have_count(0)
    page.get_by_role("button", name="Remove Too wide").click()
    expect(error).to_be_hidden()
    send(page)
    expect(done(page)).to_be_visible()


def test_an_empty_prompt_and_too_many_renders_are_told(open_page: OpenPage, site: Site, watched: Watched) -> None:
    watched.expected += ["/api/generations"]
    page = open_page("/generate", email=site.person())
    send(page)
    expect(page.locator("[data-error=prompt]")).to_be_visible()
    expect(prompt(page)).to_be_focused()
    with paused_queue(site):
        prompt(page).fill("a queue of ducks")
        for number in range(5):
            send(page)
            expect(page.locator("[data-send]")).to_have_attribute("aria-busy", "false")
            if number:
                expect(page.locator("[data-strip] [data-job]")).to_have_count(number + 1)
        expect(page.locator("vs-job")).to_contain_text("paused")
        send(page)
        expect(page.locator("[data-submit] [role=alert]")).to_contain_text("5")
        expect(page.locator("[data-strip] [data-job]")).to_have_count(5)
        # What waits can be taken back.
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("heading", name="Cancelled")).to_be_visible()
        send(page)
        expect(page.locator("[data-submit] [role=alert]")).to_have_count(0)
    expect(done(page)).to_be_visible()


def test_an_engine_that_starts_is_not_one_that_failed(open_page: OpenPage, site: Site) -> None:
    engine = {"state": "starting", "detail": "Loading libraries."}
    well = {"state": "ok", "detail": ""}

    def answer(route: Route) -> None:
        route.fulfill(json={"web": well, "database": well, "storage": well, "engine": engine})

    page = open_page("/health", fresh=True)
    page.clock.install()
    page.route("**/api/meta/status", answer)
    page.goto("/")
    led = page.locator(".sidebar .service[aria-label^='Engine'] .led")
    colours = {"starting": "rgb(245, 158, 11)", "down": "rgb(239, 68, 68)", "ok": "rgb(16, 185, 129)"}
    for state, colour in colours.items():
        engine["state"] = state
        # It asks again by itself while something is not well.
        page.clock.fast_forward(10_000)
        expect(led).to_have_attribute("data-state", state)
        expect(led).to_have_css("background-color", colour)


def test_a_picture_a_card_and_an_old_render_open_in_the_generator(open_page: OpenPage, site: Site) -> None:
    curator, email = site.person(Role.CURATOR), site.person()
    card = add_lora(site, curator, "Openable", seed=701)
    recipe = "a tin robot\nNegative prompt: rust\nSteps: 9, Sampler: Euler a, CFG scale: 3.5, Seed: 99, Size: 64x64"
    picture = add_pictures(site, curator, ["Robot"], parameters=recipe)[0]["id"]
    page = open_page(f"/images?id={picture}", email=email)
    page.get_by_role("link", name="Open in generator").click()
    expect(prompt(page)).to_have_value("a tin robot")
    expect(page.get_by_label("Negative prompt")).to_have_value("rust")
    expect(page.locator("#gen-steps")).to_have_value("9")
    expect(page.locator("#gen-guidance")).to_have_value("3.5")
    expect(page.get_by_label("Seed", exact=True)).to_have_value("99")
    page.goto(f"/models?id={card}")
    page.get_by_role("link", name="Open in generator").click()
    expect(page.locator("vs-lora-mixer li")).to_contain_text("Openable")
    expect(prompt(page)).to_have_value("a tin robot")
    send(page)
    expect(done(page)).to_be_visible()
    prompt(page).fill("something else")
    page.get_by_role("button", name="Use settings").click()
    expect(prompt(page)).to_have_value("a tin robot")
    page.goto("/history")
    page.locator(".vs-render a").first.click()
    expect(page.locator("dialog.vs-lightbox .vs-recipe-facts")).to_contain_text("Euler a")
    page.locator("dialog").get_by_role("link", name="Open in generator").click()
    expect(page.locator("vs-lora-mixer li")).to_have_count(1)
    expect(prompt(page)).to_have_value("a tin robot")


def test_the_same_to_the_last_bit_is_kept_when_it_is_repeated(open_page: OpenPage, site: Site) -> None:
    email = site.person()
    page = open_page("/generate", email=email)
    exact = page.get_by_label("Same to the last bit")
    prompt(page).fill("a twin")
    page.locator("summary", has_text="Advanced").click()
    expect(exact).not_to_be_checked()
    exact.check()
    send(page)
    expect(done(page)).to_be_visible()
    expect(page.locator(".vs-job-facts")).to_contain_text("same to the last bit")
    assert last_request(site, email)["bucket"] == 1
    exact.uncheck()
    page.get_by_role("button", name="Regenerate").click()
    expect(page.locator("[data-strip] [data-job]")).to_have_count(2)
    assert last_request(site, email)["bucket"] == 1
    expect(done(page)).to_be_visible()
    page.get_by_role("button", name="Use settings").click()
    expect(exact).to_be_checked()
    with site.client(email) as client:
        job = client.get("/api/generations").json()["items"][0]
        saved = client.post(f"/api/generations/{job['id']}/save", json={"gallery_title": "Twins"}).json()["items"][0]
    exact.uncheck()
    page.goto(f"/generate?image={saved['id']}")
    expect(exact).to_be_checked()
    page.goto(f"/images?id={saved['id']}")
    expect(page.locator(".vs-recipe-facts")).to_contain_text("Same to the last bit, 1 at a time")


def test_a_guest_may_look_and_keeps_what_was_typed(open_page: OpenPage, site: Site) -> None:
    page = open_page("/generate")
    prompt(page).fill("a lamp in the fog")
    page.get_by_role("link", name="Log in to render").click()
    email = site.person()
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("Password").fill("correct horse battery")
    page.get_by_role("main").get_by_role("button", name="Log in").click()
    expect(prompt(page)).to_have_value("a lamp in the fog")
    send(page)
    expect(done(page)).to_be_visible()


def test_access_that_is_closed_is_explained(open_page: OpenPage, site: Site) -> None:
    with site.client(site.person(Role.ADMIN)) as admin:
        admin.patch("/api/settings", json={"generator_access": "curators"}).raise_for_status()
        try:
            page = open_page("/generate", email=site.person())
            expect(page.locator("[data-submit]")).to_contain_text("open to curators")
            expect(page.locator("[data-send]")).to_have_count(0)
        finally:
            admin.patch("/api/settings", json={"generator_access": "members"}).raise_for_status()


def test_history_filters_saves_and_deletes(open_page: OpenPage, site: Site) -> None:
    email = site.person()
    with site.client(email) as client:
        for words in ("first kite", "second kite"):
            client.post("/api/generations", json={"prompt": words, "steps": 1}).raise_for_status()
    page = open_page("/history", email=email)
    tiles = page.locator(".vs-render")
    expect(page.locator(".vs-render[data-state=completed]")).to_have_count(2)
    page.get_by_role("tab", name="Failed").or_(page.get_by_role("link", name="Failed")).or_(
        page.get_by_role("button", name="Failed")
    ).first.click()
    expect(tiles).to_have_count(0)
    page.go_back()
    expect(tiles).to_have_count(2)
    tiles.first.hover()
    tiles.first.get_by_role("button", name="Save to a gallery").click()
    page.get_by_label("Name of the new gallery").fill("Kites <b>")
    page.get_by_role("radio", name="Private").check()
    page.locator("dialog").get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".toast", has_text="Saved to “Kites <b>”")).to_be_visible()
    tiles.first.hover()
    tiles.first.get_by_role("button", name="Delete").click()
    expect(page.locator("dialog")).to_contain_text("This cannot be undone. Gone is gone.")
    page.locator("dialog").get_by_role("button", name="Delete").click()
    expect(tiles).to_have_count(1)
    expect(tiles).to_contain_text("first kite")
    page.goto("/galleries?owner=me")
    expect(page.locator(".vs-tile[data-index]")).to_contain_text("Kites <b>")
    expect(page.locator(".vs-tile[data-index]")).to_contain_text("Private")
    assert page.evaluate("window.hacked") is None

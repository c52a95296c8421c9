"""Rendering from a picture, with a mask, larger, a little different, and as a sheet."""

import io
import json
import re
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import FloatRect, Locator, Page, expect

from tests.browser import Watched, comes_true, fits, until
from tests.pages.conftest import OpenPage, Site
from tests.pages.files import png
from tests.pages.library import add_lora, add_pictures
from tests.pages.test_generator import done, last_request, prompt, send
from visionsuit.core.actor import Role

pytestmark = pytest.mark.browser


def panel(page: Page) -> Locator:
    return page.locator("vs-init-panel")


def give_picture(page: Page, seed: int = 3) -> None:
    panel(page).locator("summary").click()
    file = {"name": "start.png", "mimeType": "image/png", "buffer": png(seed)}
    page.get_by_label("Picture to start from").set_input_files(file)  # type: ignore[arg-type]
    expect(panel(page).get_by_alt_text("The picture to start from")).to_be_visible()


def box_of(canvas: Locator) -> FloatRect:
    """Where it is, once it has come to rest there."""
    canvas.hover()
    box = canvas.bounding_box()
    assert box
    return box


def mask_of(site: Site, page: Page, request: dict[str, Any]) -> Image.Image:
    """The mask that a request names, as the page shows it."""
    url = str(page.locator(".vs-init-preview i").evaluate("mark => mark.style.maskImage"))[5:-2]
    answer = page.request.get(url)
    assert answer.ok, answer.text()
    assert request["init"]["mask_input_id"]
    return Image.open(io.BytesIO(answer.body())).convert("RGBA")


def alpha_at(mask: Image.Image, x: float, y: float) -> int:
    pixel: Any = mask.getpixel((int(mask.width * x), int(mask.height * y)))
    return int(pixel[0]) * int(pixel[3]) // 255


def test_a_picture_with_a_mask_is_what_is_rendered_from(open_page: OpenPage, site: Site) -> None:
    email = site.person()
    page = open_page("/generate", email=email)
    prompt(page).fill("a red door")
    give_picture(page)
    # The picture's proportions, in a size that the base model draws.
    expect(page.locator(".vs-sizes [aria-pressed=true]")).to_have_count(1)
    page.locator("#init-strength").fill("0.4")
    page.locator("#init-strength").press("Tab")
    page.get_by_role("button", name="Draw a mask").click()
    box = box_of(page.locator("dialog canvas"))
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.5, steps=5)
    page.mouse.up()
    page.get_by_role("button", name="Use this mask").click()
    expect(page.locator(".vs-init-preview i")).to_have_count(1)
    expect(panel(page).locator("summary")).to_contain_text("strength 0.4 · mask")
    send(page)
    expect(done(page)).to_be_visible()
    request = last_request(site, email)
    assert request["init"]["strength"] == 0.4
    assert request["init"]["input_id"]
    mask = mask_of(site, page, request)
    assert alpha_at(mask, 0.5, 0.5) == 255
    assert alpha_at(mask, 0.5, 0.1) == 0
    expect(page.locator(".vs-job-facts")).to_contain_text("from a picture, strength 0.4")
    # All of it is still there afterwards, and comes back from the render too.
    page.reload()
    expect(panel(page).locator("summary")).to_contain_text("strength 0.4 · mask")
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(panel(page).get_by_label("Picture to start from")).to_have_count(1)
    page.get_by_role("button", name="Use settings").click()
    expect(panel(page).locator("summary")).to_contain_text("strength 0.4 · mask")
    assert alpha_at(mask_of(site, page, request), 0.5, 0.5) == 255, "the mask is shown again"
    send(page)
    expect(page.locator("[data-strip] [data-job]")).to_have_count(2)
    again = last_request(site, email)["init"]
    assert (again["input_id"], again["mask_input_id"]) == (
        request["init"]["input_id"],
        request["init"]["mask_input_id"],
    )


def test_a_mask_is_drawn_by_keys_and_taken_back(open_page: OpenPage, site: Site) -> None:
    email = site.person()
    page = open_page("/generate", email=email)
    prompt(page).fill("a window")
    give_picture(page)
    page.get_by_role("button", name="Draw a mask").click()
    undo = page.get_by_role("button", name="Undo")
    expect(undo).to_be_disabled()
    expect(page.locator("dialog canvas")).to_be_focused()
    page.keyboard.press("Space")
    page.keyboard.press("i")
    page.keyboard.press("e")
    expect(page.get_by_role("button", name="Erase")).to_have_attribute("aria-pressed", "true")
    for _ in range(30):
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    expect(undo).to_be_disabled()
    page.keyboard.press("b")
    page.keyboard.press("Space")
    page.get_by_role("button", name="Invert").click()
    page.get_by_role("button", name="Use this mask").click()
    expect(page.locator(".vs-init-preview i")).to_have_count(1)
    send(page)
    expect(done(page)).to_be_visible()
    mask = mask_of(site, page, last_request(site, email))
    # The dab at the left edge, turned around.
    assert alpha_at(mask, 0.01, 0.5) == 0
    assert alpha_at(mask, 0.5, 0.5) == 255
    # An empty mask is none.
    page.get_by_role("button", name="Edit the mask").click()
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("button", name="Use this mask").click()
    expect(page.get_by_role("button", name="Draw a mask")).to_be_visible()


def test_a_finger_draws_on_a_phone(open_page: OpenPage, site: Site) -> None:
    page = open_page("/generate", email=site.person(), width=390, height=844, fresh=True)
    devtools = page.context.new_cdp_session(page)
    devtools.send("Emulation.setTouchEmulationEnabled", {"enabled": True})
    prompt(page).fill("a hat")
    give_picture(page)
    page.get_by_role("button", name="Draw a mask").click()
    box = box_of(page.locator("dialog canvas"))
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    y = box["y"] + box["height"] / 2
    for kind, share in (("touchStart", 0.2), ("touchMove", 0.5), ("touchMove", 0.8), ("touchEnd", None)):
        points = [] if share is None else [{"x": box["x"] + box["width"] * share, "y": y}]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    expect(page.get_by_role("button", name="Undo")).to_be_enabled()
    comes_true(
        page.locator("dialog canvas"),
        "c => c.getContext('2d').getImageData(c.width / 2, c.height / 2, 1, 1).data[3] === 255",
    )
    fits(page)


def test_borders_and_a_second_pass_change_the_size(open_page: OpenPage, site: Site) -> None:
    email = site.person()
    page = open_page("/generate", email=email)
    prompt(page).fill("a wide field")
    size = page.locator("[data-size]").first
    width, height = (int(side) for side in str(size.get_attribute("data-size")).split("x"))
    give_picture(page)
    size.click()
    side = page.get_by_label("Pixels to add: left")
    step = int(str(side.get_attribute("step")))
    side.fill(str(step + 1))
    side.press("Tab")
    expect(side).to_have_value(str(step))
    expect(panel(page)).to_contain_text(f"The result is {width + step} × {height}")
    page.locator("[data-fold=hires] summary").click()
    page.get_by_label("Draw it again at a higher resolution").check()
    page.locator("#gen-hires_scale").fill("1.5")
    page.locator("#gen-hires_scale").press("Tab")
    send(page)
    expect(done(page)).to_be_visible()
    request = last_request(site, email)
    assert request["init"]["outpaint"] == {"left": step, "top": 0, "right": 0, "bottom": 0}
    assert (request["width"], request["height"]) == (width + step, height)
    assert request["hires"]["scale"] == 1.5
    expect(page.locator(".vs-job-facts")).to_contain_text("second pass 1.5×")
    page.get_by_role("button", name="Use settings").click()
    # The size in the form is the picture's, without its borders.
    expect(page.locator(f'[data-size="{width}x{height}"]')).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_label("Draw it again at a higher resolution")).to_be_checked()


def test_what_cannot_be_started_from_is_told(open_page: OpenPage, site: Site, watched: Watched) -> None:
    watched.expected += ["/api/generations"]
    email = site.person()
    page = open_page("/generate", email=email)
    prompt(page).fill("a ghost")
    panel(page).locator("summary").click()
    chooser = page.get_by_label("Picture to start from")
    chooser.set_input_files({"name": "a.txt", "mimeType": "text/plain", "buffer": b"no picture"})
    expect(panel(page).get_by_role("alert")).to_contain_text("Only PNG, JPEG and WebP")
    chooser.set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"})
    expect(panel(page).get_by_role("alert")).to_contain_text("a.png is no picture")
    expect(panel(page).locator(".vs-init-preview")).to_have_count(0)
    file = {"name": "start.png", "mimeType": "image/png", "buffer": png(8)}
    chooser.set_input_files(file)  # type: ignore[arg-type]
    expect(panel(page).locator(".vs-init-preview")).to_be_visible()
    page.goto("/models")
    page.evaluate(
        """() => {
          const key = "vs:generate-form";
          const form = JSON.parse(localStorage.getItem(key));
          form.init.source.id = "A".repeat(16);
          localStorage.setItem(key, JSON.stringify(form));
        }"""
    )
    page.goto("/generate")
    send(page)
    expect(panel(page).get_by_role("alert")).to_be_visible()
    expect(page.locator("vs-job")).to_have_count(0)


def test_results_and_pictures_become_inputs(open_page: OpenPage, site: Site) -> None:
    curator, email = site.person(Role.CURATOR), site.person()
    picture = add_pictures(site, curator, ["Harbour"])[0]["id"]
    page = open_page(f"/images?id={picture}", email=email)
    page.get_by_role("link", name="Use as input").click()
    expect(panel(page).get_by_alt_text("The picture to start from")).to_be_visible()
    prompt(page).fill("a harbour at night")
    send(page)
    expect(done(page)).to_be_visible()
    assert last_request(site, email)["init"]["image_id"] == picture
    page.get_by_role("button", name="Use as input").click()
    send(page)
    expect(page.locator("[data-strip] [data-job]")).to_have_count(2)
    expect(done(page)).to_be_visible()
    first = last_request(site, email)["init"]["generation_image_id"]
    assert first
    page.goto("/history")
    page.locator(".vs-render a").first.click()
    with page.expect_response(re.compile(r"/api/generations/[\w-]{16}$")):  # the picture of before is shown meanwhile
        page.locator("dialog").get_by_role("link", name="Use as input").click()
    expect(panel(page).get_by_alt_text("The picture to start from")).to_be_visible()
    page.get_by_role("button", name="Another picture").click()
    page.locator("dialog").get_by_role("button", name="Library", exact=True).click()
    page.locator("dialog").get_by_role("button", name="Harbour", exact=True).first.click()
    expect(page.locator("dialog")).to_have_count(0)
    send(page)
    expect(page.locator("[data-strip] [data-job]")).to_have_count(3)
    assert last_request(site, email)["init"]["image_id"]


def test_a_result_is_varied_and_made_larger(open_page: OpenPage, site: Site) -> None:
    email = site.person()
    page = open_page("/generate", email=email)
    prompt(page).fill("a teapot")
    page.get_by_label("Seed", exact=True).fill("77")
    send(page)
    expect(done(page)).to_be_visible()
    # What the next one will take is known from this one.
    expect(page.locator("[data-submit] [data-cost]")).to_contain_text("1 picture, about")
    page.get_by_role("button", name="Vary").click()
    dialog = page.locator("dialog")
    dialog.get_by_label("How different").fill("0.35")
    dialog.get_by_text("2", exact=True).click()
    dialog.get_by_role("button", name="Vary", exact=True).click()
    expect(done(page).locator("figure")).to_have_count(2)
    varied = last_request(site, email)
    assert (varied["seed"], varied["count"], varied["variation"]["strength"]) == (77, 2, 0.35)
    expect(page.locator(".vs-job-facts")).to_contain_text("variation 0.35")
    page.locator("figure").first.hover()
    page.get_by_role("button", name="Upscale picture 1").click()
    expect(dialog).to_contain_text("becomes")
    dialog.get_by_text("1.5×", exact=True).click()
    dialog.get_by_role("button", name="Upscale", exact=True).click()
    expect(page.locator("[data-strip] [data-job]")).to_have_count(3)
    expect(done(page).locator(".vs-job-facts")).to_contain_text("second pass 1.5×")
    larger = last_request(site, email)
    assert larger["init"]["strength"] == 0
    assert larger["init"]["generation_image_id"]
    assert larger["hires"]["scale"] == 1.5


def test_a_sheet_is_rendered_and_read(open_page: OpenPage, site: Site) -> None:
    curator, email = site.person(Role.CURATOR), site.person()
    card = add_lora(site, curator, "Sheeted <i>", seed=851)
    page = open_page(f"/generate?lora={card}", email=email)
    expect(page.locator("vs-lora-mixer li[data-index]")).to_have_count(1)
    prompt(page).fill("a lantern")
    page.get_by_role("button", name="Make a sheet").click()
    dialog = page.locator("dialog")
    go = dialog.get_by_role("button", name="Render the sheet")
    expect(dialog.get_by_label("Across", exact=True)).to_have_value("lora_weight:0")
    expect(dialog.locator("[data-cost]")).to_contain_text("5 pictures")
    dialog.get_by_label("Values across").fill("-1..1/41")
    expect(go).to_be_disabled()
    dialog.get_by_label("Values across").fill("3")
    expect(dialog).to_contain_text("from -2 to 2")
    dialog.get_by_label("Values across").fill("0, 0.5..1/2")
    dialog.get_by_label("Down", exact=True).select_option("guidance")
    dialog.get_by_label("Values down").fill("2, 4")
    expect(dialog.locator("[data-cost]")).to_contain_text("7 pictures")
    go.click()
    expect(dialog).to_have_count(0)
    table = done(page).get_by_role("table")
    expect(table.get_by_role("img")).to_have_count(6)
    expect(table.get_by_role("columnheader")).to_contain_text(["Sheeted <i>", "Guidance", "0", "0.5", "1"])
    expect(table.get_by_role("rowheader")).to_have_text(["2", "4"])
    expect(page.locator(".vs-xy-control img")).to_have_count(1)
    assert page.request.get(str(page.get_by_role("link", name="Download the sheet").get_attribute("href"))).ok
    table.get_by_role("button").nth(4).click()
    expect(page.locator("dialog.vs-lightbox")).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Regenerate").click()
    expect(page.locator("[data-strip] [data-job]")).to_have_count(2)
    request = last_request(site, email)
    assert [axis["values"] for axis in (request["sheet"]["x"], request["sheet"]["y"])] == [[0, 0.5, 1], [2, 4]]
    assert request["sheet"]["control"]


def shown_recipe(box: Locator) -> dict[str, Any]:
    """What the lightbox says of the picture it shows."""
    expect(box.locator(".vs-recipe")).to_be_visible()
    facts = dict(
        zip(
            box.locator(".vs-recipe-facts dt").all_inner_texts(),
            box.locator(".vs-recipe-facts dd").all_inner_texts(),
            strict=True,
        )
    )
    loras = box.locator(".vs-recipe-loras li")
    return {
        "prompt": box.locator(".vs-recipe-text p").first.inner_text(),
        "seed": int(facts["Seed"]),
        "steps": int(facts["Steps"]),
        "guidance": float(facts["Guidance"]),
        "sampler": facts["Sampler"],
        "loras": [(lora.locator("a").inner_text(), float(lora.locator("b").inner_text())) for lora in loras.all()],
    }


def kept_recipe(recipe: dict[str, Any]) -> dict[str, Any]:
    """The same of a recipe as the server keeps it with a picture."""
    facts = {name: recipe[name] for name in ("prompt", "seed", "steps", "guidance", "sampler")}
    return facts | {"loras": [(lora["title"], lora["weight"]) for lora in recipe["loras"]]}


SHEETS: list[dict[str, Any]] = [
    {
        "x": {"axis": "steps", "values": [2, 3]},
        "y": {"axis": "lora_weight", "values": [0, 0.75]},
        "control": True,
    },
    {
        "x": {"axis": "prompt", "values": ["a {green|grey} lamp", "a lamp <lora:Inked {}:0.4>"]},
        "y": {"axis": "seed", "values": [5, 6]},
    },
    {"x": {"axis": "sampler", "values": ["ddim", "euler"]}, "y": {"axis": "guidance", "values": [2, 4.5]}},
]


@pytest.mark.parametrize("number", range(len(SHEETS)))
def test_each_picture_of_a_sheet_has_its_own_recipe(open_page: OpenPage, site: Site, number: int) -> None:
    curator, email = site.person(Role.CURATOR), site.person()
    mixed = add_lora(site, curator, f"Mixed {number}", seed=880 + 2 * number)
    add_lora(site, curator, f"Inked {number}", seed=881 + 2 * number)
    base = {
        "prompt": f"a {{red|blue}} lamp <lora:Inked {number}:0.5>",
        "steps": 2,
        "seed": 11,
        "loras": [{"model_id": mixed, "weight": 1}],
    }
    sheet = json.loads(json.dumps(SHEETS[number]).replace("Inked {}", f"Inked {number}"))
    with site.client(email) as client:
        answer = client.post("/api/generations/sheets", json={"base": base, **sheet})
        assert answer.status_code == 202, answer.text
        render = f"/api/generations/{answer.json()['id']}"
        until(lambda: client.get(render).json()["status"] == "completed", "the sheet")
        saved = client.post(f"{render}/save", json={"visibility": "private"}).json()["items"]
        kept = [client.get(f"/api/images/{one['id']}").json()["recipe"] for one in saved]
    page = open_page(f"/generate?generation={answer.json()['id']}", email=email)
    done(page).get_by_role("table").get_by_role("button").first.click()
    box = page.locator("dialog.vs-lightbox")
    page.keyboard.press("Home")
    for place, recipe in enumerate(kept, 1):
        expect(box.locator(".vs-lightbox-count")).to_have_text(f"{place} / {len(kept)}")
        assert shown_recipe(box) == kept_recipe(recipe)
        page.keyboard.press("ArrowRight")
    # A control is what a weight of 0 is.
    assert len({json.dumps(kept_recipe(recipe)) for recipe in kept}) == 4


def test_a_model_page_gives_a_test_sheet(open_page: OpenPage, site: Site) -> None:
    curator = site.person(Role.CURATOR)
    card = add_lora(site, curator, "Tested", seed=861)
    page = open_page(f"/models?id={card}", email=site.person())
    page.get_by_role("button", name="Test sheet").click()
    page.get_by_role("link", name="Watch").click()
    table = done(page).get_by_role("table")
    expect(table.get_by_role("img")).to_have_count(8)
    expect(table.get_by_role("rowheader")).to_have_count(2)


def test_two_results_are_compared_by_a_slider(open_page: OpenPage, site: Site) -> None:
    page = open_page("/generate", email=site.person())
    prompt(page).fill("two vases")
    page.get_by_role("button", name="2 pictures").click()
    send(page)
    expect(done(page).locator("figure img")).to_have_count(2)
    page.get_by_role("button", name="Look at picture 1 closely").click()
    box = page.locator("dialog.vs-lightbox")
    box.get_by_role("button", name="Compare with another picture").click()
    slider = box.get_by_label("How much of the first picture is shown")
    expect(slider).to_be_focused()
    page.keyboard.press("End")
    comes_true(box.locator(".vs-compare"), "box => box.style.getPropertyValue('--split') === '100%'")
    first, second = (box.locator(f".vs-compare img >> nth={number}").get_attribute("src") for number in (1, 0))
    assert first != second
    box.get_by_role("button", name="Compare with another picture").click()
    expect(slider).to_have_count(0)

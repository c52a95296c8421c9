"""Beginning with a picture, masks, second passes, variations: from the request to the stored picture."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from starlette.testclient import TestClient

from tests.assets import new_image, picture_file
from tests.conftest import People
from tests.generation.conftest import finished, submit
from visionsuit.core.actor import Actor
from visionsuit.engine.mock import MockEngine
from visionsuit.generation.inputs import KEEP_FOR, sweep_inputs
from visionsuit.generation.prepare import prepare
from visionsuit.generation.queries import get_generation
from visionsuit.generation.service import delete
from visionsuit.jobs.worker import Worker
from visionsuit.media.a1111 import read_a1111
from visionsuit.media.png import read_texts
from visionsuit.objects.service import Subject, store
from visionsuit.runtime import Runtime
from visionsuit.storage.base import Bucket
from visionsuit.visibility import Visibility

Bearer = Callable[..., dict[str, str]]
WANTED = {"prompt": "a red cat", "steps": 10, "seed": 5}


class Site:
    """What one person sends and gets."""

    def __init__(self, runtime: Runtime, client: TestClient, actor: Actor, headers: dict[str, str]) -> None:
        self.runtime, self.client, self.actor, self.headers = runtime, client, actor, headers

    def post(self, path: str = "", **body: Any) -> Any:
        body = body if path else {**WANTED, **body}
        return self.client.post(f"/api/generations{path}", json=body, headers=self.headers)

    def render(self, **body: Any) -> dict[str, Any]:
        answer = self.post(**body)
        assert answer.status_code == 202, answer.text
        return self.wait(answer.json()["id"])

    def wait(self, generation_id: str) -> dict[str, Any]:
        finished(self.runtime, self.actor, generation_id)
        done: dict[str, Any] = self.client.get(f"/api/generations/{generation_id}", headers=self.headers).json()
        assert done["status"] == "completed", done["error"]
        return done

    def keep(self, data: bytes) -> str:
        answer = self.client.post("/api/generations/inputs", content=data, headers=self.headers)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def file(self, picture: dict[str, Any]) -> bytes:
        return self.client.get(picture["url"], headers=self.headers).content

    def pixels(self, picture: dict[str, Any]) -> NDArray[np.int16]:
        return np.asarray(Image.open(io.BytesIO(self.file(picture)))).astype(np.int16)

    def error(self, **body: Any) -> tuple[int, str, str | None]:
        answer = self.post(**body)
        error = answer.json().get("error", {})
        return answer.status_code, error.get("code", ""), error.get("field")


@pytest.fixture
def user(site: Runtime, client: TestClient, people: People, bearer: Bearer) -> Site:
    return Site(site, client, people.curator, bearer(people.curator))


@pytest.fixture
def other(site: Runtime, client: TestClient, people: People, bearer: Bearer) -> Site:
    return Site(site, client, people.other_curator, bearer(people.other_curator))


def white_left(size: tuple[int, int] = (64, 64)) -> bytes:
    image = Image.new("L", size)
    image.paste(255, (0, 0, size[0] // 2, size[1]))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def page_of(runtime: Runtime, actor: Actor, visibility: Visibility, size: tuple[int, int] = (64, 64)) -> str:
    """An image page with a true file."""
    with runtime.open_ctx(actor) as ctx:
        image = new_image(ctx, visibility=visibility, width=size[0], height=size[1])
        subject = Subject("image", image.public_id)
        image.object_id = store(ctx, Bucket.IMAGES, picture_file(size), subject, mime="image/png").id
        return image.public_id


def test_img2img_from_all_three_sources(user: Site, worker: Worker) -> None:
    uploaded = user.keep(picture_file((64, 64), "#ff0000"))
    first = user.render(init={"input_id": uploaded, "strength": 0.5})
    assert first["steps"] == first["step"] == 5
    init = first["request"]["init"]
    assert init["input_id"] == uploaded
    assert (init["source_width"], init["source_height"], init["strength"]) == (64, 64, 0.5)
    assert user.client.get(init["url"], headers=user.headers).content == picture_file((64, 64), "#ff0000")
    assert abs(user.pixels(first["images"][0])[..., 0].mean() - 255) < 140
    second = user.render(init={"generation_image_id": first["images"][0]["id"], "strength": 0.1})
    assert np.abs(user.pixels(second["images"][0]) - user.pixels(first["images"][0])).mean() < 20
    page = page_of(user.runtime, user.actor, Visibility.PRIVATE)
    third = user.render(init={"image_id": page, "strength": 0.1})
    assert np.abs(user.pixels(third["images"][0]) - (0x8B, 0x5C, 0xF6)).mean() < 25
    again = user.render(**{key: first["request"][key] for key in ("prompt", "seed", "steps", "init")})
    assert np.array_equal(user.pixels(again["images"][0]), user.pixels(first["images"][0]))


def test_what_one_may_not_see_is_what_is_not_there(user: Site, other: Site, worker: Worker) -> None:
    page = page_of(other.runtime, other.actor, Visibility.PRIVATE)
    shared = page_of(other.runtime, other.actor, Visibility.PUBLIC)
    result = other.render()["images"][0]["id"]
    upload = other.keep(picture_file())
    nothing = "q1Zk3vQ0h8m1TgYw"
    for kind, code, hidden in (
        ("image_id", "image_not_found", page),
        ("generation_image_id", "generation_image_not_found", result),
        ("input_id", "input_not_found", upload),
    ):
        answers = [user.post(init={kind: one}) for one in (hidden, nothing, "x")]
        errors = [answer.json()["error"] | {"request_id": ""} for answer in answers]
        assert [answer.status_code for answer in answers] == [404] * 3
        assert errors[0] == errors[1] == errors[2]
        assert (errors[0]["code"], errors[0]["field"]) == (code, f"init.{kind}")
    mine = user.keep(picture_file())
    assert user.error(init={"input_id": mine, "mask_input_id": upload}) == (
        404,
        "input_not_found",
        "init.mask_input_id",
    )
    assert user.post(init={"image_id": shared}).status_code == 202
    guest = user.client.post("/api/generations", json={**WANTED, "init": {"image_id": shared}})
    assert guest.status_code == 401


def test_refusals_name_field_reason_and_limit(user: Site) -> None:
    mine = user.keep(picture_file((64, 64)))
    init = {"input_id": mine}
    assert user.error(init={}) == (422, "invalid_request", "init")
    assert user.error(init={"input_id": mine, "image_id": mine}) == (422, "invalid_request", "init.input_id")
    for field, body in {
        "init.strength": {"init": {**init, "strength": 1.5}},
        "init.mask_blur": {"init": {**init, "mask_blur": 200}},
        "init.resize": {"init": {**init, "resize": "squeeze"}},
        "init.outpaint.left": {"init": {**init, "outpaint": {"left": -8}}},
        "init.outpaint.top": {"init": {**init, "outpaint": {"top": 10**400}}},
        "init.outpaint.right": {"init": {**init, "outpaint": {"right": 64}}, "width": 64, "height": 64},
        "hires.scale": {"hires": {"scale": 9}},
        "hires.strength": {"hires": {"scale": 2, "strength": 0}},
        "hires.steps": {"hires": {"scale": 2, "steps": 0}},
        "variation.strength": {"variation": {"strength": 2}},
        "variation.seed": {"variation": {"strength": 1, "seed": -1}},
    }.items():
        assert user.error(**body) == (422, "invalid_request", field)
    assert user.error(init={**init, "strength": 0}) == (422, "invalid_request", "init.strength")
    assert user.error(hires={"scale": 1.0}) == (422, "invalid_request", "hires.scale")
    too_large = user.post(width=128, height=128, hires={"scale": 3}).json()["error"]
    assert too_large["field"] == "hires.scale"
    assert "256" in too_large["message"]


def test_the_size_follows_the_picture(user: Site) -> None:
    for size, wanted in (((64, 96), (64, 96)), ((1000, 500), (128, 64)), ((20, 20), (48, 48)), ((70, 61), (72, 64))):
        answer = user.post(init={"input_id": user.keep(picture_file(size))}).json()["request"]
        assert (answer["width"], answer["height"]) == wanted, size
        user.client.post(f"/api/generations/{user.post().json().get('id', '')}/cancel", headers=user.headers)
        for item in user.client.get("/api/generations?status=active", headers=user.headers).json()["items"]:
            user.client.post(f"/api/generations/{item['id']}/cancel", headers=user.headers)
    upload = user.keep(picture_file((64, 64)))
    wider = user.post(init={"input_id": upload, "outpaint": {"left": 16, "right": 8}}).json()["request"]
    assert (wider["width"], wider["height"]) == (88, 64)
    largest = user.post(init={"input_id": user.keep(picture_file((128, 128))), "outpaint": {"top": 32}}).json()[
        "request"
    ]
    assert (largest["width"], largest["height"]) == (96, 128)


def test_a_mask_keeps_the_rest(user: Site, worker: Worker) -> None:
    upload, mask = user.keep(picture_file((64, 64), "#00ff00")), user.keep(white_left())
    done = user.render(init={"input_id": upload, "mask_input_id": mask, "mask_blur": 0, "strength": 1.0})
    pixels = user.pixels(done["images"][0])
    assert np.abs(pixels[:, 32:] - (0, 255, 0)).max() == 0
    assert np.abs(pixels[:, :32] - (0, 255, 0)).mean() > 10
    black = user.keep(picture_file((64, 64), "#000000"))
    answer = user.post(init={"input_id": upload, "mask_input_id": black})
    failed = finished(user.runtime, user.actor, answer.json()["id"])
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.code == "mask_empty"


def test_outpainting_keeps_the_picture_and_paints_around_it(user: Site, worker: Worker) -> None:
    upload = user.keep(picture_file((64, 64), "#00ff00"))
    done = user.render(
        init={"input_id": upload, "strength": 1.0, "mask_blur": 4, "outpaint": {"left": 16, "bottom": 8}}
    )
    [picture] = done["images"]
    assert (picture["width"], picture["height"]) == (80, 72)
    pixels = user.pixels(picture)
    assert np.abs(pixels[:54, 30:] - (0, 255, 0)).max() == 0
    assert np.abs(pixels[:, :14] - (0, 255, 0)).mean() > 10


def test_a_second_pass_is_larger(user: Site, engine: MockEngine, worker: Worker) -> None:
    done = user.render(width=64, height=64, count=2, hires={"scale": 1.5, "strength": 0.4, "steps": 5})
    assert [(one["width"], one["height"]) for one in done["images"]] == [(96, 96)] * 2
    assert done["request"]["hires"] == {"scale": 1.5, "strength": 0.4, "steps": 5, "width": 96, "height": 96}
    assert done["steps"] == done["step"] == 2 * (10 + 2)
    assert [one["seed"] for one in done["images"]] == [5, 6]
    text = read_texts(user.file(done["images"][0]))["parameters"]
    assert "Hires upscale: 1.5, Hires steps: 5, Hires upscaler: Lanczos" in text
    assert "Denoising strength: 0.4" in text
    recipe = read_a1111(text)
    assert recipe is not None
    assert (recipe.hires_scale, recipe.hires_strength, recipe.hires_steps, recipe.strength) == (1.5, 0.4, 5, None)


def test_upscaling_a_picture_needs_no_first_pass(user: Site, engine: MockEngine, worker: Worker) -> None:
    upload = user.keep(picture_file((64, 64), "#00ff00"))
    before = engine.renders
    done = user.render(init={"input_id": upload, "strength": 0}, hires={"scale": 2, "strength": 0.2})
    assert engine.renders == before + 1
    assert done["steps"] == 2
    [picture] = done["images"]
    assert (picture["width"], picture["height"]) == (128, 128)
    assert user.pixels(picture)[..., 1].mean() > 200


def test_variations_of_one_picture(user: Site, worker: Worker) -> None:
    plain = user.pixels(user.render()["images"][0])
    same = user.render(variation={"seed": 9, "strength": 0})
    assert np.array_equal(user.pixels(same["images"][0]), plain)
    varied = user.render(count=3, variation={"seed": 2**32 - 1, "strength": 0.3})
    assert [one["seed"] for one in varied["images"]] == [5, 5, 5]
    assert [one["variation_seed"] for one in varied["images"]] == [2**32 - 1, 0, 1]
    pictures = [user.pixels(one) for one in varied["images"]]
    for one in pictures:
        assert 0 < np.abs(one - plain).mean() < 60
    assert not np.array_equal(pictures[0], pictures[1])
    text = read_texts(user.file(varied["images"][1]))["parameters"]
    assert "Variation seed: 0, Variation seed strength: 0.3" in text
    random = user.render(variation={"strength": 0.3})["request"]["variation"]
    assert 0 <= random["seed"] < 2**32


def test_the_recipe_says_what_was_begun_with(user: Site, worker: Worker) -> None:
    upload, mask = user.keep(picture_file((64, 64))), user.keep(white_left())
    done = user.render(init={"input_id": upload, "mask_input_id": mask, "strength": 0.6, "mask_blur": 3})
    assert user.file({"url": done["request"]["init"]["mask_url"]}) == white_left()
    assert user.render(init={"input_id": upload})["request"]["init"]["mask_url"] is None
    text = read_texts(user.file(done["images"][0]))["parameters"]
    assert "Denoising strength: 0.6, Mask blur: 3" in text
    saved = user.client.post(
        f"/api/generations/{done['id']}/save", json={"visibility": "public"}, headers=user.headers
    ).json()
    recipe = user.client.get(f"/api/images/{saved['items'][0]['id']}", headers=user.headers).json()["recipe"]
    assert (recipe["strength"], recipe["masked"], recipe["mask_blur"]) == (0.6, True, 3)
    assert upload not in str(recipe)


def test_what_goes_away_while_it_waits(user: Site, start_worker: Callable[[], Worker]) -> None:
    result = submit(user.runtime, user.actor)
    worker = start_worker()
    made = finished(user.runtime, user.actor, result)
    worker.stop()
    answer = user.post(init={"generation_image_id": made.images[0].id}).json()
    with user.runtime.open_ctx(user.actor) as ctx:
        delete(ctx, result)
    start_worker()
    failed = finished(user.runtime, user.actor, answer["id"])
    assert failed.error is not None
    assert failed.error.code == "init_gone"


def test_a_render_that_waits_for_days_still_has_its_upload(user: Site, start_worker: Callable[[], Worker]) -> None:
    upload = user.keep(picture_file((64, 64)))
    answer = user.post(init={"input_id": upload}).json()
    assert sweep_inputs(user.runtime, keep_for=-KEEP_FOR) == 0
    task = prepare(user.runtime, answer["id"])
    assert task.for_engine[0].init is not None
    start_worker()
    user.wait(answer["id"])
    with user.runtime.open_ctx(user.actor, read_only=True) as ctx:
        assert get_generation(ctx, answer["id"]).request["init"]["input_id"] == upload


def test_a_bucket_is_asked_for_and_recorded(user: Site, worker: Worker) -> None:
    done = user.render(bucket=2)
    assert done["request"]["bucket"] == 2
    texts = read_texts(user.file(done["images"][0]))
    assert any('"bucket":2' in text.replace(" ", "") for text in texts.values())
    plain = user.render()
    assert plain["request"]["bucket"] == 0
    assert user.render(bucket=0)["request"]["bucket"] == 0
    assert user.error(bucket=3) == (422, "invalid_request", "bucket")

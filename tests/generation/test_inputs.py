"""Pictures that people send to work from: whose they are, what is taken, how long they stay."""

import io
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.assets import picture_file
from tests.conftest import People
from tests.postgres import both_databases
from visionsuit.core.actor import Actor
from visionsuit.generation.inputs import sweep_inputs
from visionsuit.runtime import Runtime

Bearer = Callable[..., dict[str, str]]
INPUTS = "/api/generations/inputs"
NOW = timedelta(seconds=-1)


@pytest.fixture
def keep(site: Runtime, client: TestClient, bearer: Bearer) -> Callable[..., Any]:
    def send(actor: Actor, data: bytes | None = None) -> Any:
        answer = client.post(INPUTS, content=data or picture_file((64, 64)), headers=bearer(actor))
        assert answer.status_code == 201, answer.text
        return answer.json()

    return send


def test_as_a_form_and_as_a_body(site: Runtime, client: TestClient, people: People, bearer: Bearer) -> None:
    headers = bearer(people.user)
    form = client.post(INPUTS, files={"file": ("a.png", picture_file((40, 30)), "image/png")}, headers=headers)
    assert form.status_code == 201, form.text
    made = form.json()
    assert set(made) == {"id", "width", "height", "url"}
    assert (made["width"], made["height"]) == (40, 30)
    body = client.post(INPUTS, content=picture_file((20, 30)), headers=headers | {"Content-Type": "image/png"})
    assert (body.json()["width"], body.json()["height"]) == (20, 30)
    assert client.get(made["url"], headers=headers).content == picture_file((40, 30))


def test_only_its_owner_and_administrators_see_it(
    site: Runtime, client: TestClient, people: People, bearer: Bearer, keep: Callable[..., Any]
) -> None:
    made = keep(people.user)
    assert client.get(made["url"], headers=bearer(people.admin)).status_code == 200
    for who in (people.other_user, people.curator):
        assert client.get(made["url"], headers=bearer(who)).status_code == 404
        assert client.delete(f"{INPUTS}/{made['id']}", headers=bearer(who)).status_code == 404
    assert client.get(made["url"]).status_code == 404
    assert client.post(INPUTS, content=picture_file()).status_code == 401
    assert client.delete(f"{INPUTS}/{made['id']}", headers=bearer(people.user)).status_code == 204
    assert client.get(made["url"], headers=bearer(people.user)).status_code == 404


def test_what_is_no_picture_is_refused(site: Runtime, client: TestClient, people: People, bearer: Bearer) -> None:
    headers = bearer(people.user)
    for data, status, code in (
        (b"GIF89a" + b"x" * 50, 415, "unsupported_image"),
        (picture_file((64, 64))[:-40], 422, "bad_image"),
        (b"", 422, "missing_file"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * (11 * 1024**2), 413, "file_too_large"),
    ):
        answer = client.post(INPUTS, content=data, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    form = client.post(INPUTS, files={"other": ("a.png", b"x")}, headers=headers)
    assert form.json()["error"]["code"] == "missing_file"


def test_a_turned_picture_has_the_size_it_is_shown_in(
    site: Runtime, client: TestClient, people: People, bearer: Bearer, keep: Callable[..., Any]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "A camera"
    made = keep(people.user, picture_file((60, 40), kind="JPEG", exif=exif))
    assert (made["width"], made["height"]) == (40, 60)
    kept = Image.open(io.BytesIO(client.get(made["url"], headers=bearer(people.user)).content))
    assert 0x010F not in kept.getexif()


@both_databases
def test_of_too_many_the_longest_unused_go(
    site: Runtime, client: TestClient, people: People, bearer: Bearer, keep: Callable[..., Any]
) -> None:
    site.settings.limits.generation_inputs = 3
    made = [keep(people.user) for _ in range(4)]
    others = keep(people.other_user)
    status = [client.get(one["url"], headers=bearer(people.user)).status_code for one in made]
    assert status == [404, 200, 200, 200]
    assert client.get(others["url"], headers=bearer(people.other_user)).status_code == 200


@both_databases
def test_what_a_waiting_render_needs_stays(
    site: Runtime, client: TestClient, people: People, bearer: Bearer, keep: Callable[..., Any]
) -> None:
    headers = bearer(people.user)
    picture, mask, idle = (keep(people.user) for _ in range(3))
    answer = client.post(
        "/api/generations",
        json={"prompt": "a cat", "init": {"input_id": picture["id"], "mask_input_id": mask["id"]}},
        headers=headers,
    )
    assert answer.status_code == 202, answer.text
    site.settings.limits.generation_inputs = 3
    assert sweep_inputs(site) == 0
    assert sweep_inputs(site, keep_for=NOW) == 1
    refused = client.delete(f"{INPUTS}/{picture['id']}", headers=headers)
    assert refused.json()["error"]["code"] == "input_in_use"
    site.settings.limits.generation_inputs = 2
    full = client.post(INPUTS, content=picture_file(), headers=headers)
    assert (full.status_code, full.json()["error"]["code"]) == (429, "too_many_inputs")
    status = {one["id"]: client.get(one["url"], headers=headers).status_code for one in (picture, mask, idle)}
    assert status == {picture["id"]: 200, mask["id"]: 200, idle["id"]: 404}
    client.post(f"/api/generations/{answer.json()['id']}/cancel", headers=headers)
    assert sweep_inputs(site, keep_for=NOW) == 2
    assert client.get(picture["url"], headers=headers).status_code == 404

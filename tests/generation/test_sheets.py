"""X/Y sheets, weight grids and test sheets of LoRAs."""

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlmodel import select
from starlette.testclient import TestClient

from tests.assets import picture_file
from tests.conftest import People
from tests.generation.conftest import make_card
from tests.generation.test_modes import Site, user  # noqa: F401  (a fixture)
from visionsuit.core.actor import SYSTEM
from visionsuit.generation.cells import cells_of
from visionsuit.generation.prepare import prepare
from visionsuit.generation.queries import get_generation, job_of
from visionsuit.generation.sheet_picture import draw_sheet
from visionsuit.generation.tables import BaseModel
from visionsuit.jobs.worker import Worker
from visionsuit.modelcards.tables import ModelCard
from visionsuit.runtime import Runtime
from visionsuit.visibility import Visibility

Bearer = Callable[..., dict[str, str]]


@pytest.fixture
def cards(site: Runtime, people: People) -> list[ModelCard]:
    return [make_card(site, people.curator, title) for title in ("Line art", "Watercolour")]


def base(cards: list[ModelCard], **more: Any) -> dict[str, Any]:
    loras = [{"model_id": card.public_id, "weight": 0.5} for card in cards]
    return {"prompt": "a fox", "seed": 7, "steps": 2, "loras": loras, **more}


def sheet_error(user: Site, **body: Any) -> tuple[int, str, str | None]:  # noqa: F811
    answer = user.post("/sheets", **body)
    error = answer.json().get("error", {})
    return answer.status_code, error.get("code", ""), error.get("field")


def test_a_weight_grid_with_control(user: Site, cards: list[ModelCard], worker: Worker) -> None:  # noqa: F811
    x = {"axis": "lora_weight", "lora": 0, "values": [0, 0.5, 1]}
    y = {"axis": "lora_weight", "lora": 1, "values": [0.25, -1]}
    answer = user.post("/sheets", base=base(cards), x=x, y=y, control=True)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/api/generations/{answer.json()['id']}"
    done = user.wait(answer.json()["id"])
    assert done["steps"] == done["step"] == 7 * 2
    assert [one["cell"] for one in done["images"]] == [
        {"x": None, "y": None}, *({"x": x, "y": y} for y in range(2) for x in range(3))
    ]  # fmt: skip
    assert done["images"][0]["label"] == "Without LoRAs"
    assert done["images"][3]["label"] == "Line art: 1 · Watercolour: 0.25"
    sides = done["request"]["sheet"]
    assert sides["x"]["labels"] == ["0", "0.5", "1"]
    assert (sides["x"]["label"], sides["y"]["lora"], sides["control"]) == ("Line art", 1, True)
    pictures = [user.pixels(one) for one in done["images"]]
    assert len({one.tobytes() for one in pictures}) == 7
    with user.runtime.open_ctx(user.actor, read_only=True) as ctx:
        request = get_generation(ctx, done["id"]).request
    mixes = [[(lora["title"], lora["weight"]) for lora in cell.loras] for cell in cells_of(request)]
    assert mixes[:3] == [[], [("Watercolour", 0.25)], [("Line art", 0.5), ("Watercolour", 0.25)]]
    recipe = user.client.post(
        f"/api/generations/{done['id']}/save", json={"image_ids": [done["images"][6]["id"]]}, headers=user.headers
    ).json()["items"][0]["id"]
    loras = user.client.get(f"/api/images/{recipe}", headers=user.headers).json()["recipe"]["loras"]
    assert [lora["weight"] for lora in loras] == [1.0, -1.0]


def test_the_sheet_is_one_labelled_picture(user: Site, cards: list[ModelCard], worker: Worker) -> None:  # noqa: F811
    x = {"axis": "steps", "values": [1, 2, 3]}
    done = user.wait(user.post("/sheets", base=base(cards), x=x).json()["id"])
    assert len(done["images"]) == 3
    sheet = done["sheet"]
    pixels = user.pixels(sheet)
    assert pixels.shape == (sheet["height"], sheet["width"], 3)
    assert sheet["width"] > 3 * 128
    for one in done["images"]:
        cell = np.asarray(Image.fromarray(user.pixels(one).astype(np.uint8)).resize((128, 128)))
        middle = cell[64, 64].astype(int)
        assert np.abs(pixels - middle).sum(axis=-1).min() <= 6
    assert user.client.get(sheet["url"]).status_code == 404
    saved = user.client.post(f"/api/generations/{done['id']}/save", json={}, headers=user.headers).json()
    assert len(saved["items"]) == 3
    saved = user.client.post(
        f"/api/generations/{done['id']}/save", json={"image_ids": [sheet["id"]]}, headers=user.headers
    ).json()
    assert len(saved["items"]) == 1
    assert user.client.delete(f"/api/generations/{done['id']}", headers=user.headers).status_code == 204


def test_every_axis_changes_what_it_says(user: Site, cards: list[ModelCard]) -> None:  # noqa: F811
    upload = user.keep(picture_file((64, 64)))
    for axis, values, field in (
        ("steps", [1, 9], "steps"),
        ("guidance", [1.5, 8], "guidance"),
        ("sampler", ["euler", "heun"], "sampler"),
        ("seed", [3, 4], "seed"),
        ("strength", [0.3, 0.9], "strength"),
        ("prompt", ["a cat", "a dog"], "prompt"),
    ):
        body = base(cards, init={"input_id": upload})
        made = user.post("/sheets", base=body, x={"axis": axis, "values": values}).json()
        with user.runtime.open_ctx(user.actor, read_only=True) as ctx:
            cells = cells_of(get_generation(ctx, made["id"]).request)
        assert [getattr(cell, field) for cell in cells] == values
        others = [replace(cell, **{field: None}, label=None, x=None) for cell in cells]
        assert others[0] == others[1]
        task = prepare(user.runtime, made["id"])
        assert sum(len(part.seeds) for part in task.for_engine) == 2
        user.client.post(f"/api/generations/{made['id']}/cancel", headers=user.headers)


def test_prompts_with_choices_keep_them_for_every_seed(user: Site, cards: list[ModelCard]) -> None:  # noqa: F811
    body = base([], prompt="a {fox|owl|cat|dog|hen} <lora:Watercolour:0.4>")
    made = user.post("/sheets", base=body, x={"axis": "seed", "values": list(range(20, 32))}).json()
    with user.runtime.open_ctx(user.actor, read_only=True) as ctx:
        cells = cells_of(get_generation(ctx, made["id"]).request)
    assert not any("{" in cell.prompt or "<" in cell.prompt for cell in cells)
    assert len({cell.prompt for cell in cells}) > 2
    assert all(cell.loras[0]["title"] == "Watercolour" for cell in cells)


def test_refusals_name_field_and_limit(user: Site, cards: list[ModelCard]) -> None:  # noqa: F811
    weights = {"axis": "lora_weight", "values": [0, 1]}
    wanted = base(cards)
    many = {"axis": "seed", "values": list(range(37))}
    assert sheet_error(user, base=wanted, x=many) == (422, "sheet_too_large", "x.values")
    assert "36" in user.post("/sheets", base=wanted, x=many).json()["error"]["message"]
    for field, body in {
        "base.count": {"base": {**wanted, "count": 2}, "x": weights},
        "base.variation": {"base": {**wanted, "variation": {"strength": 0.5}}, "x": weights},
        "x.axis": {"base": wanted, "x": {"axis": "colour", "values": [1]}},
        "x.values": {"base": wanted, "x": {"axis": "steps", "values": []}},
        "x.values.1": {"base": wanted, "x": {"axis": "lora_weight", "values": [0, 3]}},
        "x.values.0": {"base": wanted, "x": {"axis": "sampler", "values": [4]}},
        "x.lora": {"base": wanted, "x": {"axis": "lora_weight", "lora": 2, "values": [0]}},
        "x.labels": {"base": wanted, "x": {**weights, "labels": ["a"]}},
        "y.axis": {"base": wanted, "x": weights, "y": weights},
        "control": {"base": base([]), "x": {"axis": "steps", "values": [1]}, "control": True},
    }.items():
        status, code, at = sheet_error(user, **body)
        assert (status, at) == (422, field), (code, body)
    no_picture = {"base": wanted, "x": {"axis": "strength", "values": [0.5]}}
    assert sheet_error(user, **no_picture) == (422, "invalid_request", "x.axis")
    assert sheet_error(user, base=base([]), x=weights) == (422, "invalid_request", "x.lora")


def test_a_test_sheet_of_a_lora(
    site: Runtime, client: TestClient, people: People, bearer: Bearer, worker: Worker
) -> None:
    card = make_card(site, people.curator)
    member = Site(site, client, people.user, bearer(people.user))
    version = client.get(f"/api/models/{card.public_id}", headers=member.headers).json()["versions"][0]["id"]
    path = f"/api/models/{card.public_id}/versions/{version}/test-sheet"
    answer = client.post(path, json={"steps": 1, "seed": 3}, headers=member.headers)
    assert answer.status_code == 202, answer.text
    done = member.wait(answer.json()["id"])
    assert len(done["images"]) == 8
    sides = done["request"]["sheet"]
    assert sides["x"]["values"] == [0, 0.4, 0.7, 1.0]
    assert sides["y"]["labels"] == ["no trigger", "trigger"]
    assert sides["y"]["values"][1] == sides["y"]["values"][0] + ", lineart"
    with site.open_ctx(people.user, read_only=True) as ctx:
        assert job_of(ctx, get_generation(ctx, done["id"])).priority < 0
    assert client.post(path, json={}).status_code == 401
    assert client.post(path.replace(version, "q1Zk3vQ0h8m1TgYw"), json={}, headers=member.headers).status_code == 404
    hidden = make_card(site, people.curator, "Hidden", visibility=Visibility.PRIVATE)
    secret = client.get(f"/api/models/{hidden.public_id}", headers=bearer(people.curator)).json()["versions"][0]["id"]
    path = f"/api/models/{hidden.public_id}/versions/{secret}/test-sheet"
    assert client.post(path, json={}, headers=member.headers).status_code == 404


def test_long_labels_stay_in_their_places() -> None:
    axis = {"axis": "prompt", "label": "Prompt", "values": ["x"] * 2, "labels": ["a very long label " * 8, "short"]}
    cells = [np.full((64, 48, 3), 40 * number, np.uint8) for number in range(5)]
    sheet = draw_sheet({"x": axis, "y": axis, "control": True}, cells)
    assert max(sheet.shape) < 1200
    assert Image.open(io.BytesIO(picture_file())).size == (8, 8)
    plain = draw_sheet({"x": axis, "y": None, "control": False}, cells[:2])
    assert plain.shape[0] < sheet.shape[0]


def test_strengths_need_a_base_that_is_not_only_enlarged(user: Site) -> None:  # noqa: F811
    init = {"input_id": user.keep(picture_file((64, 64))), "strength": 0}
    body = {"prompt": "a fox", "steps": 2, "init": init, "hires": {"scale": 1.5}}
    x = {"axis": "strength", "values": [0.5, 1]}
    assert sheet_error(user, base=body, x=x) == (422, "invalid_request", "base.init.strength")


@pytest.mark.parametrize("axis", ["guidance", "steps", "seed"])
def test_numbers_that_no_float_holds_are_refused(user: Site, axis: str) -> None:  # noqa: F811
    body = {"base": {"prompt": "a fox"}, "x": {"axis": axis, "values": [10**400]}}
    assert sheet_error(user, **body) == (422, "invalid_request", "x.values.0")


def test_samplers_are_those_of_the_base_models_family(user: Site) -> None:  # noqa: F811
    with user.runtime.open_ctx(SYSTEM) as ctx:
        model = ctx.session.exec(select(BaseModel)).first()
        assert model is not None
        model.family = "sd3"
        ctx.session.add(model)
    plain = {"prompt": "a fox", "sampler": "euler", "schedule": "default"}
    x = {"axis": "sampler", "values": ["euler", "ddim"]}
    assert sheet_error(user, base=plain, x=x) == (422, "invalid_request", "x.values.1")

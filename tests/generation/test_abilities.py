"""What a base model cannot is told in the list, and refused with the field when it is asked for."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from tests.assets import picture_file
from tests.conftest import People
from tests.engine.tiny import make_lora, make_tiny_sd
from tests.engine.tiny_flux import make_flux_lora, make_tiny_flux
from tests.engine.tiny_whole import make_tiny_lcm, make_tiny_pixart
from tests.generation.conftest import finished, make_card, order, submit
from visionsuit.core.actor import Actor
from visionsuit.engine.diffusers_engine import DiffusersEngine
from visionsuit.generation.base_models import sync_base_models
from visionsuit.generation.order import Borders, HiresOrder, InitOrder, LoraOrder
from visionsuit.generation.schemas import GenerationOut
from visionsuit.jobs.worker import Worker
from visionsuit.main import guarded
from visionsuit.runtime import Runtime
from visionsuit.schedule import HANDLERS
from visionsuit.storage.base import Bucket

ALL = ["loras", "pictures", "masks", "variations"]
MADE = {"flux": make_tiny_flux, "lcm": make_tiny_lcm, "pixart": make_tiny_pixart, "sd": make_tiny_sd}


class Site:
    """What one person sends, and the ids of the base models by name."""

    def __init__(self, runtime: Runtime, client: TestClient, actor: Actor, headers: dict[str, str]) -> None:
        self.runtime, self.client, self.actor, self.headers = runtime, client, actor, headers
        self.listed = {one["label"]: one for one in self.get("/api/base-models")}

    def get(self, path: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.client.get(path, headers=self.headers).json()["items"]
        return items

    def send(self, model: str, **body: Any) -> tuple[int, str | None, str]:
        body = {"prompt": "a red cat", "steps": 4, "base_model_id": self.listed[model]["id"], **body}
        answer = self.client.post("/api/generations", json=body, headers=self.headers)
        error = answer.json().get("error") or {}
        return answer.status_code, error.get("field"), error.get("message", "")

    def keep(self) -> str:
        data = picture_file((64, 64))
        return str(self.client.post("/api/generations/inputs", content=data, headers=self.headers).json()["id"])

    def fits(self, model: str, *cards: str) -> list[tuple[bool, str | None]]:
        body = {"base_model_id": self.listed[model]["id"], "model_ids": list(cards)}
        items = self.client.post("/api/loras/fits", json=body, headers=self.headers).json()["items"]
        return [(one["fits"], one["reason"]) for one in items]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("abilities")
    for name, make in MADE.items():
        make(place / "models" / name)
    return place


@pytest.fixture
def user(
    runtime: Runtime, api: FastAPI, people: People, bearer: Callable[[Actor], dict[str, str]], folders: Path
) -> Site:
    settings = runtime.settings.model_copy(update={"models_dir": folders / "models"})
    site = replace(runtime, settings=settings)
    sync_base_models(site)
    client = TestClient(guarded(api, site), base_url="http://127.0.0.1:7860")  # type: ignore[arg-type]
    return Site(site, client, people.admin, bearer(people.admin))


def test_the_list_says_what_each_can_do(user: Site) -> None:
    abilities = {"flux": ALL[:3], "lcm": ALL[:2], "pixart": [], "sd": ALL}
    for path in ("/api/base-models", "/api/base-models/all"):
        assert {one["label"]: one["abilities"] for one in user.get(path) if one["label"] in MADE} == abilities


def test_what_it_cannot_is_refused_with_the_field(user: Site) -> None:
    init = {"input_id": user.keep(), "strength": 0.5}
    mask, borders = {**init, "mask_input_id": user.keep()}, {**init, "outpaint": {"left": 16}}
    for model, body, field, said in (
        ("pixart", {"init": init}, "init", "renders from a prompt alone"),
        ("pixart", {"init": mask}, "init", "renders from a prompt alone"),
        ("pixart", {"hires": {"scale": 2}}, "hires", "renders from a prompt alone"),
        ("pixart", {"variation": {"strength": 0.2}}, "variation", "no variations"),
        ("lcm", {"init": mask}, "init.mask_input_id", "cannot repaint a part"),
        ("lcm", {"init": borders}, "init.outpaint", "cannot paint beyond its edges"),
        ("flux", {"variation": {"strength": 0.2}}, "variation", "no variations"),
    ):
        status, at, message = user.send(model, **body)
        assert (status, at) == (422, field), message
        assert said in message
        assert message.startswith(model)
    for model, body in (
        ("lcm", {"init": init}),
        ("flux", {"init": borders}),
        ("flux", {"hires": {"scale": 2}}),
        ("sd", {"init": mask, "variation": {"strength": 0.2}}),
    ):
        assert user.send(model, **body)[0] == 202, (model, body)


def test_loras_fit_by_their_files(user: Site, folders: Path) -> None:
    make_flux_lora(folders / "flux.safetensors", folders / "models" / "flux", "kohya")
    make_lora(folders / "sd.safetensors", folders / "models" / "sd")
    flux, sd = (
        make_card(user.runtime, user.actor, name, data=(folders / f"{name}.safetensors").read_bytes()).public_id
        for name in ("flux", "sd")
    )
    assert user.fits("flux", flux)[0] == (True, None)
    [(fits, reason)] = user.fits("flux", sd)
    assert not fits
    assert reason is not None
    assert "the base model is Flux" in reason
    assert user.fits("lcm", sd)[0] == (True, None)
    assert user.fits("pixart", flux)[0] == (False, "This base model takes no LoRAs.")
    assert user.send("flux", loras=[{"model_id": flux, "weight": 0.8}])[0] == 202
    for model, card in (("flux", sd), ("pixart", flux), ("sd", flux)):
        status, field, message = user.send(model, loras=[{"model_id": card, "weight": 0.8}])
        assert (status, field) == (422, "loras.0.model_id")
        assert f"cannot be used with {model}" in message


def test_the_whole_way_on_flux(user: Site, folders: Path) -> None:
    """A LoRA, a picture with borders and a second pass, by the real engine; then the same without, twice."""
    path = folders / "whole.safetensors"
    make_flux_lora(path, folders / "models" / "flux", "comfy", text_encoder=True)
    card = make_card(user.runtime, user.actor, "whole", data=path.read_bytes()).public_id
    engine = DiffusersEngine(device="cpu", threads=1)
    site = replace(user.runtime, engine=engine)
    worker = Worker(site, HANDLERS, warm_up_after_s=0)
    worker.start()
    base = {"base_model_id": user.listed["flux"]["id"], "steps": 4}
    init = InitOrder(input_id=user.keep(), strength=0.5, outpaint=Borders(left=16, right=16))

    def render(**more: object) -> GenerationOut:
        return finished(site, user.actor, submit(site, user.actor, order("a red cat", **base, **more)), 120)

    try:
        sizes = []
        bare, mixed, again, large = (
            render(**more)
            for more in (
                {"width": 64, "height": 64},
                {"width": 64, "height": 64, "loras": (LoraOrder(card, weight=0.8, text_encoder_weight=-0.5),)},
                {"width": 64, "height": 64},
                {"width": 96, "height": 64, "init": init, "hires": HiresOrder(scale=1.5), "loras": (LoraOrder(card),)},
            )
        )
        for shown in (bare, mixed, again, large):
            assert shown.status == "completed", shown.error
            sizes.append((shown.images[0].width, shown.images[0].height))
        assert sizes == [(64, 64)] * 3 + [(144, 96)]
        assert large.steps == large.step == 4
        files = [site.storage.read_bytes(Bucket.OUTPUTS, one.images[0].url.rpartition("/")[2]) for one in (bare, again)]
        pictures = [np.asarray(Image.open(io.BytesIO(data))) for data in files]
        assert np.array_equal(*pictures)
    finally:
        worker.stop()
        engine.close()

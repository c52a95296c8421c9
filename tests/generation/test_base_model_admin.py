"""Administrators keep the list: local paths inside allowed folders, labels, defaults, roles; the command line."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlmodel import col, select
from starlette.testclient import TestClient

from tests.conftest import People
from tests.engine.original import make_model, write_checkpoint
from tests.engine.tiny import make_lora, make_tiny_sd
from tests.engine.tiny_sd3 import make_tiny_sd3
from tests.generation.conftest import make_card, order, run_commands, submit
from tests.postgres import both_databases
from visionsuit.core.actor import Actor
from visionsuit.core.errors import AppError
from visionsuit.engine.base import Family
from visionsuit.engine.mock import MockEngine
from visionsuit.generation.base_model_fetch import fetching_dir
from visionsuit.generation.base_models import list_offered, ref_of, sync_base_models
from visionsuit.generation.order import LoraOrder, Order
from visionsuit.generation.tables import BaseModel, Generation
from visionsuit.jobs.tables import Job
from visionsuit.main import guarded
from visionsuit.runtime import Runtime

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a diffusers folder `tiny` and a checkpoint `one.safetensors`."""
    place = tmp_path_factory.mktemp("weights")
    make_tiny_sd(place / "tiny")
    write_checkpoint(place / "one.safetensors", make_model(place / "source", Family.SD1))
    return place


@pytest.fixture
def site(runtime: Runtime, weights: Path, tmp_path: Path) -> Runtime:
    models, shelf = tmp_path / "models", tmp_path / "shelf"
    models.mkdir()
    shutil.copytree(weights / "tiny", shelf / "tiny")
    settings = runtime.settings.model_copy(update={"models_dir": models, "base_model_dirs": [shelf]})
    return replace(runtime, settings=settings, engine=MockEngine())


@pytest.fixture
def ask(site: Runtime, api: FastAPI, people: People, bearer: Callable[[Actor], dict[str, str]]) -> Ask:
    client = TestClient(guarded(api, site), base_url="http://127.0.0.1:7860")  # type: ignore[arg-type]

    def call(method: str, path: str, json: Any = None, status: int | None = None, who: Actor | None = None) -> Any:
        headers = bearer(who or people.admin)
        answer = client.request(method, f"/api/base-models{path}", json=json, headers=headers)
        assert answer.status_code == (status or answer.status_code), answer.text
        return answer.json() if answer.content else None

    return call


def test_a_checkpoint_in_the_models_folder_is_rendered_with(
    site: Runtime, people: People, weights: Path, tmp_path: Path, ask: Ask
) -> None:
    shutil.copy(weights / "one.safetensors", site.settings.models_dir)
    (site.settings.models_dir / "old.ckpt").write_bytes(b"\x80")
    items = {item["folder"]: item for item in ask("POST", "/sync", status=200)["items"]}
    assert items["one.safetensors"]["family"] == "sd1"
    assert "pickle" in items["old.ckpt"]["trouble"]
    assert items["old.ckpt"]["default"] is None
    assert (items["old.ckpt"]["on_disk"], items["old.ckpt"]["size_bytes"]) == (True, None)
    # The weights alone, without the names before them.
    header_bytes = (weights / "one.safetensors").stat().st_size - items["one.safetensors"]["size_bytes"]
    assert 0 < header_bytes < 200_000
    [offered] = ask("GET", "")["items"]
    assert offered["label"] == "one"
    # A LoRA is checked against the file before anything is queued.
    make_lora(tmp_path / "fits.safetensors", weights / "source", transformer=True)
    make_lora(tmp_path / "other.safetensors", weights / "tiny", transformer=True)
    cards = {
        name: make_card(site, people.curator, name, data=(tmp_path / f"{name}.safetensors").read_bytes())
        for name in ("fits", "other")
    }
    wanted = {name: order(width=512, height=512, loras=(LoraOrder(card.public_id),)) for name, card in cards.items()}
    submit(site, people.user, wanted["fits"])
    with pytest.raises(AppError, match="cannot be used with one"):
        submit(site, people.user, wanted["other"])


@both_databases
def test_a_path_outside_the_models_folder(ask: Ask, site: Runtime, tmp_path: Path, weights: Path) -> None:
    shelf = tmp_path / "shelf"
    added = ask("POST", "", {"path": str(shelf / "tiny"), "label": "Shelf"}, status=201)
    assert (added["origin"], added["label"], added["family"], added["trouble"]) == ("path", "Shelf", "sd1", None)
    assert (
        ask("POST", "", {"path": str(shelf / ".." / "shelf" / "tiny")}, status=409)["error"]["code"] == "already_listed"
    )
    sync_base_models(site)
    assert [item["label"] for item in ask("GET", "")["items"]] == ["Shelf"]
    # The folder is no longer allowed: it is listed with the reason, and not offered.
    settings = site.settings.model_copy(update={"base_model_dirs": []})
    sync_base_models(replace(site, settings=settings))
    assert ask("GET", "")["items"] == []
    assert "any more" in ask("GET", "/all")["items"][0]["trouble"]
    ask("DELETE", f"/{added['id']}", status=204)
    assert (shelf / "tiny" / "model_index.json").is_file()


@pytest.mark.parametrize("path", ["/etc", "../weights", "", "nothing", ".", "link", "empty", "a\0b", "x" * 2000])
def test_paths_stay_inside_allowed_folders(ask: Ask, site: Runtime, weights: Path, path: str) -> None:
    (site.settings.models_dir / "link").symlink_to(weights / "tiny")
    (site.settings.models_dir / "empty").mkdir()
    error = ask("POST", "", {"path": path}, status=422)["error"]
    assert (error["code"], error["field"]) == ("bad_base_model", "path")


@pytest.mark.parametrize("path", ["\ud800", "a\udcffb", "x" * 300, "strange"])
def test_a_path_that_no_list_can_hold_is_refused(
    api: FastAPI, site: Runtime, people: People, bearer: Callable[[Actor], dict[str, str]], weights: Path, path: str
) -> None:
    # Not UTF-8, as file systems allow.
    folder = site.settings.models_dir / "\udcff"
    shutil.copytree(weights / "tiny", folder)
    (site.settings.models_dir / "strange").symlink_to(folder)
    client = TestClient(guarded(api, site), base_url="http://127.0.0.1:7860")  # type: ignore[arg-type]
    headers = bearer(people.admin) | {"Content-Type": "application/json"}
    answer = client.post("/api/base-models", content=json.dumps({"path": path}), headers=headers)
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, "path"), answer.text
    sync_base_models(site)
    with site.open_ctx(people.admin, read_only=True) as ctx:
        assert [row.folder for row in list_offered(ctx)] == ["strange"]


@both_databases
@pytest.mark.parametrize("name", ["%00", "a%00b", "x" * 65])
def test_what_is_no_id_names_no_base_model(ask: Ask, name: str) -> None:
    for method, path in (("PATCH", ""), ("DELETE", ""), ("POST", "/fetch"), ("POST", "/cancel")):
        error = ask(method, f"/{name}{path}", {} if method == "PATCH" else None, status=404)["error"]
        assert error["code"] == "base_model_not_found"


@both_databases
def test_the_whole_list_is_put_in_order_at_once(ask: Ask, site: Runtime, weights: Path, people: People) -> None:
    for name in "abcd":
        shutil.copytree(weights / "tiny", site.settings.models_dir / name)
    ids = {item["label"]: item["id"] for item in ask("POST", "/sync")["items"]}

    def put(names: str, status: int = 200) -> list[str]:
        answer = ask("PUT", "/order", {"ids": [ids.get(name, name) for name in names]}, status=status)
        return [item["label"] for item in (answer if status == 200 else ask("GET", "/all"))["items"]]

    assert put("dbca") == ["d", "b", "c", "a"]
    assert put("c") == ["c", "d", "b", "a"], "what is not named follows as it was"
    assert put("") == ["c", "d", "b", "a"]
    assert put("abca", 422) == ["c", "d", "b", "a"], "named twice"
    assert put("abx", 422) == ["c", "d", "b", "a"], "not all or nothing"
    assert [item["position"] for item in ask("GET", "/all")["items"]] == [1, 2, 3, 4]
    ask("PUT", "/order", {"ids": []}, status=403, who=people.curator)


@both_databases
def test_labels_defaults_and_order_stay_when_the_folder_is_read_again(ask: Ask, site: Runtime, weights: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(weights / "tiny", site.settings.models_dir / name)
    _, b = ask("POST", "/sync")["items"]
    changed = ask(
        "PATCH", f"/{b['id']}",
        {"label": "Bee", "description": "Buzz", "default": {"steps": 9, "sampler": "euler"}, "sizes": [[64, 96]],
         "is_default": True, "position": 0, "dtype": "bf16"},
        status=200,
    )  # fmt: skip
    assert (changed["default"]["steps"], changed["dtype"]) == (9, "bf16")
    (site.settings.models_dir / "b" / "visionsuit.json").write_text('{"label": "Other", "description": "Files"}')
    sync_base_models(site)
    first, second = ask("GET", "")["items"]
    assert (first["label"], first["description"], first["is_default"]) == ("Bee", "Buzz", True)
    assert [item["dtype"] for item in ask("GET", "/all")["items"]] == ["bf16", "auto"]
    assert (first["default"]["steps"], first["default"]["sampler"], first["sizes"]) == (9, "euler", [[64, 96]])
    assert (second["label"], second["is_default"]) == ("a", False)
    back = ask("PATCH", f"/{b['id']}", {"label": None, "default": None, "description": None, "sizes": None}, status=200)
    assert (back["label"], back["description"], back["default"]["steps"], back["overrides"]) == (
        "Other",
        "Files",
        25,
        {},
    )


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"label": " "}, "label"),
        ({"label": "x" * 181}, "label"),
        ({"default": {"width": 65}}, "default.width"),
        ({"default": {"steps": 0}}, "default.steps"),
        ({"default": {"guidance": 99}}, "default.guidance"),
        ({"default": {"sampler": "magic"}}, "default.sampler"),
        ({"sizes": [[64]]}, "sizes"),
        ({"sizes": [[64, 4096]]}, "sizes"),
        ({"allowed_roles": ["KING"]}, "allowed_roles"),
        ({"dtype": "fp8"}, "dtype"),
    ],
)
def test_what_makes_no_sense_is_refused(
    ask: Ask, site: Runtime, weights: Path, changes: dict[str, Any], field: str
) -> None:
    shutil.copytree(weights / "tiny", site.settings.models_dir / "a")
    [a] = ask("POST", "/sync")["items"]
    error = ask("PATCH", f"/{a['id']}", changes, status=422)["error"]
    assert (error["code"], error["field"]) == ("bad_base_model", field)


def test_a_sampler_that_its_kind_does_not_have_is_refused(
    ask: Ask, site: Runtime, people: People, tmp_path: Path
) -> None:
    make_tiny_sd3(site.settings.models_dir / "three")
    [three] = ask("POST", "/sync")["items"]
    [offered] = ask("GET", "")["items"]
    assert (offered["samplers"], offered["default"]["sampler"]) == (["dpmpp_2m", "euler", "heun", "unipc"], "euler")
    submit(site, people.user, order(width=64, height=64))
    with pytest.raises(AppError, match="This sampler is not known; there are: dpmpp_2m, euler, heun, unipc"):
        submit(site, people.user, order(width=64, height=64, sampler="ddim"))
    ask("PATCH", f"/{three['id']}", {"default": {"sampler": "ddim"}}, status=422)


def test_sizes_wait_until_the_files_are_known(ask: Ask, site: Runtime, weights: Path) -> None:
    added = ask("POST", "", {"repo_id": "a/b"}, status=201)
    for field, value in (("default", {"steps": 9}), ("sizes", [[1024, 1024]])):
        error = ask("PATCH", f"/{added['id']}", {"label": "Bee", field: value}, status=422)["error"]
        assert (error["code"], error["field"]) == ("bad_base_model", field)
        assert "is downloaded" in error["message"]
    changed = ask("PATCH", f"/{added['id']}", {"label": "Bee", "default": None, "sizes": None}, status=200)
    assert changed["overrides"] == {"label": "Bee"}


def test_what_other_files_cannot_render_is_passed_over(
    ask: Ask, site: Runtime, people: People, weights: Path, tmp_path: Path
) -> None:
    place = site.settings.models_dir / "a"
    shutil.copytree(weights / "tiny", place)
    [a] = ask("POST", "/sync")["items"]
    chosen = {"width": 64, "height": 64, "steps": 9, "sampler": "ddim"}
    ask("PATCH", f"/{a['id']}", {"default": chosen, "sizes": [[64, 64], [128, 128]]}, status=200)
    submit(site, people.user, Order("a cat"))
    shutil.rmtree(place)
    make_tiny_sd3(place)
    # Its sides begin at a larger size, and it has no DDIM.
    (place / "visionsuit.json").write_text(
        '{"min_size": 128, "max_size": 256, "default": {"width": 192, "height": 128}}'
    )
    [changed] = ask("POST", "/sync")["items"]
    assert [changed["default"][name] for name in ("width", "height", "steps")] == [192, 128, 9]
    assert changed["default"]["sampler"] in changed["samplers"]
    assert changed["sizes"] == [[128, 128]]
    submit(site, people.user, Order("a cat"))


def test_roles_and_switch_decide_who_sees_it(ask: Ask, site: Runtime, weights: Path, people: People) -> None:
    shutil.copytree(weights / "tiny", site.settings.models_dir / "a")
    [a] = ask("POST", "/sync")["items"]
    ask("PATCH", f"/{a['id']}", {"allowed_roles": ["CURATOR"]}, status=200)
    seen = {who: len(ask("GET", "", who=getattr(people, who))["items"]) for who in ("user", "curator", "admin")}
    assert seen == {"user": 0, "curator": 1, "admin": 1}
    ask("PATCH", f"/{a['id']}", {"is_enabled": False, "allowed_roles": []}, status=200)
    with site.open_ctx(people.admin, read_only=True) as ctx:
        assert list_offered(ctx) == []
    for who in (people.user, people.curator):
        assert ask("GET", "/all", status=403, who=who)["error"]["code"] == "not_permitted"


def test_beginnings_of_downloads_that_left_the_list_are_removed(ask: Ask, site: Runtime) -> None:
    added = ask("POST", "", {"repo_id": "a/b"}, status=201)
    for name in (added["id"], "gone"):
        (fetching_dir(site.settings.models_dir, name) / "x").mkdir(parents=True)
    sync_base_models(site)
    assert [place.name for place in (site.settings.models_dir / ".fetching").iterdir()] == [added["id"]]
    assert ask("GET", "/all")["items"][0]["trouble"] == "It is not downloaded yet."


@both_databases
def test_what_lies_in_the_models_folder_is_not_deleted(ask: Ask, site: Runtime, weights: Path, people: People) -> None:
    shutil.copytree(weights / "tiny", site.settings.models_dir / "a")
    [a] = ask("POST", "/sync")["items"]
    submit(site, people.user, order(width=64, height=64))
    assert ask("DELETE", f"/{a['id']}", status=409)["error"]["code"] == "still_there"
    shutil.rmtree(site.settings.models_dir / "a")
    ask("POST", "/sync")
    ask("DELETE", f"/{a['id']}", status=204)
    assert ask("GET", "/all")["items"] == []
    assert ask("DELETE", f"/{a['id']}", status=404)["error"]["code"] == "base_model_not_found"


def test_the_command_line_looks_at_the_folder(weights: Path, tmp_path: Path) -> None:
    models = tmp_path / "cli-models"
    shutil.copytree(weights / "tiny", models / "tiny")
    settings = {"DATA_DIR": str(tmp_path / "cli-data"), "MODELS_DIR": str(models), "ENGINE": "mock"}
    environment = {**os.environ, "COLUMNS": "200"} | {f"VISIONSUIT_{name}": value for name, value in settings.items()}
    commands = ("models list", "models sync", "models list", "models dtype tiny bf16", "models list")
    done = run_commands(environment, *commands)
    assert [status for status, _ in done] == [0] * 5
    before, synced, after, chosen, at_last = (output for _, output in done)
    assert "tiny" not in before
    assert "offered" in synced
    assert "tiny" in after
    assert "bf16" not in after
    assert "bf16" in chosen
    assert "bf16" in at_last


def test_the_engine_is_asked_for_the_number_format(ask: Ask, site: Runtime, weights: Path, people: People) -> None:
    """Work in another one is another kind of work: it neither shares what is loaded nor measured speeds."""
    shutil.copytree(weights / "tiny", site.settings.models_dir / "a")
    [a] = ask("POST", "/sync")["items"]
    before = submit(site, people.user, order(width=64, height=64))
    ask("PATCH", f"/{a['id']}", {"dtype": "fp16"}, status=200)
    after = submit(site, people.user, order(width=64, height=64))
    with site.open_ctx(people.admin, read_only=True) as ctx:
        row = ctx.session.exec(select(BaseModel)).one()
        chosen = select(Job).join(Generation, col(Generation.job_id) == Job.id)
        jobs = [ctx.session.exec(chosen.where(Generation.public_id == one)).one() for one in (before, after)]
        key = row.key
        assert [(job.affinity, job.pace_key) for job in jobs] == [(key, key), (f"{key}-fp16", f"{key}-fp16")]
    ref = ref_of(site, row)
    assert (ref.dtype, ref.key, ref.path) == ("fp16", f"{key}-fp16", site.settings.models_dir / "a")

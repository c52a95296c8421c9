"""Test sheets that make themselves after an upload: when, of what, shown to whom, and gone with the card."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlmodel import col, select, update

from tests.assets import picture_file
from tests.conftest import People
from tests.generation.conftest import finished, lora_bytes, order, show, submit
from tests.generation.test_modes import Site, user  # noqa: F401  (a fixture)
from tests.jobs.conftest import until
from tests.postgres import both_databases
from tests.uploads.weights import make_lora
from visionsuit.core.actor import SYSTEM
from visionsuit.core.clock import utcnow
from visionsuit.core.config import GeneratorAccess
from visionsuit.core.errors import AppError
from visionsuit.engine.base import Phase, Progress
from visionsuit.engine.mock import MockEngine
from visionsuit.generation import service
from visionsuit.generation.auto_sheets import queue_sheet
from visionsuit.generation.queries import count_renders
from visionsuit.generation.run import Stopwatch
from visionsuit.generation.tables import BaseModel, Generation, LoraSheet
from visionsuit.jobs.tables import IDLE_PRIORITY, Job
from visionsuit.jobs.worker import Worker
from visionsuit.objects.tables import StorageObject
from visionsuit.runtime import Runtime
from visionsuit.site.live import change_settings
from visionsuit.storage.base import Bucket

Bearer = Callable[..., dict[str, str]]


@pytest.fixture(autouse=True)
def switched_on(site: Runtime) -> None:
    with site.open_ctx(SYSTEM) as ctx:
        change_settings(ctx, {"auto_test_sheets": True})


def upload(user: Site, *, data: bytes | None = None, **fields: Any) -> str:  # noqa: F811
    """Id of the card."""
    answer = user.client.post(
        "/api/uploads/models",
        data={"title": "Line art", "trigger": "lineart", "visibility": "public", **fields},
        files={"file": ("line.safetensors", data or lora_bytes()), "cover": ("c.png", picture_file())},
        headers=user.headers,
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def sheets(user: Site, card: str, headers: dict[str, str] | None = None) -> list[dict[str, Any]]:  # noqa: F811
    answer = user.client.get(f"/api/models/{card}/test-sheets", headers=user.headers if headers is None else headers)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def wait_for(user: Site, card: str) -> dict[str, Any]:  # noqa: F811
    until(lambda: sheets(user, card)[0]["status"] in ("completed", "failed"), 30)
    return sheets(user, card)[0]


@both_databases
def test_an_upload_gets_its_sheet(
    user: Site,  # noqa: F811
    people: People,
    bearer: Bearer,
    start_worker: Callable[[], Worker],
) -> None:
    card = upload(user)
    [waiting] = sheets(user, card)
    assert (waiting["status"], waiting["picture"]) == ("queued", None)
    assert waiting["wait_reason"]
    assert sheets(user, card, {}) == [], "others see what is done"
    start_worker()
    done = wait_for(user, card)
    assert done["status"] == "completed", done["error"]
    member = bearer(people.user)
    [seen] = sheets(user, card, member)
    assert seen == {**done, "generation_id": None}
    for address in (done["picture"]["url"], done["picture"]["thumb"]["small"], done["picture"]["thumb"]["large"]):
        assert user.client.get(address).status_code == 200, "on a public card"
    render = user.client.get(f"/api/generations/{done['generation_id']}", headers=user.headers).json()
    sides = render["request"]["sheet"]
    assert (sides["x"]["values"], sides["y"]["labels"]) == ([0, 0.4, 0.7, 1.0], ["no trigger", "trigger"])
    assert user.client.get(render["images"][0]["url"], headers=member).status_code == 404, "only the sheet is shown"
    hidden = user.client.patch(f"/api/models/{card}", json={"visibility": "private"}, headers=user.headers)
    assert hidden.status_code == 200
    assert user.client.get(done["picture"]["url"], headers=member).status_code == 404
    assert user.client.get(f"/api/models/{card}/test-sheets", headers=member).status_code == 404


def test_all_have_the_same_seed_and_prompt(user: Site) -> None:  # noqa: F811
    cards = [upload(user, title=title, data=lora_bytes(seed=n)) for n, title in enumerate(("One", "Two"))]
    first, second = (sheets(user, card)[0] for card in cards)
    assert (first["seed"], first["prompt"]) == (second["seed"], second["prompt"])


def test_it_counts_against_nobody(user: Site, people: People) -> None:  # noqa: F811
    for number in range(user.runtime.settings.limits.active_generations + 1):
        assert sheets(user, upload(user, title=f"No {number}", data=lora_bytes(seed=number)))
    assert user.post().status_code == 202
    with user.runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        idle = ctx.session.exec(select(Job).where(Job.priority == IDLE_PRIORITY)).all()
    assert {job.owner_id for job in idle} == {None}


def test_it_waits_for_everybody(user: Site, people: People, start_worker: Callable[[], Worker]) -> None:  # noqa: F811
    card = upload(user)
    others = [submit(user.runtime, people.user, order(steps=2, seed=seed)) for seed in (1, 2)]
    start_worker()
    ended = wait_for(user, card)
    generation = show(user.runtime, user.actor, ended["generation_id"])
    for other in others:
        finished_at = finished(user.runtime, people.user, other).finished_at
        assert finished_at is not None
        assert generation.started_at is not None
        assert finished_at <= generation.started_at
    with user.runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        assert count_renders(ctx.session) == len(others), "nobody asked for the sheet"


def test_off_means_off(user: Site) -> None:  # noqa: F811
    with user.runtime.open_ctx(SYSTEM) as ctx:
        change_settings(ctx, {"auto_test_sheets": False})
    assert sheets(user, upload(user)) == []


@pytest.mark.parametrize("why", ["no base model", "wrong family", "wrong width", "checkpoint", "closed", "bad trigger"])
def test_no_sheet_is_no_error(user: Site, why: str) -> None:  # noqa: F811
    fields: dict[str, Any] = {}
    with user.runtime.open_ctx(SYSTEM) as ctx:
        for row in ctx.session.exec(select(BaseModel)):
            row.is_enabled = why != "no base model"
            row.family = "sdxl" if why == "wrong family" else row.family
            ctx.session.add(row)
        if why == "closed":
            change_settings(ctx, {"generator_access": GeneratorAccess.ADMINS})
    if why == "checkpoint":
        fields["type"] = "TEXTUAL_INVERSION"
    if why == "bad trigger":
        fields["trigger"] = "<lora:nowhere:1>"
    data = lora_bytes(inputs=40) if why == "wrong width" else None
    if why == "wrong family":
        data = make_lora()
    assert sheets(user, upload(user, data=data, **fields)) == []


def test_the_first_that_fits_is_taken(user: Site) -> None:  # noqa: F811
    with user.runtime.open_ctx(SYSTEM) as ctx:
        demo = ctx.session.exec(select(BaseModel)).one()
        gone = BaseModel(folder="gone", key="g", label="Gone", family=demo.family, is_enabled=False, is_default=True)
        other = BaseModel(folder="other", key="o", label="Other", family="sd3", position=-1)
        ctx.session.add_all([gone, other])
    assert sheets(user, upload(user))[0]["base_model_label"] == demo.label


def test_a_base_model_that_went_meanwhile_fails_it(
    user: Site,  # noqa: F811
    start_worker: Callable[[], Worker],
) -> None:
    card = upload(user)
    with user.runtime.open_ctx(SYSTEM) as ctx:
        for row in ctx.session.exec(select(BaseModel)):
            row.is_enabled = False
    start_worker()

    def has_failed() -> bool:
        with user.runtime.open_ctx(SYSTEM) as ctx:
            # It is tried three times, seconds apart: what waits for its next one need not.
            ctx.session.execute(update(Job).where(col(Job.run_after) > utcnow()).values(run_after=utcnow()))
        return bool(sheets(user, card)[0]["status"] == "failed")

    until(has_failed)
    assert sheets(user, card)[0]["error"]


def test_it_can_be_cancelled_and_deleted(user: Site) -> None:  # noqa: F811
    card = upload(user)
    generation = sheets(user, card)[0]["generation_id"]
    user.client.post(f"/api/generations/{generation}/cancel", headers=user.headers)
    assert sheets(user, card)[0]["status"] == "cancelled"
    assert user.client.delete(f"/api/generations/{generation}", headers=user.headers).status_code == 204
    assert sheets(user, card) == []


def left(runtime: Runtime) -> list[int]:
    with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        files = ctx.session.exec(select(StorageObject).where(StorageObject.subject_kind == service.KIND)).all()
        return [len(ctx.session.exec(select(table)).all()) for table in (LoraSheet, Generation)] + [len(files)]


@both_databases
def test_it_goes_with_its_card(
    user: Site,  # noqa: F811
    people: People,
    bearer: Bearer,
    start_worker: Callable[[], Worker],
) -> None:
    waiting = upload(user)
    assert user.client.delete(f"/api/models/{waiting}", headers=bearer(people.admin)).status_code == 204
    assert left(user.runtime) == [0, 0, 0]
    start_worker()
    done = upload(user)
    wait_for(user, done)
    assert left(user.runtime)[:2] == [1, 1]
    assert user.client.delete(f"/api/models/{done}", headers=user.headers).status_code == 204
    assert left(user.runtime) == [0, 0, 0]


def begun(user: Site, engine: MockEngine, start_worker: Callable[[], Worker]) -> tuple[str, Worker]:  # noqa: F811
    """A card whose sheet runs, slowly, and who runs it."""
    engine.step_delay_s = 0.02
    card = upload(user)
    worker = start_worker()
    until(lambda: sheets(user, card)[0]["status"] == "running")
    return card, worker


def test_its_card_goes_while_it_runs(
    user: Site,  # noqa: F811
    engine: MockEngine,
    start_worker: Callable[[], Worker],
) -> None:
    card, _ = begun(user, engine, start_worker)
    assert user.client.delete(f"/api/models/{card}", headers=user.headers).status_code == 204
    with user.runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        job = ctx.session.exec(select(Job)).one()
    until(lambda: _state(user.runtime, job.id) == "cancelled")
    assert left(user.runtime) == [0, 0, 0]


def _state(runtime: Runtime, job_id: int | None) -> str:
    with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        job = ctx.session.get(Job, job_id)
        assert job is not None
        return job.state


def test_it_outlives_a_restart(
    user: Site,  # noqa: F811
    engine: MockEngine,
    start_worker: Callable[[], Worker],
) -> None:
    card, first = begun(user, engine, start_worker)
    first.stop()
    assert sheets(user, card)[0]["status"] == "queued"
    engine.step_delay_s = 0
    start_worker()
    assert wait_for(user, card)["status"] == "completed"


def test_a_storage_that_is_out_is_no_error(user: Site) -> None:  # noqa: F811
    with user.runtime.open_ctx(SYSTEM) as ctx:
        change_settings(ctx, {"auto_test_sheets": False})
    card = upload(user)
    with user.runtime.open_ctx(user.actor, read_only=True) as ctx:
        file = ctx.session.exec(select(StorageObject).where(StorageObject.bucket == Bucket.MODELS)).one()
    user.runtime.storage.delete(Bucket.MODELS, file.id)
    with pytest.raises(AppError):
        queue_sheet(user.runtime, user.actor.user_id, card)
    assert sheets(user, card) == []


def test_it_stands_while_people_render(
    user: Site,  # noqa: F811
    people: People,
    engine: MockEngine,
    start_worker: Callable[[], Worker],
) -> None:
    card, _ = begun(user, engine, start_worker)
    sheet = str(sheets(user, card)[0]["generation_id"])
    until(lambda: show(user.runtime, user.actor, sheet).step > 0)
    other = submit(user.runtime, people.user, order(steps=150))
    until(lambda: show(user.runtime, people.user, other).step > 2)
    stands = show(user.runtime, user.actor, sheet)
    assert (stands.status, stands.phase, stands.wait_reason) == ("running", "waiting", "Waits while others render.")
    assert finished(user.runtime, people.user, other).status == "completed"
    assert sheets(user, card)[0]["status"] == "running"
    shown = show(user.runtime, user.actor, sheet)
    assert shown.step - stands.step < shown.steps / 2, "it went on meanwhile, or began anew"
    done = wait_for(user, card)
    assert done["status"] == "completed"
    with user.runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        job = ctx.session.exec(select(Job).where(Job.priority == IDLE_PRIORITY)).one()
    assert job.started_at is not None
    assert job.finished_at is not None
    # The person's took three seconds.
    assert job.device_seconds < (job.finished_at - job.started_at).total_seconds() - 2.5


def test_what_it_waits_is_not_taken_for_its_steps() -> None:
    stopwatch = Stopwatch()
    for phase, step in ((Phase.LOADING, 0), (Phase.DENOISING, 1), (Phase.WAITING, 1)):
        stopwatch.note(Progress(phase, step, 3))
    time.sleep(0.3)
    for step in (1, 2, 3):
        stopwatch.note(Progress(Phase.DENOISING, step, 3))
    stopwatch.note(Progress(Phase.WAITING, 3, 3))
    time.sleep(0.3)
    stopwatch.note(Progress(Phase.DECODING, 3, 3))
    measured = stopwatch.measured()
    assert measured.units == 3
    assert measured.units_s + measured.overhead_s < 0.2

"""From the queue to stored pictures, on the mock engine."""

import io
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from PIL import Image
from sd_parsers import ParserManager
from sqlmodel import col

from tests.conftest import People
from tests.generation.conftest import finished, make_card, order, show, submit
from tests.jobs.conftest import until
from tests.postgres import both_databases
from visionsuit.accounts.tables import Account
from visionsuit.core.actor import SYSTEM
from visionsuit.core.errors import NotFound
from visionsuit.engine.base import OutOfDeviceMemory
from visionsuit.engine.mock import MockEngine
from visionsuit.generation import service
from visionsuit.generation.order import LoraOrder
from visionsuit.generation.sweep import sweep_outputs
from visionsuit.generation.tables import Generation, GenerationImage
from visionsuit.jobs import claims, presence
from visionsuit.jobs.claims import ClaimLost
from visionsuit.jobs.tables import RENDER_QUEUE, Job, Pace
from visionsuit.jobs.work import Work
from visionsuit.jobs.worker import Worker
from visionsuit.media.png import read_texts
from visionsuit.media.recipes import find_recipe
from visionsuit.modelcards.tables import ModelCard
from visionsuit.objects.tables import StorageObject
from visionsuit.runtime import Runtime
from visionsuit.schedule import HANDLERS, remove_lost_outputs
from visionsuit.storage.base import Bucket
from visionsuit.visibility import Visibility

pytestmark = both_databases


def read_output(runtime: Runtime, url: str) -> bytes:
    return runtime.storage.read_bytes(Bucket.OUTPUTS, url.rpartition("/")[2])


def outputs(runtime: Runtime) -> set[str]:
    return {found.object_id for found in runtime.storage.list_objects(Bucket.OUTPUTS)}


def change(runtime: Runtime, table: Any, **values: Any) -> None:
    with runtime.open_ctx(SYSTEM) as ctx:
        ctx.session.execute(sa.update(table).values(**values))


def test_a_request_becomes_pictures(site: Runtime, people: People, worker: Worker) -> None:
    done = finished(site, people.user, submit(site, people.user, order(count=3, seed=2**32 - 2)))
    assert done.status == "completed", done.error
    assert done.progress == 1.0
    assert [image.seed for image in done.images] == [2**32 - 2, 2**32 - 1, 0]
    assert done.duration_s is not None
    for image in done.images:
        picture = Image.open(io.BytesIO(read_output(site, image.url)))
        assert picture.size == (image.width, image.height) == (done.request.width, done.request.height)
        small = Image.open(io.BytesIO(read_output(site, image.thumb.small)))
        assert small.format == "WEBP"
        assert max(small.size) <= 320
        assert (image.thumb.placeholder or "").startswith("data:image/webp;base64,")
    assert len(outputs(site)) == len({url for i in done.images for url in (i.url, i.thumb.small, i.thumb.large)})


def test_the_png_carries_its_recipe_for_everybody(site: Runtime, people: People, worker: Worker) -> None:
    card = make_card(site, people.curator)
    wanted = order("a cat, <b>bold</b>: yes", negative_prompt="blurry", loras=(LoraOrder(card.public_id, weight=0.75),))
    done = finished(site, people.user, submit(site, people.user, wanted))
    data = read_output(site, done.images[0].url)
    text = Image.open(io.BytesIO(data)).text["parameters"]  # type: ignore[attr-defined]
    assert "a cat" in text
    assert "Negative prompt: blurry" in text
    assert "Seed: 7" in text
    assert "<lora:line_art:0.75>" in text
    parsed = ParserManager().parse(io.BytesIO(data))
    assert parsed is not None
    assert parsed.negative_prompts[0].value == "blurry"
    recipe = find_recipe(read_texts(data))
    assert recipe is not None
    assert (recipe.prompt, recipe.seed, recipe.steps) == ("a cat, <b>bold</b>: yes", 7, 3)
    assert len(recipe.loras[0].sha256 or "") == 64
    assert recipe.loras[0].model_id == card.public_id


def test_progress_and_preview_can_be_polled(site: Runtime, people: People, engine: MockEngine, worker: Worker) -> None:
    engine.step_delay_s = 0.03
    generation_id = submit(site, people.user, order(steps=60))
    until(lambda: show(site, people.user, generation_id).step > 5)
    shown = show(site, people.user, generation_id)
    assert shown.status == "running"
    assert shown.phase == "denoising"
    assert 0 < shown.progress < 1
    assert shown.steps == 60
    assert (shown.preview or "").startswith("data:image/webp;base64,")
    with site.open_ctx(people.user) as ctx:
        service.cancel(ctx, generation_id)
    finished(site, people.user, generation_id)


def test_a_running_render_stops_within_a_step(
    site: Runtime, people: People, engine: MockEngine, worker: Worker
) -> None:
    engine.step_delay_s = 0.3
    generation_id = submit(site, people.user, order(steps=100))
    until(lambda: show(site, people.user, generation_id).step >= 1)
    began = time.monotonic()
    with site.open_ctx(people.user) as ctx:
        service.cancel(ctx, generation_id)
    done = finished(site, people.user, generation_id)
    assert done.status == "cancelled"
    assert time.monotonic() - began < 10, "it went on to its end, which takes 30 s"
    assert done.images == []
    assert outputs(site) == set()


def test_a_failure_is_a_sentence_for_members_and_a_trace_for_administrators(
    site: Runtime, people: People, engine: MockEngine, worker: Worker
) -> None:
    engine.fail_with = ZeroDivisionError("secret path /srv")
    bug = finished(site, people.user, submit(site, people.user))
    engine.fail_with = OutOfDeviceMemory("The picture is too large for this device's memory.")
    full = finished(site, people.user, submit(site, people.user))
    assert bug.error is not None
    assert bug.error.code == "internal"
    assert "secret" not in bug.model_dump_json()
    assert full.error is not None
    assert (full.error.code, full.error.message) == (
        "out_of_memory",
        "The picture is too large for this device's memory.",
    )
    with site.open_ctx(SYSTEM, read_only=True) as ctx:
        traces = [job.error_trace for job in ctx.session.scalars(sa.select(Job))]
    assert any("secret path" in (trace or "") for trace in traces)
    engine.fail_with = None
    assert finished(site, people.user, submit(site, people.user)).status == "completed"


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("owner_may_not_render", lambda site: change(site, Account, is_active=False)),
        ("lora_gone", lambda site: change(site, ModelCard, visibility=Visibility.PRIVATE)),
    ],
)
def test_what_changed_while_it_waited_is_noticed(
    site: Runtime, people: People, start_worker: Callable[[], Worker], code: str, what: Callable[[Runtime], None]
) -> None:
    card = make_card(site, people.curator)
    generation_id = submit(site, people.user, order(loras=(LoraOrder(card.public_id),)))
    what(site)
    start_worker()
    done = finished(site, people.user, generation_id)
    assert done.status == "failed"
    assert done.error is not None
    assert done.error.code == code


def test_a_worker_that_lost_its_claim_leaves_nothing(
    site: Runtime, people: People, start_worker: Callable[[], Worker]
) -> None:
    """The first worker sleeps while storing; the job is given to another, which finishes; then the first wakes."""
    generation_id = submit(site, people.user)
    with site.open_ctx(SYSTEM) as ctx:
        claim = claims.claim(ctx, "sleeper", RENDER_QUEUE)
    assert claim is not None
    stale = Work(site, claim, threading.Event())
    finish_stale = HANDLERS[claim.kind](stale)
    with site.open_ctx(SYSTEM) as ctx:
        assert presence.take_back_stalled(ctx, after_s=-1) == 1
    start_worker()
    done = finished(site, people.user, generation_id)
    before = outputs(site)
    with pytest.raises(ClaimLost):
        finish_stale()
    assert outputs(site) == before
    assert show(site, people.user, generation_id).images == done.images
    with site.open_ctx(SYSTEM, read_only=True) as ctx:
        assert len(list(ctx.session.scalars(sa.select(GenerationImage)))) == 1
        assert set(ctx.session.scalars(sa.select(col(StorageObject.id)))) == before


def test_a_render_deleted_while_it_runs_leaves_nothing(
    site: Runtime, people: People, engine: MockEngine, worker: Worker
) -> None:
    engine.step_delay_s = 0.05
    generation_id = submit(site, people.user, order(steps=40))
    until(lambda: show(site, people.user, generation_id).step >= 1)
    with site.open_ctx(people.user) as ctx:
        service.delete(ctx, generation_id)

    def ended() -> bool:
        with site.open_ctx(SYSTEM, read_only=True) as ctx:
            return all(job.state == "cancelled" for job in ctx.session.scalars(sa.select(Job)))

    until(ended)
    assert outputs(site) == set()
    finished(site, people.user, kept := submit(site, people.user, order(steps=1)))
    remove_lost_outputs(site)
    with site.open_ctx(SYSTEM, read_only=True) as ctx:
        assert [job.public_id for job in ctx.session.scalars(sa.select(Job))] == [kept]


def waits_for_a_lock(runtime: Runtime) -> bool:
    """Whether somebody does, in PostgreSQL."""
    query = sa.text("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")
    with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        return ctx.connection.execute(query).first() is not None


def test_of_two_deletes_at_once_the_second_finds_nothing(site: Runtime, people: People) -> None:
    generation_id = submit(site, people.user)
    outcomes: list[BaseException | None] = []

    def delete() -> None:
        try:
            with site.open_ctx(people.user) as ctx:
                service.delete(ctx, generation_id)
            outcomes.append(None)
        except Exception as error:
            outcomes.append(error)

    second = threading.Thread(target=delete)
    with site.open_ctx(people.user) as ctx:
        service.delete(ctx, generation_id)
        second.start()
        if site.database.dialect.name == "postgresql":
            until(lambda: waits_for_a_lock(site))
    second.join()
    [outcome] = outcomes
    assert isinstance(outcome, NotFound), outcome


def test_deleting_a_finished_render_removes_rows_and_files(site: Runtime, people: People, worker: Worker) -> None:
    generation_id = submit(site, people.user, order(count=2))
    finished(site, people.user, generation_id)
    with site.open_ctx(people.user) as ctx:
        service.delete(ctx, generation_id)
    assert outputs(site) == set()
    with site.open_ctx(SYSTEM, read_only=True) as ctx:
        for table in (Generation, GenerationImage, Job, StorageObject):
            assert list(ctx.session.scalars(sa.select(table))) == []


def test_speed_is_learnt(site: Runtime, people: People, engine: MockEngine, worker: Worker) -> None:
    engine.step_delay_s = 0.02
    finished(site, people.user, submit(site, people.user, order(steps=20)))
    with site.open_ctx(SYSTEM, read_only=True) as ctx:
        pace = ctx.session.scalars(sa.select(Pace)).one()
    assert 0.015 < pace.seconds_per_unit < 0.2


def test_waiting_to_be_stored_is_no_part_of_what_is_learnt(site: Runtime, people: People) -> None:
    submit(site, people.user)
    with site.open_ctx(SYSTEM) as ctx:
        claim = claims.claim(ctx, "w", RENDER_QUEUE)
    assert claim is not None
    began = time.monotonic()
    finish = HANDLERS[claim.kind](Work(site, claim, threading.Event()))
    own_s = time.monotonic() - began
    # Others are stored meanwhile.
    time.sleep(1)
    began = time.monotonic()
    finish()
    own_s += time.monotonic() - began
    with site.open_ctx(SYSTEM, read_only=True) as ctx:
        pace = ctx.session.scalars(sa.select(Pace)).one()
    assert 0 < pace.overhead_s < own_s


def test_two_people_take_turns(
    site: Runtime, people: People, engine: MockEngine, start_worker: Callable[[], Worker]
) -> None:
    engine.step_delay_s = 0.01
    made = [submit(site, people.user) for _ in range(3)] + [submit(site, people.other_user) for _ in range(3)]
    start_worker()
    shown = [finished(site, people.admin, generation_id) for generation_id in made]
    order_run = sorted(range(6), key=lambda number: shown[number].started_at or shown[number].created_at)
    assert [number // 3 for number in order_run] in (
        [0, 1] * 3,
        [0, 1, 1, 0, 0, 1],
        [0, 1, 0, 1, 1, 0],
        [0, 1, 1, 0, 1, 0],
    )


def test_outputs_are_their_owners(site: Runtime, people: People, worker: Worker) -> None:
    done = finished(site, people.user, submit(site, people.user))
    object_id = done.images[0].url.rpartition("/")[2]
    thumb_id = done.images[0].thumb.small.rpartition("/")[2]
    for name, expected in (
        ("user", True),
        ("admin", True),
        ("other_user", False),
        ("curator", False),
        ("guest", False),
    ):
        with site.open_ctx(getattr(people, name), read_only=True) as ctx:
            assert service.sees_output(ctx, object_id) is expected
            assert service.sees_output(ctx, thumb_id) is expected
            assert service.sees_generation(ctx, done.id) is expected


def test_files_without_rows_are_swept_and_others_stay(site: Runtime, people: People, worker: Worker) -> None:
    finished(site, people.user, submit(site, people.user))
    kept = outputs(site)
    site.storage.put(Bucket.OUTPUTS, "lost-by-a-dead-process", [b"png"])
    assert sweep_outputs(site) == 0  # young: somebody may be about to write its row
    assert sweep_outputs(site, keep_for=timedelta(seconds=-1)) == 1
    assert outputs(site) == kept

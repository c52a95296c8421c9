"""B1 as people see it: eight requests with mixes of their own, through the queue to stored files and thumbnails,
against diffusers' `set_adapters` one by one with the adapters loaded already, each picture saved as PNG.
"""

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from sqlmodel import col, select

from benchmarks.harness import Figure, at_once, compare
from benchmarks.site import open_site, render_queued
from benchmarks.subjects import PEOPLE, Pixels, Subject, small_subjects
from visionsuit.accounts.identity import actor_of
from visionsuit.accounts.service import add_account
from visionsuit.core.actor import SYSTEM, Actor, Role
from visionsuit.generation.order import LoraOrder, Order
from visionsuit.generation.tables import BaseModel
from visionsuit.jobs.worker import Worker
from visionsuit.modelcards.service import create_card
from visionsuit.objects.service import Subject as Owner
from visionsuit.objects.service import store
from visionsuit.runtime import Runtime
from visionsuit.schedule import HANDLERS
from visionsuit.storage.base import Bucket
from visionsuit.visibility import Visibility


def run() -> list[Figure]:
    torch.set_num_threads(1)
    with small_subjects() as (tiny, topology, _):
        return [people(tiny, 3.0), people(topology, 4.0)]


def people(subject: Subject, target: float, *, rounds: int = 5) -> Figure:
    requests = [subject.request(number) for number in range(PEOPLE)]
    pipe = subject.pipeline()
    subject.load_loras(pipe, subject.loras)
    last: dict[str, list[Pixels]] = {}

    def theirs() -> None:
        last["theirs"] = []
        for request in requests:
            subject.set_mix(pipe, request)
            pixels = subject.plain(pipe, request)
            Image.fromarray(pixels.astype(np.uint8)).save(io.BytesIO(), "PNG")
            last["theirs"].append(pixels)

    with open_site(models_dir=subject.folder.parent, auto_test_sheets=False) as (runtime, _):
        actors = _members(runtime)
        orders = _orders(runtime, subject, actors[0])
        worker = Worker(runtime, HANDLERS, warm_up_after_s=0)
        worker.start()

        def ours() -> None:
            last["ours"] = _render_all(runtime, actors, orders)

        try:
            return compare(
                "B1", f"{subject.name}: {PEOPLE} people's mixes from queue to stored files / "
                "diffusers set_adapters one by one, speed-up",
                ours, theirs, target=target, faster_is_more=True, rounds=rounds,
                correct=lambda: subject.same(last["ours"], last["theirs"]),
            )  # fmt: skip
        finally:
            worker.stop()


def _members(runtime: Runtime) -> list[Actor]:
    with runtime.open_ctx(SYSTEM) as ctx:
        accounts = [
            add_account(ctx, email=f"m{n}@example.org", name=f"Member {n}", password_hash="!", role=Role.CURATOR)
            for n in range(PEOPLE)
        ]
        return [actor_of(account) for account in accounts]


def _orders(runtime: Runtime, subject: Subject, owner: Actor) -> list[Order]:
    """The subject's requests as people send them; its LoRAs become cards."""
    cards: dict[str, str] = {}
    with runtime.open_ctx(owner) as ctx:
        base = ctx.session.exec(select(BaseModel).where(col(BaseModel.folder) == subject.folder.name)).one()
        base_id = base.public_id
        for lora in subject.loras:
            data = lora.path.read_bytes()
            file = store(ctx, Bucket.MODELS, data, Owner("model", "x"), mime="application/octet-stream")
            card = create_card(
                ctx, title=lora.path.stem, object_id=file.id, file_name=lora.path.name, size_bytes=len(data),
                sha256=lora.sha256, visibility=Visibility.PUBLIC,
            )  # fmt: skip
            cards[lora.sha256] = card.public_id
    requests = [subject.request(number) for number in range(PEOPLE)]
    return [
        Order(
            request.prompt, base_model_id=base_id, width=request.width, height=request.height, steps=request.steps,
            guidance=request.guidance, seed=request.seeds[0], sampler=request.sampler, schedule=request.schedule,
            loras=tuple(LoraOrder(cards[lora.sha256], weight=lora.weight) for lora in request.loras),
        )
        for request in requests
    ]  # fmt: skip


def _render_all(runtime: Runtime, actors: Sequence[Actor], orders: Sequence[Order]) -> list[Pixels]:
    """Everybody in a thread of their own; the pictures as they lie in the storage."""
    made: dict[int, Pixels] = {}

    def person(number: int) -> None:
        shown = render_queued(runtime, actors[number], orders[number])
        data = runtime.storage.read_bytes(Bucket.OUTPUTS, shown.images[0].url.rpartition("/")[2])
        made[number] = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(np.int16)

    at_once(person, len(orders))
    return [made[number] for number in range(len(orders))]

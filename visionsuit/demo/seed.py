"""Fill a demonstration library: LoRAs made for the base model, pictures rendered here and now. Nothing is downloaded.

Everything goes the way a person's work goes: uploads through drafts, renders through the queue, results saved to
galleries. Seeding again adds what is missing and leaves the rest.
"""

import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from visionsuit.accounts.identity import actor_of
from visionsuit.accounts.passwords import hash_password
from visionsuit.accounts.queries import find_by_email
from visionsuit.accounts.service import add_account
from visionsuit.core.actor import SYSTEM, Actor, Role
from visionsuit.core.errors import Unavailable
from visionsuit.galleries.queries import counts_of, find_own_gallery
from visionsuit.generation import base_models
from visionsuit.generation import service as generation
from visionsuit.generation.order import LoraOrder, Order
from visionsuit.generation.run import HANDLERS
from visionsuit.generation.save import save
from visionsuit.jobs.tables import JobState
from visionsuit.jobs.worker import Worker
from visionsuit.modelcards.queries import find_version_by_sha256
from visionsuit.runtime import Runtime
from visionsuit.uploads import service as uploads
from visionsuit.uploads.drafts import Announced, open_draft
from visionsuit.uploads.tables import DraftKind, FileRole
from visionsuit.visibility import Visibility

EMAIL = "demo@visionsuit.invalid"
NAME = "VisionSuit Demo"
LORAS_FOLDER = "demo-loras"
PICTURES_PER_GALLERY = 10
#: Below the bound of waiting renders a person.
RENDERS_AT_ONCE = 3
CHUNK_BYTES = 1 << 20
#: A tiny model needs about a second a picture; past this something is broken.
RENDER_DEADLINE_S = 600

Say = Callable[[str], None]


class DemoRenderFailed(Unavailable):
    code = "demo_render_failed"


@dataclass(frozen=True, slots=True)
class DemoLora:
    """A LoRA of the demonstration: its card on the site and what its `card.json` says of it."""

    model_id: str
    title: str
    trigger: str
    weight: float
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scene:
    """A gallery to fill: one picture a prompt, all with the same mix."""

    title: str
    tags: tuple[str, ...]
    orders: tuple[Order, ...]


def seed(runtime: Runtime, say: Say) -> None:
    """Raises: DemoRenderFailed when the engine cannot render; what was made until then stays."""
    actor = demo_actor(runtime)
    loras = [upload_lora(runtime, actor, folder, say) for folder in lora_folders(runtime.settings.models_dir)]
    with runtime.open_ctx(actor, read_only=True) as ctx:
        base = base_models.get_offered(ctx, None)
        prompts = [str(prompt) for prompt in base.suggestions][:PICTURES_PER_GALLERY]
    wanted = [scene for scene in plan(prompts, loras) if not is_filled(runtime, actor, scene)]
    if not wanted:
        say("The demonstration library is complete.")
        return
    worker = Worker(runtime, HANDLERS, warm_up_after_s=0)
    worker.start()
    try:
        fill(runtime, actor, wanted, say)
    finally:
        worker.stop()
        runtime.engine.close()
    say(f"Done: {len(loras)} LoRAs, {sum(len(scene.orders) for scene in wanted)} pictures in {len(wanted)} galleries.")


def demo_actor(runtime: Runtime) -> Actor:
    """The curator who owns the demonstration. Nobody knows the password; an administrator may set one."""
    with runtime.open_ctx(SYSTEM) as ctx:
        account = find_by_email(ctx.session, EMAIL) or add_account(
            ctx,
            email=EMAIL,
            name=NAME,
            bio="Made by the app to show what it does.",
            password_hash=hash_password(secrets.token_urlsafe(32)),
            role=Role.CURATOR,
        )
    return actor_of(account)


def lora_folders(models_dir: Path) -> list[Path]:
    """Folders with a `card.json`, one LoRA and a cover each."""
    return sorted(path.parent for path in (models_dir / LORAS_FOLDER).glob("*/card.json"))


def upload_lora(runtime: Runtime, actor: Actor, folder: Path, say: Say) -> DemoLora:
    """Upload one LoRA as a person would, unless its bytes are in the library already."""
    card: dict[str, Any] = json.loads((folder / "card.json").read_text())
    weights = folder / f"{folder.name}.safetensors"
    tags = tuple(str(tag) for tag in card.get("tags", ()))

    def as_lora(model_id: str) -> DemoLora:
        return DemoLora(model_id, card["title"], card["trigger"], float(card.get("weight", 1.0)), tags)

    digest = sha256(weights.read_bytes()).hexdigest()
    with runtime.open_ctx(actor, read_only=True) as ctx:
        known = find_version_by_sha256(ctx, digest)
    if known:
        return as_lora(known[0].public_id)
    files = [(weights, FileRole.WEIGHTS), (folder / "cover.png", FileRole.COVER)]
    with runtime.open_ctx(actor) as ctx:
        announced = [Announced(path.name, role, path.stat().st_size) for path, role in files]
        draft_id = open_draft(ctx, DraftKind.MODEL, announced).public_id
    for number, (path, _) in enumerate(files):
        uploads.receive_draft_file(runtime, actor, draft_id, number, read_chunks(path))
    metadata = {
        "title": card["title"],
        "trigger": card["trigger"],
        "description": card.get("description", ""),
        "type": card.get("type", "LORA"),
        "base_model": card.get("base_model"),
        "tags": list(tags),
        "visibility": str(Visibility.PUBLIC),
    }
    model_id = uploads.publish_draft(
        runtime,
        actor,
        draft_id,
        metadata,
        show_model=lambda _, made: made.public_id,
        show_images=lambda *_: "",
    )
    say(f"Uploaded the LoRA “{card['title']}”.")
    return as_lora(model_id)


def read_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def plan(prompts: list[str], loras: list[DemoLora]) -> list[Scene]:
    """One gallery of mixes of two, one for each LoRA, and one without any."""
    scenes = []
    if len(loras) >= 2:
        orders = []
        for i, prompt in enumerate(prompts):
            first, second = loras[i % len(loras)], loras[(i + 1) % len(loras)]
            mix = (
                LoraOrder(first.model_id, weight=round(first.weight * 0.5, 2)),
                LoraOrder(second.model_id, weight=round(second.weight * 0.5, 2)),
            )
            orders.append(Order(f"{prompt}, {first.trigger}", seed=501 + i, loras=mix))
        scenes.append(Scene("Mixes of two", ("demo", "mix"), tuple(orders)))
    for lora in loras:
        orders = [
            Order(f"{prompt}, {lora.trigger}", seed=101 + i, loras=(LoraOrder(lora.model_id, weight=lora.weight),))
            for i, prompt in enumerate(prompts)
        ]
        scenes.append(Scene(lora.title, ("demo", *lora.tags), tuple(orders)))
    scenes.append(
        Scene("First light", ("demo",), tuple(Order(prompt, seed=11 + i) for i, prompt in enumerate(prompts)))
    )
    return scenes


def is_filled(runtime: Runtime, actor: Actor, scene: Scene) -> bool:
    with runtime.open_ctx(actor, read_only=True) as ctx:
        gallery = find_own_gallery(ctx, scene.title)
        if gallery is None or gallery.id is None:
            return False
        images, _ = counts_of(ctx, [gallery.id]).get(gallery.id, (0, 0))
    return images >= len(scene.orders)


def fill(runtime: Runtime, actor: Actor, scenes: list[Scene], say: Say) -> None:
    """Render the scenes' pictures through the queue and keep each. A picture of every scene in turn, so that lists
    of the newest show them side by side, and one of each at a time, so that the engine shares its steps among them."""
    total = sum(len(scene.orders) for scene in scenes)
    done = 0
    for turn in range(max(len(scene.orders) for scene in scenes)):
        for few in batched([scene for scene in scenes if turn < len(scene.orders)], RENDERS_AT_ONCE):
            with runtime.open_ctx(actor) as ctx:
                waiting = [(scene, generation.submit(ctx, scene.orders[turn]).public_id) for scene in few]
            for scene, public_id in waiting:
                wait_for(runtime, actor, public_id)
                save(runtime, actor, public_id, gallery_title=scene.title, visibility=Visibility.PUBLIC)
                done += 1
                say(f"{done} of {total}: {scene.orders[turn].prompt}")


def batched(scenes: list[Scene], size: int) -> Iterator[list[Scene]]:
    for start in range(0, len(scenes), size):
        yield scenes[start : start + size]


def wait_for(runtime: Runtime, actor: Actor, generation_id: str) -> None:
    """Until the render is completed. Whichever process's worker took it, its row tells."""
    deadline = time.monotonic() + RENDER_DEADLINE_S
    while time.monotonic() < deadline:
        with runtime.open_ctx(actor, read_only=True) as ctx:
            job = generation.job_of(ctx, generation.get_generation(ctx, generation_id))
        if job.state == JobState.COMPLETED:
            return
        if job.state in (JobState.FAILED, JobState.CANCELLED):
            raise DemoRenderFailed(f"A picture could not be rendered: {job.error_message or job.state}")
        time.sleep(0.05)
    raise DemoRenderFailed(f"A picture took longer than {RENDER_DEADLINE_S} s.")

"""What the worker does with a render request: check again, render, store, write down.

First half (`render`, on the device thread): `prepare` finds out whether the request is still good, then the engine
runs with no transaction open. Second half (`_store`, beside the device): files first, then rows and the job's
completion in one transaction that fails if the claim was lost; then the files go too.
"""

import base64
import io
import time
from dataclasses import replace
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from PIL import Image

from visionsuit.core.actor import SYSTEM
from visionsuit.core.ids import new_id
from visionsuit.engine.base import Phase, Picture, Progress
from visionsuit.generation.cells import cells_of
from visionsuit.generation.modes import steps_of_request
from visionsuit.generation.parts import render_all
from visionsuit.generation.prepare import RequestGone, Task, prepare
from visionsuit.generation.queries import lock_id
from visionsuit.generation.recipe import recipe_of
from visionsuit.generation.service import KIND
from visionsuit.generation.sheet_picture import draw_sheet
from visionsuit.generation.tables import GenerationImage
from visionsuit.jobs import claims
from visionsuit.jobs.pace import Measured, learn
from visionsuit.jobs.work import Finish, Handler, Work, WorkStopped
from visionsuit.media.png import encode_png
from visionsuit.media.previews import Previews, preview_array
from visionsuit.media.recipe import Recipe
from visionsuit.media.recipes import own_texts
from visionsuit.objects.service import StoredFile, Subject, adopt_all, write
from visionsuit.runtime import Ctx, Runtime
from visionsuit.storage.base import Bucket

_INSERT_IMAGES = sa.insert(GenerationImage.__table__)  # type: ignore[attr-defined]


class Stopwatch:
    """Splits a render's time into loading, steps and the rest, for the estimates. While it waits, for others on the
    device or to be stored, it stands still."""

    def __init__(self) -> None:
        self._began = self._last_step = time.monotonic()
        self._waits_since: float | None = None
        self._steps = 0

    def note(self, progress: Progress) -> None:
        if progress.phase is Phase.WAITING:
            self.stand()
            return
        now = self.go_on()
        if progress.phase in (Phase.LOADING, Phase.ENCODING) and not self._steps:
            # Up to the first step it is mostly loading, which later renders of this model do not pay.
            self._began = self._last_step = now
        elif progress.phase is Phase.DENOISING:
            self._last_step, self._steps = now, progress.step

    def stand(self) -> None:
        self._waits_since = self._waits_since or time.monotonic()

    def go_on(self) -> float:
        """Answers what time it is."""
        now = time.monotonic()
        if self._waits_since is not None:
            waited = now - self._waits_since
            self._began, self._last_step, self._waits_since = self._began + waited, self._last_step + waited, None
        return now

    def measured(self) -> Measured:
        now = time.monotonic()
        return Measured(units=self._steps, units_s=self._last_step - self._began, overhead_s=now - self._last_step)


def render(work: Work) -> Finish:
    """First half. Job payload: `{"generation_id"}`.

    Raises:
        AppError, EngineError: with a sentence for the owner.
        WorkStopped, RenderCancelled: the job was cancelled or taken away, or its request deleted.
    """
    runtime = work.runtime
    work.progress(Phase.LOADING, 0, 0)
    try:
        task = prepare(runtime, work.claim.payload["generation_id"])
    except RequestGone as error:
        raise WorkStopped from error
    stopwatch = Stopwatch()
    #: Of the last step that had one: who asks between two of them sees it too.
    preview: dict[str, Any] = {}

    def on_progress(progress: Progress) -> None:
        stopwatch.note(progress)
        if progress.preview is not None:
            preview["preview"] = encode_preview(progress.preview)
        work.progress(progress.phase, progress.step, progress.steps, **preview)

    if work.is_stopped():
        raise WorkStopped
    requests = [replace(request, background=work.claim.is_idle) for request in task.for_engine]
    rendered = render_all(
        runtime.engine, requests, second=task.second, on_progress=on_progress, is_cancelled=work.is_stopped
    )
    by_place = dict(zip(task.places, rendered, strict=True))
    pictures = [by_place[place] for place in range(len(by_place))]
    stopwatch.stand()
    return lambda: _store(work, task, pictures, stopwatch)


#: Job kind -> what a worker runs.
HANDLERS: dict[str, Handler] = {KIND: render}


def encode_preview(pixels: NDArray[np.uint8]) -> str:
    """uint8 [h, w, 3] -> data URI of a few kilobytes."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", quality=60, method=0)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"


def _store(work: Work, task: Task, pictures: list[Picture], stopwatch: Stopwatch) -> None:
    stopwatch.go_on()
    runtime, claim = work.runtime, work.claim
    total = steps_of_request(task.request)
    work.progress(Phase.SAVING, total, total)
    stored: list[StoredFile] = []
    try:
        rows = [
            _store_picture(runtime, task, number, picture, stored, recipe_of(task.request, cell))
            for number, (picture, cell) in enumerate(zip(pictures, cells_of(task.request), strict=True))
        ]
        if task.request.get("sheet"):
            rows.append(_store_sheet(runtime, task, pictures, stored))
        with runtime.open_ctx(SYSTEM) as ctx:
            claims.complete(ctx, claim, device_seconds=work.device_seconds)
            _write_rows(ctx, task, rows, stored)
            learn(ctx, claim.pace_key, claim.pace_size, stopwatch.measured())
    except BaseException:
        # The claim was lost, the request deleted, the disk full: what was written belongs to nobody.
        for file in stored:
            runtime.storage.delete(file.bucket, file.object_id)
        raise


def _store_sheet(runtime: Runtime, task: Task, pictures: list[Picture], stored: list[StoredFile]) -> dict[str, Any]:
    pixels = draw_sheet(task.request["sheet"], [picture.pixels for picture in pictures])
    recipe = recipe_of(task.request, cells_of(task.request)[0])
    row = _store_picture(runtime, task, len(pictures), Picture(pixels, task.request["seed"]), stored, recipe)
    return row | {"is_sheet": True}


def _store_picture(
    runtime: Runtime, task: Task, number: int, picture: Picture, stored: list[StoredFile], recipe: Recipe
) -> dict[str, Any]:
    """Write the picture's files, adding each to `stored`, and make its row of GenerationImage, but for the request's
    key."""

    def put(data: bytes, mime: str, file_name: str) -> StoredFile:
        file = write(runtime, Bucket.OUTPUTS, data, mime=mime, file_name=file_name)
        stored.append(file)
        return file

    name = f"visionsuit-{task.generation_id}-{number + 1}"
    previews: Previews = preview_array(picture.pixels)
    png = put(encode_png(picture.pixels, own_texts(recipe)), "image/png", f"{name}.png")
    large = put(previews.large.data, previews.large.mime, f"{name}-large{previews.large.suffix}")
    small = large
    if previews.small is not previews.large:
        small = put(previews.small.data, previews.small.mime, f"{name}-small{previews.small.suffix}")
    height, width = picture.pixels.shape[:2]
    return {
        "public_id": new_id(),
        "index": number,
        "seed": picture.seed,
        "object_id": png.object_id,
        "thumb_small_id": small.object_id,
        "thumb_large_id": large.object_id,
        "placeholder": previews.placeholder,
        "dhash": previews.dhash,
        "width": width,
        "height": height,
        "size_bytes": png.size_bytes,
        "sha256": png.sha256,
        "is_sheet": False,
    }


def _write_rows(ctx: Ctx, task: Task, rows: list[dict[str, Any]], stored: list[StoredFile]) -> None:
    generation_id = lock_id(ctx, task.generation_id)
    if generation_id is None:
        raise WorkStopped
    ctx.connection.execute(_INSERT_IMAGES, [row | {"generation_id": generation_id} for row in rows])
    adopt_all(ctx, stored, Subject(KIND, task.generation_id), owner_id=task.owner_id)

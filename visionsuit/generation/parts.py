"""A request whose pictures differ in more than the seed, or take two passes, on an engine that knows neither."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visionsuit.engine.base import (
    Engine,
    InitPicture,
    Phase,
    Picture,
    Progress,
    RenderCancelled,
    RenderRequest,
    steps_of,
)


@dataclass(frozen=True, slots=True)
class SecondPass:
    """Each picture again at a larger size, in pixels. `alone`: there is no first pass, it begins with the request's
    own picture, which has this size already."""

    width: int
    height: int
    steps: int
    strength: float
    alone: bool = False

    @property
    def steps_run(self) -> int:
        return steps_of(self.steps, self.strength)


def render_all(
    engine: Engine,
    requests: Sequence[RenderRequest],
    *,
    second: Sequence[SecondPass | None] = (),
    on_progress: Callable[[Progress], None],
    is_cancelled: Callable[[], bool],
) -> list[Picture]:
    """All pictures, in the order of `requests`; at once on an engine that shares its steps out. Progress counts the
    steps of all of them over both passes, and is told from one thread at a time.

    Args:
        second: for each of `requests`.

    Raises:
        EngineError: of the first that failed; the others are stopped.
    """
    passes = [second[number] if second else None for number in range(len(requests))]
    if len(requests) == 1 and passes[0] is None:
        return engine.render(requests[0], on_progress=on_progress, is_cancelled=is_cancelled)
    lock = threading.Lock()
    failed = threading.Event()
    done = [0] * len(requests)
    total = sum(_steps(request, after) for request, after in zip(requests, passes, strict=True))

    def render(number: int) -> list[Picture]:
        def note(progress: Progress) -> None:
            with lock:
                done[number] = max(done[number], progress.step)
                # What another part or pass has begun is not begun again; where one waits for others, all do.
                begun = 0 < sum(done) < total and progress.phase is not Phase.WAITING
                phase = Phase.DENOISING if begun else progress.phase
                on_progress(replace(progress, phase=phase, step=sum(done), steps=total))

        def is_over() -> bool:
            with lock:
                return failed.is_set() or is_cancelled()

        try:
            return _render_passes(engine, requests[number], passes[number], note, is_over)
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(max(1, min(len(requests), engine.concurrency)), "render-part") as threads:
        futures = [threads.submit(render, number) for number in range(len(requests))]
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        # Those that were stopped because of the first say only that.
        raise next((error for error in errors if not isinstance(error, RenderCancelled)), errors[0])
    return [picture for future in futures for picture in future.result()]


def enlarge(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """[h, w, 3] -> [height, width, 3], by Lanczos' filter."""
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))


def _render_passes(
    engine: Engine,
    request: RenderRequest,
    second: SecondPass | None,
    on_progress: Callable[[Progress], None],
    is_cancelled: Callable[[], bool],
) -> list[Picture]:
    if second is None:
        return engine.render(request, on_progress=on_progress, is_cancelled=is_cancelled)
    if second.alone and request.init is not None:
        so_far, larger = 0, enlarge(request.init.pixels, second.width, second.height)
    else:
        firsts = engine.render(request, on_progress=on_progress, is_cancelled=is_cancelled)
        so_far = request.steps_run * len(request.seeds)
        larger = np.stack([enlarge(first.pixels, second.width, second.height) for first in firsts])
    again = replace(
        request,
        width=second.width,
        height=second.height,
        steps=second.steps,
        init=InitPicture(larger, second.strength),
        variation=None,
    )

    def note(progress: Progress) -> None:
        on_progress(replace(progress, step=so_far + progress.step))

    return engine.render(again, on_progress=note, is_cancelled=is_cancelled)


def _steps(request: RenderRequest, second: SecondPass | None) -> int:
    first = 0 if second is not None and second.alone else request.steps_run
    return (first + (second.steps_run if second else 0)) * len(request.seeds)

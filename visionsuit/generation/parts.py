"""A request whose pictures differ in prompt or mix, on an engine that knows one prompt and one mix a request."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from visionsuit.engine.base import Engine, Picture, Progress, RenderCancelled, RenderRequest


def render_all(
    engine: Engine,
    requests: Sequence[RenderRequest],
    *,
    on_progress: Callable[[Progress], None],
    is_cancelled: Callable[[], bool],
) -> list[Picture]:
    """All pictures, in the order of `requests`; at once on an engine that shares its steps out. Progress counts the
    steps of all of them, and is told from one thread at a time.

    Raises:
        EngineError: of the first that failed; the others are stopped.
    """
    if len(requests) == 1:
        return engine.render(requests[0], on_progress=on_progress, is_cancelled=is_cancelled)
    lock = threading.Lock()
    failed = threading.Event()
    done = [0] * len(requests)
    total = sum(request.steps * len(request.seeds) for request in requests)

    def render(number: int) -> list[Picture]:
        def note(progress: Progress) -> None:
            with lock:
                done[number] = max(done[number], progress.step)
                on_progress(replace(progress, step=sum(done), steps=total))

        def is_over() -> bool:
            with lock:
                return failed.is_set() or is_cancelled()

        try:
            return engine.render(requests[number], on_progress=note, is_cancelled=is_over)
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

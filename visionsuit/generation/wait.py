"""Answers that come when a render is done: `Prefer: wait=30` (RFC 7240), so that a script needs one request."""

import asyncio
import re
import time
from contextlib import ExitStack, suppress

from anyio.to_thread import run_sync

from visionsuit.bus import Message, call_on_loop
from visionsuit.core.actor import Actor
from visionsuit.generation.schemas import GenerationOut
from visionsuit.generation.view import generation_out
from visionsuit.jobs.events import job_topic
from visionsuit.jobs.tables import FINISHED, JobState
from visionsuit.runtime import Runtime

#: Proxies break off what is silent for longer.
LONGEST_S = 60
#: Without a message for this long the rows are read: another process may be rendering.
_POLL_S = 2.0

_WAIT = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?=[,;]|$)', re.ASCII | re.IGNORECASE)


def wait_of(prefer: str) -> int:
    """Seconds that a `Prefer` header asks to wait, at most LONGEST_S; 0 if it does not."""
    found = _WAIT.search(prefer)
    return min(int(found[1]), LONGEST_S) if found else 0


class Ending:
    """Hears from a render that may be over. Made on the event loop; its `with` block lasts while somebody waits."""

    def __init__(self, runtime: Runtime, actor: Actor) -> None:
        self._runtime, self._actor = runtime, actor
        self._loop = asyncio.get_running_loop()
        self._heard = asyncio.Event()
        self._listening = ExitStack()
        self.generation_id = ""

    def listen(self, generation_id: str) -> None:
        """From now on, in any thread. What ends before it has to be read."""
        self.generation_id = generation_id
        self._listening.enter_context(self._runtime.bus.subscribe(job_topic(generation_id), self._hear))

    def _hear(self, message: Message) -> None:
        if message["kind"] == "changed" and message.get("state") != JobState.RUNNING:
            call_on_loop(self._loop, self._heard.set)

    def __enter__(self) -> "Ending":
        return self

    def __exit__(self, *error: object) -> None:
        self._listening.close()

    async def wait(self, seconds: float) -> GenerationOut:
        """The render once it is over, or as it is after `seconds`. It costs a coroutine, not a thread.

        Raises:
            GenerationNotFound: there is none, or it is not the actor's to see; also when it is deleted meanwhile.
        """
        deadline = time.monotonic() + seconds
        while True:
            left_s = max(0.0, deadline - time.monotonic())
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, _POLL_S)):
                    await self._heard.wait()
            self._heard.clear()
            render = await self.read()
            if render.status in FINISHED or time.monotonic() >= deadline:
                return render

    async def read(self) -> GenerationOut:
        """Raises: GenerationNotFound"""
        return await run_sync(self._read)

    def _read(self) -> GenerationOut:
        with self._runtime.open_ctx(self._actor, read_only=True) as ctx:
            return generation_out(ctx, self.generation_id)

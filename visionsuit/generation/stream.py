"""Server-sent events of one render. A listener costs a coroutine; the database is read when something is unknown."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import suppress

from anyio.to_thread import run_sync

from visionsuit.core.actor import Actor
from visionsuit.generation.queries import get_with_job
from visionsuit.generation.schemas import ProgressOut
from visionsuit.generation.view import progress_out
from visionsuit.jobs.events import job_topic
from visionsuit.jobs.tables import FINISHED, JobState
from visionsuit.runtime import Runtime

#: Without a message for this long the rows are read: another process may be rendering.
_POLL_S = 1.0
#: While it waits only its place changes.
_POLL_WAITING_S = 2.0
#: Comment that keeps proxies from closing a silent stream.
_BEAT_S = 15.0
#: A viewer's connection carries no more pictures than eyes can tell apart.
_SEND_EVERY_S = 0.1
#: Then the stream ends and the browser comes again, with its rights looked up anew.
_LONGEST_S = 1800.0


def read_progress(runtime: Runtime, actor: Actor, generation_id: str) -> ProgressOut:
    """Raises: GenerationNotFound"""
    with runtime.open_ctx(actor, read_only=True) as ctx:
        return progress_out(ctx, *get_with_job(ctx, generation_id))


async def stream_progress(
    runtime: Runtime, actor: Actor, generation_id: str, last_event_id: int = 0
) -> AsyncGenerator[str]:
    """Event `progress` at every change and step, `done` at the end. Every event is complete, so a listener that
    missed some has missed nothing; ids count on from `last_event_id`.

    Raises:
        GenerationNotFound: before the first event: there is none, or it is not the actor's to see.
    """
    began = beaten = time.monotonic()
    number, sent = last_event_id, ""
    # Listening comes before reading: what happens in between is not lost. A request's job has the request's name;
    # where an earlier version gave it another, looking once a second has to do.
    async with runtime.bus.listen_async(job_topic(generation_id)) as inbox:
        state = await run_sync(read_progress, runtime, actor, generation_id)
        while True:
            text = state.model_dump_json()
            done = state.status in FINISHED
            if done or text != sent:
                number += 1
                sent = text
                yield f"id: {number}\nevent: {'done' if done else 'progress'}\ndata: {text}\n\n"
                beaten = time.monotonic()
            if done or time.monotonic() - began > _LONGEST_S:
                return
            message = await _next(inbox, _POLL_S if state.status == JobState.RUNNING else _POLL_WAITING_S)
            if message is not None and message["kind"] == "progress" and state.status == JobState.RUNNING:
                state = _stepped(state, message)
            else:
                state = await run_sync(read_progress, runtime, actor, generation_id)
            if time.monotonic() - beaten > _BEAT_S:
                yield ": still here\n\n"
                beaten = time.monotonic()


async def _next(inbox: "asyncio.Queue[dict]", timeout_s: float) -> dict | None:
    """The newest message, at once where the state changed; None if nothing comes for a while."""
    message = None
    # Not wait_for, which makes a task for every message.
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            message = await inbox.get()
        async with asyncio.timeout(_SEND_EVERY_S):
            while message["kind"] == "progress":
                message = await inbox.get()
    return message


def _stepped(state: ProgressOut, message: dict) -> ProgressOut:
    steps = message["steps"] or state.steps
    return state.model_copy(
        update={
            "phase": str(message["phase"]),
            "step": message["step"],
            "steps": steps,
            "progress": round(min(1.0, message["step"] / steps), 4) if steps else 0.0,
            "preview": message.get("preview") or state.preview,
        }
    )

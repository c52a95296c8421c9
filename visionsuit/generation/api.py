"""/api/base-models and /api/generations."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import Header, Query, Response
from fastapi.responses import StreamingResponse

from visionsuit.core.actor import Actor
from visionsuit.core.paging import DEFAULT_LIMIT, MAX_LIMIT
from visionsuit.engine.base import SAMPLERS, SCHEDULES, samplers_for
from visionsuit.galleries.out import gallery_tiles
from visionsuit.generation import service
from visionsuit.generation.base_models import default_of, list_offered
from visionsuit.generation.queries import count_renders
from visionsuit.generation.save import save
from visionsuit.generation.schemas import (
    BaseModelListOut,
    BaseModelOut,
    ChoiceOut,
    CountsOut,
    GenerationIn,
    GenerationListOut,
    GenerationOut,
    SavedOut,
    SaveIn,
)
from visionsuit.generation.stream import stream_progress
from visionsuit.generation.view import generation_out, generations_out
from visionsuit.generation.wait import LONGEST_S, Ending, wait_of
from visionsuit.images.out import image_tiles
from visionsuit.jobs.tables import FINISHED
from visionsuit.router import CtxDep, ReadCtxDep, Router
from visionsuit.runtime import Runtime
from visionsuit.site.stats import register_counter
from visionsuit.web import ActorDep, RuntimeDep, json_response

router = Router(tags=["generator"])
PreferHeader = Annotated[
    str, Header(description=f"`wait=` and how many seconds the answer may take, {LONGEST_S} at most.")
]
register_counter("generations", count_renders)


@router.get("/api/base-models", summary="What one can render with")
def list_base_models(ctx: ReadCtxDep) -> BaseModelListOut:
    """Base models with their defaults and limits, and the names of samplers and schedules."""
    offered = list_offered(ctx)
    copied = set(BaseModelOut.model_fields) - {"id", "samplers", "is_default"}
    return BaseModelListOut(
        items=[
            BaseModelOut(
                id=row.public_id,
                samplers=list(samplers_for(row.family)),
                is_default=row is default_of(offered),
                **row.model_dump(include=copied),
            )
            for row in offered
        ],
        samplers=[ChoiceOut(id=key, label=label) for key, label in SAMPLERS.items()],
        schedules=[ChoiceOut(id=key, label=label) for key, label in SCHEDULES.items()],
    )


@router.post(
    "/api/generations",
    status_code=202,
    summary="Render pictures",
    response_model=GenerationOut,
    responses={201: {"model": GenerationOut, "description": "It is over; the client preferred to wait for that."}},
)
async def create_generation(
    runtime: RuntimeDep, actor: ActorDep, body: GenerationIn, prefer: PreferHeader = ""
) -> Response:
    """Queues the request and answers at once; follow it at `Location` or by its events. With `Prefer: wait=30` the
    answer comes when the pictures are there, as 201, or after so many seconds, as 202.

    422 names the field at fault, also for a LoRA that does not fit the base model (`lora_incompatible`);
    429 `too_many_active` when 5 of yours wait or run.
    """
    seconds = wait_of(prefer)
    with Ending(runtime, actor) as ending:
        answer = await run_sync(_submit, runtime, actor, body, ending if seconds else None)
        if answer is None:
            answer = await ending.wait(seconds)
    location = {"Location": f"/api/generations/{answer.id}"}
    return json_response(answer, 201 if answer.status in FINISHED else 202, location | _applied(seconds))


def _submit(runtime: Runtime, actor: Actor, body: GenerationIn, ending: Ending | None) -> GenerationOut | None:
    """The render as it was queued, unless somebody waits for its `ending`."""
    order, prompts = service.check_ahead(runtime, actor, body.as_order())
    with runtime.open_ctx(actor) as ctx:
        render, job = service.submit_with_job(ctx, order, prompts=prompts)
        if ending is None:
            return generations_out(ctx, [(render, job)])[0]
        # Before the commit: nothing can have happened to it yet.
        ending.listen(render.public_id)
        return None


def _applied(seconds: int) -> dict[str, str]:
    return {"Preference-Applied": f"wait={seconds}"} if seconds else {}


@router.get("/api/generations", summary="One's own renders, newest first")
def list_generations(
    ctx: ReadCtxDep,
    status: Annotated[str | None, Query(max_length=32, description="A status, or `active`.")] = None,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
) -> GenerationListOut:
    page = service.list_generations(ctx, status=status, cursor=cursor, limit=limit)
    return GenerationListOut(items=generations_out(ctx, page.items), next_cursor=page.next_cursor)


@router.get("/api/generations/counts", summary="How many of one's own renders are in each state")
def count_generations(ctx: ReadCtxDep) -> CountsOut:
    return CountsOut(**service.count_by_status(ctx))


@router.get("/api/generations/{generation_id}", summary="One render", response_model=GenerationOut)
async def get_generation(
    runtime: RuntimeDep, actor: ActorDep, generation_id: str, prefer: PreferHeader = ""
) -> Response:
    """With `Prefer: wait=30` the answer comes when the render is over, or after so many seconds."""
    seconds = wait_of(prefer)
    with Ending(runtime, actor) as ending:
        ending.listen(generation_id)
        answer = await ending.read()
        if seconds and answer.status not in FINISHED:
            answer = await ending.wait(seconds)
    return json_response(answer, headers=_applied(seconds))


@router.get(
    "/api/generations/{generation_id}/events",
    summary="Progress as server-sent events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"example": 'event: progress\ndata: {"status":"running"}\n\n'}}}},
)
async def stream_generation(
    runtime: RuntimeDep,
    actor: ActorDep,
    generation_id: str,
    last_event_id: Annotated[str, Header()] = "",
) -> StreamingResponse:
    """`progress` at every step and change (the render without its request), `done` at the end, then the stream ends.
    Every event is complete, so coming back with Last-Event-ID misses nothing."""
    last = int(last_event_id) if last_event_id.isdecimal() and len(last_event_id) < 12 else 0
    events = stream_progress(runtime, actor, generation_id, last)
    # That there is no such render is an answer, not a stream that breaks off.
    first = await anext(events)
    return StreamingResponse(
        _from_first(first, events),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _from_first(first: str, events: AsyncGenerator[str]) -> AsyncIterator[str]:
    async with aclosing(events):
        yield first
        async for event in events:
            yield event


@router.post("/api/generations/{generation_id}/cancel", summary="Stop a render")
def cancel_generation(ctx: CtxDep, generation_id: str) -> GenerationOut:
    """Waiting: ends at once. Running: stops within a step. Finished: stays as it is."""
    service.cancel(ctx, generation_id)
    return generation_out(ctx, generation_id)


@router.post("/api/generations/{generation_id}/view", status_code=204, summary="Mark a render as looked at")
def view_generation(ctx: CtxDep, generation_id: str) -> None:
    service.mark_viewed(ctx, service.get_generation(ctx, generation_id))


@router.delete("/api/generations/{generation_id}", status_code=204, summary="Delete a render and its pictures")
def delete_generation(ctx: CtxDep, generation_id: str) -> None:
    """Cancels it first if need be. Pictures saved to galleries stay."""
    service.delete(ctx, generation_id)


@router.post("/api/generations/{generation_id}/save", summary="Keep pictures of a render as image pages")
def save_generation(runtime: RuntimeDep, actor: ActorDep, generation_id: str, body: SaveIn) -> SavedOut:
    """Copies the pictures with their recipe into one's images, and into a gallery if one is named. Saving a picture
    again makes no second page."""
    saved = save(
        runtime,
        actor,
        generation_id,
        gallery_id=body.gallery_id,
        gallery_title=body.gallery_title,
        visibility=body.visibility,
        image_ids=body.image_ids,
    )
    with runtime.open_ctx(actor, read_only=True) as ctx:
        gallery = None if saved.gallery is None else gallery_tiles(ctx, [saved.gallery])[0]
        return SavedOut(items=image_tiles(ctx, saved.images), gallery=gallery)

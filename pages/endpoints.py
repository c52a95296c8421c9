"""Named endpoints for `gradio_client`: a few calls of the REST API, same services, same permissions.

    client = Client("http://127.0.0.1:7860/", headers={"Authorization": "Bearer <token>"})
    job = client.predict("a red cat on a sofa", api_name="/generate")
    client.predict(job["id"], api_name="/job_status")

Answers are the JSON of the REST routes. They are the only Gradio functions of the site; any other is a mistake.
"""

from typing import Annotated, Any

import gradio as gr
from pydantic import BaseModel, Field

from pages.support import page_ctx, page_state, shows_errors
from visionsuit.core.paging import DEFAULT_LIMIT, MAX_LIMIT
from visionsuit.generation import service as generation
from visionsuit.generation.schemas import GenerationIn
from visionsuit.generation.view import generation_out
from visionsuit.images.out import image_tiles
from visionsuit.images.queries import list_images
from visionsuit.modelcards.out import model_tiles
from visionsuit.modelcards.queries import list_cards
from visionsuit.search.plan import ListRequest, Sort


class SearchIn(BaseModel):
    """Gradio checks no types: whatever a program sends stands here first."""

    query: str = Field("", max_length=2000)
    tags: list[str] = Field(default_factory=list, max_length=32)
    type: str | None = Field(None, max_length=40)
    base_model: str | None = Field(None, max_length=80)
    sort: Sort | None = None
    cursor: str | None = Field(None, max_length=2000)
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT

    def as_request(self) -> ListRequest:
        return ListRequest(
            q=self.query,
            tags=tuple(self.tags),
            type=self.type or None,
            base_model=self.base_model or None,
            sort=self.sort,
            cursor=self.cursor or None,
            limit=self.limit,
        )


class IdIn(BaseModel):
    id: str = Field(min_length=1, max_length=64)


@shows_errors
def generate(
    request: gr.Request,
    prompt: str,
    negative_prompt: str = "",
    base_model_id: str | None = None,
    width: int | None = None,
    height: int | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    seed: int | None = None,
    count: int = 1,
    sampler: str | None = None,
    schedule: str | None = None,
    loras: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Queue a render: POST /api/generations. `loras` are {"model_id", "weight"}. Poll /job_status with the `id`."""
    sent = GenerationIn.model_validate(
        {
            "prompt": prompt,
            "negative_prompt": negative_prompt or "",
            "base_model_id": base_model_id or None,
            "width": width,
            "height": height,
            "steps": steps,
            "guidance": guidance,
            "seed": seed,
            "count": count,
            "sampler": sampler or None,
            "schedule": schedule or None,
            "loras": loras or [],
        }
    )
    state = page_state(request)
    order, prompts = generation.check_ahead(state.runtime, state.actor, sent.as_order())
    with page_ctx(request) as ctx:
        return generation_out(ctx, generation.submit(ctx, order, prompts=prompts).public_id).model_dump(mode="json")


@shows_errors
def search_models(
    request: gr.Request,
    query: str = "",
    tags: list[str] | None = None,
    type: str | None = None,
    base_model: str | None = None,
    sort: str | None = None,
    cursor: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> dict[str, Any]:
    """Model cards that you find: GET /api/models."""
    sent = SearchIn.model_validate(
        {
            "query": query,
            "tags": tags or [],
            "type": type,
            "base_model": base_model,
            "sort": sort or None,
            "cursor": cursor,
            "limit": limit,
        }
    )
    with page_ctx(request, read_only=True) as ctx:
        found = list_cards(ctx, sent.as_request())
        items = [tile.model_dump(mode="json") for tile in model_tiles(ctx, found.rows)]
        return {"items": items, "next_cursor": found.next_cursor, "notes": found.notes}


@shows_errors
def search_images(
    request: gr.Request,
    query: str = "",
    tags: list[str] | None = None,
    sort: str | None = None,
    cursor: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> dict[str, Any]:
    """Images that you find: GET /api/images."""
    sent = SearchIn.model_validate(
        {"query": query, "tags": tags or [], "sort": sort or None, "cursor": cursor, "limit": limit}
    )
    with page_ctx(request, read_only=True) as ctx:
        found = list_images(ctx, sent.as_request())
        items = [tile.model_dump(mode="json") for tile in image_tiles(ctx, found.rows)]
        return {"items": items, "next_cursor": found.next_cursor, "notes": found.notes}


@shows_errors
def job_status(request: gr.Request, id: str) -> dict[str, Any]:
    """One of your renders: GET /api/generations/{id}."""
    wanted = IdIn(id=id)
    with page_ctx(request, read_only=True) as ctx:
        return generation_out(ctx, wanted.id).model_dump(mode="json")


@shows_errors
def cancel(request: gr.Request, id: str) -> dict[str, Any]:
    """Stop one of your renders: POST /api/generations/{id}/cancel."""
    wanted = IdIn(id=id)
    with page_ctx(request) as ctx:
        return generation_out(ctx, generation.cancel(ctx, wanted.id).public_id).model_dump(mode="json")


ENDPOINTS = (generate, search_models, search_images, job_status, cancel)


def build() -> None:
    """Declare them in the open Blocks. None waits in Gradio's queue: renders wait in the site's own."""
    for function in ENDPOINTS:
        gr.api(function, api_name=function.__name__, queue=False)

"""GET /api/tags: type-ahead."""

from typing import Annotated

from fastapi import Query
from pydantic import BaseModel

from visionsuit.router import ReadCtxDep, Router
from visionsuit.search.document import Kind
from visionsuit.search.tags import list_tags

router = Router(prefix="/api", tags=["explorer"])


class TagOut(BaseModel):
    name: str
    count: int


class TagsOut(BaseModel):
    items: list[TagOut]


@router.get("/tags")
def get_tags(
    ctx: ReadCtxDep,
    q: Annotated[str, Query(max_length=200)] = "",
    kind: Kind | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> TagsOut:
    """Tags that begin with `q`, most used first, counted over what everybody finds."""
    found = list_tags(ctx, q, kind=kind, limit=limit)
    return TagsOut(items=[TagOut(name=tag.name, count=tag.count) for tag in found])

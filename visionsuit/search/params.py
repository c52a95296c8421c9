"""Query parameters that every list takes."""

from typing import Annotated

from fastapi import Depends, Query

from visionsuit.core.paging import DEFAULT_LIMIT, MAX_LIMIT
from visionsuit.search.plan import ListRequest, Sort


class ReadListRequest:
    """A coroutine like `FromRequest`: a plain function would go through a thread of its own."""

    async def __call__(
        self,
        q: Annotated[
            str, Query(description='Words, "phrases", `tag:x`, `-tag:y`, `type:lora`, `base:sdxl`, `user:name`.')
        ] = "",
        tag: Annotated[list[str] | None, Query(description="All of them; repeat the parameter.")] = None,
        type: Annotated[str | None, Query(max_length=40)] = None,
        base_model: Annotated[str | None, Query(max_length=80, description="Name or family.")] = None,
        owner: Annotated[str | None, Query(max_length=64, description="A user's id, or `me`.")] = None,
        sort: Annotated[Sort | None, Query(description="Without: relevance if `q` has words, else newest.")] = None,
        cursor: Annotated[str | None, Query(max_length=2000)] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    ) -> ListRequest:
        return ListRequest(
            q=q,
            tags=tuple(tag or ())[:32],
            type=type or None,
            base_model=base_model or None,
            owner=owner or None,
            sort=sort,
            cursor=cursor or None,
            limit=limit,
        )


ListDep = Annotated[ListRequest, Depends(ReadListRequest())]

"""Routes that run in one go in one thread: transaction opened, function called, committed, answer written.

FastAPI would go through a thread of its pool for each of these, which costs more than most of the functions do.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, get_type_hints

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from visionsuit.core.actor import Actor
from visionsuit.runtime import Ctx, Runtime
from visionsuit.web import FromRequest, get_actor, get_runtime, json_response


class Router(APIRouter):
    """An APIRouter whose plain functions may take a `CtxDep` or a `ReadCtxDep`. The commit comes before the answer
    leaves: one that fails is no 200."""

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().add_api_route(path, _in_one_go(endpoint, options), **options)


class Opens:
    """Marks a parameter that gets the request's transaction."""

    def __init__(self, *, read_only: bool) -> None:
        self.read_only = read_only


CtxDep = Annotated[Ctx, Opens(read_only=False)]
#: Takes no write lock.
ReadCtxDep = Annotated[Ctx, Opens(read_only=True)]


def _who_asks(request: Request) -> tuple[Runtime, Actor]:
    return get_runtime(request), get_actor(request)


_WhoDep = Annotated[tuple[Runtime, Actor], Depends(FromRequest(_who_asks))]


def _in_one_go(endpoint: Callable[..., Any], options: dict[str, Any]) -> Callable[..., Any]:
    signature, hints = inspect.signature(endpoint), get_type_hints(endpoint, include_extras=True)
    modes = {
        name: mark.read_only
        for name, hint in hints.items()
        for mark in getattr(hint, "__metadata__", ())
        if isinstance(mark, Opens)
    }
    if inspect.iscoroutinefunction(endpoint):
        if modes:
            raise TypeError(
                f"{endpoint.__qualname__} is a coroutine: a transaction would hold up everybody's requests."
            )
        return endpoint
    answers, status = hints.get("return"), options.get("status_code") or 200
    # Headers that a function sets on its response would be lost by writing another.
    writes = inspect.isclass(answers) and issubclass(answers, BaseModel) and Response not in hints.values()

    def write(answer: Any) -> Any:
        return json_response(answer, status) if writes and type(answer) is answers else answer

    if not modes:
        return wraps(endpoint)(lambda **given: write(endpoint(**given))) if writes else endpoint
    ((name, read_only),) = modes.items()

    @wraps(endpoint)
    def run(**given: Any) -> Any:
        runtime, actor = given[name]
        with runtime.open_ctx(actor, read_only=read_only) as ctx:
            answer = endpoint(**{**given, name: ctx})
        return write(answer)

    parameters = [
        parameter.replace(annotation=_WhoDep if parameter.name == name else hints[parameter.name])
        for parameter in signature.parameters.values()
    ]
    run.__signature__ = signature.replace(parameters=parameters, return_annotation=signature.return_annotation)  # type: ignore[attr-defined]
    return run

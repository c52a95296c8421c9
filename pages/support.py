"""What pages need from Gradio: the caller's Ctx, and errors people can read."""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import gradio as gr
from pydantic import ValidationError

from visionsuit.core.actor import Actor
from visionsuit.core.errors import AppError
from visionsuit.runtime import Ctx, Runtime

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def page_ctx(request: gr.Request, *, read_only: bool = False) -> Iterator[Ctx]:
    """One transaction of the person behind a Gradio event."""
    state = page_state(request)
    with state.runtime.open_ctx(state.actor, read_only=read_only) as ctx:
        yield ctx


@dataclass(frozen=True, slots=True)
class PageState:
    runtime: Runtime
    actor: Actor


def page_state(request: gr.Request) -> PageState:
    """Process and person, as the edge put them into the request."""
    state = request.request.state
    return PageState(runtime=state.runtime, actor=state.actor)


def shows_errors(handler: Callable[P, R]) -> Callable[P, R]:
    """Turn an AppError or wrong types into an error the caller reads; anything else stays a bug, shown without detail.

    Raises:
        TypeError: `handler` is a generator, whose errors come after this wrapper has returned.
    """
    if inspect.isgeneratorfunction(handler):
        raise TypeError("A generator cannot be wrapped: answer with the job's id and poll instead.")

    @functools.wraps(handler)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return handler(*args, **kwargs)
        except AppError as error:
            text = f"{error.message} {error.hint}" if error.hint else error.message
            raise gr.Error(f"{text} [{error.code}]", print_exception=False) from error
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise gr.Error(f"{field}: {first['msg']} [invalid_input]", print_exception=False) from error

    return wrapper

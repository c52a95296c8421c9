"""Wires the REST application. app.py adds the pages on top."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

from visionsuit import __version__
from visionsuit.runtime import Runtime
from visionsuit.web import Edge, add_error_handlers

ROUTERS: list[APIRouter] = []


def create_api(runtime: Runtime) -> FastAPI:
    """REST under /api, /health and /docs, without any page."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield

    app = FastAPI(title="VisionSuit", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    add_error_handlers(app)
    for router in ROUTERS:
        app.include_router(router)
    return app


def guarded(app: FastAPI, runtime: Runtime) -> Edge:
    """`app` behind the guards: identity, origin, bounds, headers. This is what is served."""
    from visionsuit.accounts.identity import resolve_actor

    return Edge(app, runtime, lambda bearer, cookie: resolve_actor(runtime, bearer, cookie))

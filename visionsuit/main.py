"""Wires the REST application. app.py adds the pages on top."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio.to_thread import run_sync
from fastapi import APIRouter, FastAPI
from fastapi_offline import FastAPIOffline

from visionsuit import __version__
from visionsuit.accounts import api as accounts_api
from visionsuit.accounts import users_api
from visionsuit.accounts.identity import resolve_actor
from visionsuit.audit import api as audit_api
from visionsuit.downloads import api as downloads_api
from visionsuit.galleries import api as galleries_api
from visionsuit.generation import api as generation_api
from visionsuit.generation import base_models_api, lora_api, modes_api, prompt_api, queue_api
from visionsuit.generation.conflicts import METER
from visionsuit.images import api as images_api
from visionsuit.modelcards import api as modelcards_api
from visionsuit.runtime import Runtime
from visionsuit.schedule import Background
from visionsuit.search import api as search_api
from visionsuit.site import api as site_api
from visionsuit.uploads import api as uploads_api
from visionsuit.uploads import avatar_api
from visionsuit.web import Edge, add_error_handlers

#: The first is found soonest.
ROUTERS: list[APIRouter] = [
    generation_api.router,
    accounts_api.router,
    users_api.router,
    avatar_api.router,
    site_api.router,
    audit_api.router,
    downloads_api.router,
    uploads_api.router,
    modes_api.router,
    base_models_api.router,
    prompt_api.router,
    lora_api.router,
    queue_api.router,
    search_api.router,
    images_api.router,
    modelcards_api.router,
    galleries_api.router,
]

DESCRIPTION = """Galleries, a LoRA library, and a generator that mixes LoRAs.

Sign in with `POST /api/auth/login` and send the token as `Authorization: Bearer <token>`, or make an API token on
the account page. Errors have one shape: `{"error": {"code", "message", "field"?, "hint"?, "request_id"}}`. Lists
answer `{"items", "next_cursor"}`; send the cursor back to go on. Times are ISO 8601 in UTC, sizes are bytes, ids are
opaque text.
"""


def create_api(runtime: Runtime) -> FastAPI:
    """REST under /api, /health and /docs, without any page."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        background = Background(runtime) if runtime.settings.worker else None
        if background is not None:
            await run_sync(background.start)
        yield
        if background is not None:
            await run_sync(background.stop)
        METER.close()

    # The documentation page comes from files in the package: nothing is fetched from elsewhere.
    app = FastAPIOffline(
        docs_url="/docs",
        redoc_url=None,
        title="VisionSuit",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        openapi_url="/api/openapi.json",
        swagger_ui_oauth2_redirect_url="/docs/oauth2-redirect",
        static_url="/docs-static",
    )
    add_error_handlers(app)
    for router in ROUTERS:
        app.include_router(router)
    return app


def guarded(app: FastAPI, runtime: Runtime) -> Edge:
    """`app` behind the guards: identity, origin, bounds, headers. This is what is served."""
    return Edge(app, runtime, lambda bearer, cookie: resolve_actor(runtime, bearer, cookie))

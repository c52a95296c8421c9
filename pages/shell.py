"""The pages, their addresses, and how Gradio is mounted."""

from collections.abc import Callable
from urllib.parse import quote

import gradio as gr
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import RedirectResponse
from starlette.routing import Match

from pages import endpoints
from pages.assets import Assets
from pages.documents import PageDocuments
from visionsuit.runtime import Runtime

#: Address -> title. What is on a page is drawn by the element `<vs-page-...>` of pages/components/.
PAGES = {
    "/": "Home",
    "/models": "Models",
    "/images": "Images",
    "/galleries": "Galleries",
    "/generate": "Generate",
    "/history": "History",
    "/upload": "Upload",
    "/admin": "Admin",
    "/account": "Account",
    "/login": "Log in",
    "/register": "Register",
    "/setup": "Set up",
}
#: Short addresses of single things -> page that shows them.
SHORT_LINKS = {"m": "models", "i": "images", "g": "galleries"}
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def build_ui() -> gr.Blocks:
    """Blocks of the named endpoints and nothing else: no view holds a Gradio component, so none needs a route of its
    own, each of which would make Gradio build its server anew (0.2 s a page at every start)."""
    with gr.Blocks(title="VisionSuit", analytics_enabled=False) as ui:
        endpoints.build()
    # Guests make sessions at will; each holds next to nothing, since no page keeps state in Gradio.
    ui.state_session_capacity = 1000
    ui.max_threads = 20
    ui.queue(api_open=False, max_size=64, default_concurrency_limit=4)
    # Gradio looks a thousand times a second whether somebody called an endpoint, which everybody else pays for.
    ui._queue.sleep_when_free = 0.02
    return ui


def mount(api: FastAPI, ui: gr.Blocks, runtime: Runtime) -> FastAPI:
    """`api` with the pages at `/`, their files under `/ui`, and short links. REST comes first."""
    assets = Assets()
    api.mount("/ui", assets, name="ui")
    for short, page in SHORT_LINKS.items():
        api.add_api_route(f"/{short}/{{public_id}}", redirect_to(page), include_in_schema=False)
    # Gradio, mounted at /, would answer these in a shape of its own.
    api.add_api_route("/api/{rest:path}", refuse_unknown, methods=METHODS, include_in_schema=False)
    app = mount_gradio(api, ui)
    app.add_middleware(PageDocuments, assets=assets, titles=PAGES, site_title=runtime.settings.site_title)
    return app


def mount_gradio(api: FastAPI, ui: gr.Blocks) -> FastAPI:
    return gr.mount_gradio_app(
        api,
        ui,
        path="/",
        auth_dependency=name_visitor,
        show_error=False,
        ssr_mode=False,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        allowed_paths=[],
        max_file_size=1,
        theme=gr.themes.Base(font=["Inter", "system-ui"], font_mono=["ui-monospace"]).set(
            body_background_fill="#0a0a0b", body_background_fill_dark="#0a0a0b"
        ),
    )


def name_visitor(request: Request) -> str:
    """Gradio answers 401 to a nameless visitor; everyone has a name here, permissions are the services' affair."""
    actor = request.scope["state"]["actor"]
    return actor.public_id or "guest"


def refuse_unknown(request: Request) -> None:
    """Raises: HTTPException 404, or 405 where only the method is wrong."""
    known = any(route.matches(request.scope)[0] is Match.PARTIAL for route in request.app.routes)
    raise HTTPException(405 if known else 404)


def redirect_to(page: str) -> Callable[[str], RedirectResponse]:
    def redirect(public_id: str) -> RedirectResponse:
        return RedirectResponse(f"/{page}?id={quote(public_id, safe='')}", status_code=302)

    return redirect

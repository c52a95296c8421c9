"""The frame around the pages: their order, their addresses, and how Gradio is mounted."""

import warnings
from collections.abc import Callable
from types import ModuleType
from urllib.parse import quote

import gradio as gr
from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse

from pages import account, admin, endpoints, galleries, generate, history, home, images, models, register, setup, upload
from pages.assets import Assets
from pages.documents import PageDocuments
from visionsuit.runtime import Runtime

#: In the order of the navigation. A page is TITLE, PATH (one word, "" is the first page) and `build(page)`.
PAGES: list[ModuleType] = [home, models, images, galleries, generate, history, upload, admin, account, register, setup]
#: Addresses that Gradio keeps for itself: they get the frame of the first page and their own view in it.
EXTRA_VIEWS = {"login": "Log in"}
#: Short addresses of single things -> page that shows them.
SHORT_LINKS = {"m": "models", "i": "images", "g": "galleries"}


def build_ui() -> gr.Blocks:
    """Blocks with one route a page and, beyond the named endpoints, no Gradio function at all."""
    first, *others = PAGES
    with gr.Blocks(title="VisionSuit", analytics_enabled=False, fill_width=True) as ui:
        first.build(ui)
        endpoints.build()
    for page in others:
        with ui.route(page.TITLE, page.PATH, show_in_navbar=False) as route:
            page.build(route)
    # Guests make sessions at will; each holds next to nothing, since no page keeps state in Gradio.
    ui.state_session_capacity = 1000
    ui.max_threads = 20
    ui.queue(api_open=False, max_size=64, default_concurrency_limit=4)
    return ui


def mount(api: FastAPI, ui: gr.Blocks, runtime: Runtime) -> FastAPI:
    """`api` with the pages at `/`, their files under `/ui`, and short links. REST comes first."""
    assets = Assets()
    api.mount("/ui", assets, name="ui")
    for short, page in SHORT_LINKS.items():
        api.add_api_route(f"/{short}/{{public_id}}", redirect_to(page), include_in_schema=False)
    with warnings.catch_warnings():
        # It warns that a site of several pages has no server-side rendering even where none is asked for.
        warnings.filterwarnings("ignore", message="SSR mode is not supported")
        app = mount_gradio(api, ui)
    own = {f"/{page.PATH}": page.TITLE for page in PAGES}
    extra = {f"/{path}": title for path, title in EXTRA_VIEWS.items()}
    app.add_middleware(
        PageDocuments,
        assets=assets,
        titles=own | extra,
        gradio_paths=set(own),
        site_title=runtime.settings.site_title,
    )
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


def redirect_to(page: str) -> Callable[[str], RedirectResponse]:
    def redirect(public_id: str) -> RedirectResponse:
        return RedirectResponse(f"/{page}?id={quote(public_id, safe='')}", status_code=302)

    return redirect

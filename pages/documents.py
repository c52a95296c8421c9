"""The HTML documents that Gradio sends, made ours: own head before its scripts, a page for addresses that are not.

Gradio adds a `head=` only once its own scripts run, which is too late for theme, styles and title. Its Blocks give the
addresses and the named endpoints; what is on screen is drawn by the files in components/.
"""

import base64
import hashlib
import html
import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pages.assets import FIRST_PAINT_JS, Assets
from visionsuit.web import content_policy

#: Gradio's advertisement of itself, a manifest that is not there, a white first frame, and its front end with its
#: settings: no page shows a Gradio widget, and forty files for nothing would make every first visit seconds slower.
UNWANTED = re.compile(
    r"<meta\s+(?:property|name)=\"(?:og|twitter):[^>]*>"
    r"|<link rel=\"manifest\"[^>]*>"
    r"|<style>\s*:root\s*\{\s*--bg:.*?</style>"
    r"|<script type=\"module\" crossorigin src=\"\./assets/[^>]*></script>"
    r"|<link rel=\"stylesheet\" crossorigin href=\"\./assets/[^>]*>"
    r"|<script data-gradio-mode>.*?</script>"
    r"|<script>window\.gradio_.*?</script>"
    r"|<script>\s*\(\(\) => \{.*?</script>"
    r"|<script>\s*const ce = .*?</script>",
    re.DOTALL,
)


class PageDocuments:
    """ASGI middleware over the pages; everything that is not a page's document passes untouched."""

    def __init__(self, app: ASGIApp, assets: Assets, titles: dict[str, str], site_title: str) -> None:
        self.app = app
        self.site_title = site_title
        self.titles = titles
        self.head = assets.head_html(titles)
        digest = base64.b64encode(hashlib.sha256(FIRST_PAINT_JS.encode()).digest()).decode()
        self.policy = content_policy(f"'sha256-{digest}'")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD") or not self.is_document(scope):
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        is_head = scope["method"] == "HEAD"
        # One document for all: its script draws the view of the address, or says that there is none. Gradio's own
        # routes know no HEAD.
        scope = {**scope, "method": "GET", "path": "/", "raw_path": b"/"}
        status = 200 if path in self.titles else 404
        answer = Collected()
        await self.app(scope, receive, answer)
        body = answer.body
        if answer.is_html:
            body = self.make_ours(body.decode(), self.titles.get(path, "Not found")).encode()
        else:
            status = answer.start["status"]
        if answer.start["status"] == 200:
            answer.start["status"] = status
        headers = MutableHeaders(scope=answer.start)
        headers["Content-Length"] = str(len(body))
        headers["Cache-Control"] = "no-cache"
        headers["Content-Security-Policy"] = self.policy
        await send(answer.start)
        await send({"type": "http.response.body", "body": b"" if is_head else body})

    def is_document(self, scope: Scope) -> bool:
        """A page's address, or an unknown one that a browser opens as a page."""
        path: str = scope["path"]
        if path in self.titles:
            return True
        if path.startswith(
            ("/api/", "/ui/", "/gradio_api/", "/assets/", "/static/", "/docs", "/health", "/m/", "/i/", "/g/")
        ):
            return False
        return "text/html" in Headers(scope=scope).get("accept", "") and "." not in path.rpartition("/")[2]

    def make_ours(self, document: str, title: str) -> str:
        document = UNWANTED.sub("", document)
        named = title if title == self.site_title else f"{title} · {self.site_title}"
        # The frame stands before Gradio's own element.
        document = document.replace("<gradio-app", "<vs-shell></vs-shell><gradio-app", 1)
        charset = '<meta charset="utf-8" />'
        return document.replace(charset, f"{charset}<title>{html.escape(named)}</title>{self.head}", 1)


class Collected:
    """A `send` that keeps the answer."""

    def __init__(self) -> None:
        self.start: Message = {}
        self.body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.start = message
        else:
            self.body += message.get("body", b"")

    @property
    def is_html(self) -> bool:
        return Headers(raw=self.start["headers"]).get("content-type", "").startswith("text/html")

"""Scripts, styles and fonts of the interface, served from memory under an address that names their content.

`/ui/<hash>/<file>`: the hash covers every file, so an answer never changes and browsers keep it for ever. Modules
import each other by relative path and so stay within one hash.
"""

import gzip
import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import brotli
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

COMPONENTS = Path(__file__).parent / "components"
MIME = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".woff2": "font/woff2",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webp": "image/webp",
    ".txt": "text/plain; charset=utf-8",
}
ENTRY = "app.js"
#: All style sheets in one answer, `theme.css` first.
STYLES = "all.css"
FIRST_FONTS = ("fonts/inter.woff2", "fonts/space-grotesk.woff2")
#: Kept small and inline: what the first frame needs before any file has come.
FIRST_PAINT_CSS = (
    "html{background:#0a0a0b;color-scheme:dark}html[data-theme=light]{background:#fafafa;color-scheme:light}"
)
FIRST_PAINT_JS = (
    'try{var t=JSON.parse(localStorage.getItem("vs:theme"))}catch(e){}'
    'document.documentElement.dataset.theme=t==="light"?"light":"dark"'
)


@dataclass(frozen=True, slots=True)
class Asset:
    """One file with its encodings; `encoded` holds only those that are smaller."""

    body: bytes
    mime: str
    encoded: dict[str, bytes]


class Assets:
    """All files of `folder`, read once."""

    def __init__(self, folder: Path = COMPONENTS) -> None:
        self.files: dict[str, Asset] = {}
        digest = hashlib.sha256()
        for path in sorted(folder.rglob("*")):
            if path.suffix not in MIME or not path.is_file():
                continue
            name = path.relative_to(folder).as_posix()
            body = path.read_bytes()
            digest.update(name.encode() + b"\0" + body)
            self.files[name] = Asset(body, MIME[path.suffix], {} if path.suffix == ".woff2" else compress(body))
        self.hash = digest.hexdigest()[:12]
        sheets = [name for name in self.files if name.endswith(".css")]
        sheets.sort(key=lambda name: (name != "theme.css", name))
        body = b"\n".join(self.files[name].body for name in sheets)
        self.files[STYLES] = Asset(body, MIME[".css"], compress(body))

    def url(self, name: str) -> str:
        """Address of one file; KeyError for a file that is not there."""
        if name not in self.files:
            raise KeyError(name)
        return f"/ui/{self.hash}/{name}"

    @cached_property
    def modules(self) -> list[str]:
        """The scripts that `ENTRY` imports, at any depth: fetched at once rather than one after the other."""
        found: list[str] = []
        waiting = [ENTRY]
        while waiting:
            name = waiting.pop(0)
            if name in found or name not in self.files:
                continue
            found.append(name)
            text = self.files[name].body.decode()
            waiting += re.findall(r"""^\s*(?:import|export)\b[^;'"]*['"]\./([\w.-]+\.js)['"]""", text, re.MULTILINE)
        return found

    def head_html(self, titles: dict[str, str]) -> str:
        """What stands first in every page's head: theme before paint, styles, scripts.

        Args:
            titles: path -> title of every page, for moves between them without a reload.
        """
        preloads = "".join(f'<link rel="modulepreload" href="{self.url(name)}">' for name in self.modules[1:])
        fonts = "".join(
            f'<link rel="preload" href="{self.url(name)}" as="font" type="font/woff2" crossorigin>'
            for name in FIRST_FONTS
        )
        icon = (
            f'<link rel="icon" href="{self.url("logo.svg")}" type="image/svg+xml">' if "logo.svg" in self.files else ""
        )
        # In a script element only "</" could end it early.
        table = json.dumps(titles).replace("<", "\\u003c")
        return (
            f"<style>{FIRST_PAINT_CSS}</style><script>{FIRST_PAINT_JS}</script>{icon}{fonts}"
            f'<link rel="stylesheet" href="{self.url(STYLES)}">{preloads}'
            f'<script type="application/json" id="vs-pages">{table}</script>'
            f'<script type="module" src="{self.url(ENTRY)}"></script>'
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI app to mount at `/ui`."""
        if scope["type"] != "http":
            return
        await self.answer(scope)(scope, receive, send)

    def answer(self, scope: Scope) -> Response:
        if scope["method"] not in ("GET", "HEAD"):
            return Response(status_code=405)
        path: str = scope["path"]
        version, _, name = path.removeprefix(scope.get("root_path", "")).lstrip("/").partition("/")
        asset = self.files.get(name)
        if asset is None:
            return Response("There is no such file.", status_code=404)
        if version != self.hash:
            # A page from before an update asks for an old version: right content, short life.
            headers = {"Cache-Control": "no-cache"}
        else:
            headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        body = asset.body
        if asset.encoded:
            headers["Vary"] = "Accept-Encoding"
            accepted = {
                part.split(";")[0].strip() for part in Headers(scope=scope).get("accept-encoding", "").split(",")
            }
            for encoding, smaller in asset.encoded.items():
                if encoding in accepted:
                    headers["Content-Encoding"] = encoding
                    body = smaller
                    break
        return Response(body, media_type=asset.mime, headers=headers)


def compress(body: bytes) -> dict[str, bytes]:
    """Best encoding first; none for what would not get smaller."""
    found = {"br": brotli.compress(body, quality=9), "gzip": gzip.compress(body, 9, mtime=0)}
    return {name: smaller for name, smaller in found.items() if len(smaller) < len(body) * 0.95}

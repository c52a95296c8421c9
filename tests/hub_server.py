"""A model hub on 127.0.0.1 that speaks as huggingface.co does: repository listings, HEAD and GET of files by commit
with ETags, ranges and a redirect to where large files lie; and that breaks when it is told to."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

#: Files over this are large files to the hub: known by SHA-256, and served from another address.
LARGE_BYTES = 4096
#: `FakeHub.hold` holds up bodies over this.
HELD_BYTES = 150_000


@dataclass
class Repo:
    """`lies`: path -> size that the listing tells instead."""

    files: dict[str, bytes]
    commit: str = "a" * 40
    is_gated: bool = False
    lies: dict[str, int] = field(default_factory=dict)
    corrupt: set[str] = field(default_factory=set)


@dataclass
class FakeHub:
    """
    Attributes:
        cut_after: bytes of a body after which each connection is cut, as many times as `cuts`.
        hold: files wait here before their second half, until it is set.
        requests: (method, path, range) of what came.
    """

    url: str = ""
    token: str = "hf_secret"
    repos: dict[str, Repo] = field(default_factory=dict)
    cut_after: int = 0
    cuts: int = 0
    hold: threading.Event | None = None
    held: threading.Event = field(default_factory=threading.Event)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)

    def add(self, repo_id: str, folder: Path | None = None, **files: bytes) -> Repo:
        found = (
            {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
            if folder
            else {}
        )
        self.repos[repo_id] = Repo(found | files)
        return self.repos[repo_id]

    def ranges(self, name: str) -> list[str | None]:
        """Of the requests for a file."""
        return [span for method, path, span in self.requests if method == "GET" and path.endswith(name)]


@contextmanager
def serve_hub() -> Iterator[FakeHub]:
    hub = FakeHub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        if hub.hold is not None:
            hub.hold.set()
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Silent."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/.+)?", path):
            self._list(match[1])
        elif match := re.fullmatch(r"(/cdn)?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(match[2], match[4], is_cdn=bool(match[1]), with_body=with_body)
        else:
            self._json(404, {"error": "Not found"})

    def _repo(self, repo_id: str) -> Repo | None:
        repo = self.hub.repos.get(repo_id)
        if repo is None:
            self._json(404, {"error": "Repository not found"})
        elif repo.is_gated and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._json(401, {"error": "Access to model is restricted. You must be authenticated."})
            return None
        return repo

    def _list(self, repo_id: str) -> None:
        repo = self._repo(repo_id)
        if repo is None:
            return
        siblings = []
        for path, content in repo.files.items():
            size = repo.lies.get(path, len(content))
            entry: dict[str, Any] = {"rfilename": path, "size": size, "blobId": _git_sha1(content)}
            if len(content) > LARGE_BYTES:
                entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": size, "pointerSize": 135}
            siblings.append(entry)
        self._json(200, {"id": repo_id, "sha": repo.commit, "siblings": siblings})

    def _file(self, repo_id: str, path: str, *, is_cdn: bool, with_body: bool) -> None:
        repo = self.hub.repos.get(repo_id) if is_cdn else self._repo(repo_id)
        if repo is None:
            return
        content = repo.files.get(path)
        if content is None:
            self._json(404, {"error": "Entry not found"})
            return
        if path in repo.corrupt:
            content = bytes(byte ^ 1 for byte in content[:1]) + content[1:]
        headers = {"X-Repo-Commit": repo.commit, "ETag": f'"{_git_sha1(content)}"', "Accept-Ranges": "bytes"}
        if len(content) > LARGE_BYTES and not is_cdn:
            headers |= {"X-Linked-Size": str(len(content)), "Location": f"{self.hub.url}/cdn{self.path}"}
            self._send(302, headers, b"", with_body)
            return
        status, start = 200, 0
        if span := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            start = int(span[1])
            if start >= len(content):
                self._send(416, {"Content-Range": f"bytes */{len(content)}"}, b"", with_body)
                return
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(status, headers, content[start:], with_body)

    def _json(self, status: int, content: Any) -> None:
        self._send(status, {"Content-Type": "application/json"}, json.dumps(content).encode(), self.command == "GET")

    def _send(self, status: int, headers: dict[str, str], body: bytes, with_body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not with_body:
            return
        hub = self.hub
        try:
            if hub.cuts and len(body) > hub.cut_after > 0:
                hub.cuts -= 1
                self.wfile.write(body[: hub.cut_after])
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(2)
            elif hub.hold is not None and len(body) > HELD_BYTES:
                half = len(body) // 2
                self.wfile.write(body[:half])
                self.wfile.flush()
                hub.held.set()
                hub.hold.wait(60)
                self.wfile.write(body[half:])
            else:
                self.wfile.write(body)
        except OSError:
            self.close_connection = True


def _git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()

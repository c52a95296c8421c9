"""A stored file as an HTTP answer: ranges, conditions, names and types that no browser misreads."""

import threading
from collections import OrderedDict
from urllib.parse import quote

from fastapi import Request, Response
from starlette.responses import StreamingResponse

from visionsuit.core.errors import InvalidInput
from visionsuit.downloads.ranges import Span, matches_etag, parse_range
from visionsuit.objects.tables import StorageObject
from visionsuit.runtime import Runtime
from visionsuit.storage.base import Bucket
from visionsuit.web import error_response

#: Only these are shown by browsers; everything else is saved to disk.
_SHOWN = frozenset({"image/png", "image/jpeg", "image/webp"})
_KEPT_BYTES = 256 * 1024
#: Content under an id never changes. Private: whether one may see it is decided for each person.
CACHE_CONTROL = "private, max-age=31536000, immutable"


class RangeNotSatisfiable(InvalidInput):
    http_status = 416
    code = "range_not_satisfiable"


class SmallFiles:
    """Thumbnails in memory, the longest unasked for go first. Holds bytes only: permission is asked every time."""

    def __init__(self, max_bytes: int = 32 * 1024**2) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._files: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, runtime: Runtime, file: StorageObject) -> bytes:
        with self._lock:
            if file.id in self._files:
                self._files.move_to_end(file.id)
                return self._files[file.id]
        data = runtime.storage.read_bytes(Bucket(file.bucket), file.id)
        with self._lock:
            if file.id not in self._files:
                self._files[file.id] = data
                self._bytes += len(data)
            while self._bytes > self._max_bytes:
                self._bytes -= len(self._files.popitem(last=False)[1])
        return data


def wants_beginning(request: Request) -> bool:
    """Whether this request fetches the file from its start; the further parts of a resumed download do not."""
    span = parse_range(request.headers.get("range"), 2**62)
    return request.method == "GET" and not (isinstance(span, Span) and span.start > 0)


def serve(
    request: Request, runtime: Runtime, small: SmallFiles, file: StorageObject, *, as_attachment: bool = False
) -> Response:
    """Answer a GET or HEAD for `file`, whose reader is known to be allowed. Memory does not grow with its size."""
    etag = f'"{file.sha256[:32]}"'
    shown = file.mime in _SHOWN and not as_attachment
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": CACHE_CONTROL,
        "Content-Disposition": content_disposition(file.file_name or file.id, inline=shown),
        "Content-Type": file.mime if file.mime in _SHOWN else "application/octet-stream",
        "X-Content-Type-Options": "nosniff",
        # Should a browser open it as a page all the same, nothing in it runs.
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Vary": "Cookie, Authorization",
    }
    if matches_etag(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    size, bucket = file.size_bytes, Bucket(file.bucket)
    condition = request.headers.get("if-range")
    asked = request.headers.get("range") if condition in (None, etag) else None
    span = parse_range(asked, size)
    if span == "unsatisfiable":
        error = RangeNotSatisfiable(f"The file has {size} bytes; none of them are in the range asked for.")
        refusal = error_response(error, request.state.request_id)
        refusal.headers["Content-Range"] = f"bytes */{size}"
        return refusal
    status = 200
    if isinstance(span, Span):
        status = 206
        headers["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{size}"
    else:
        span = Span(0, size)
    headers["Content-Length"] = str(span.end - span.start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    if size <= _KEPT_BYTES and shown:
        body = small.read(runtime, file)[span.start : span.end]
        return Response(body, status_code=status, headers=headers)
    chunks = runtime.storage.read(bucket, file.id, span.start, span.end)
    return StreamingResponse(chunks, status_code=status, headers=headers)


def content_disposition(file_name: str, *, inline: bool) -> str:
    """RFC 6266, with a plain spelling for old clients. Nothing in a name can end the header or leave a folder."""
    name = file_name.replace("/", "_").replace("\\", "_").lstrip(".") or "file"
    plain = "".join(c if 32 <= ord(c) < 127 and c not in '"%;' else "_" for c in name)
    kind = "inline" if inline else "attachment"
    if plain == name:
        return f'{kind}; filename="{plain}"'
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"

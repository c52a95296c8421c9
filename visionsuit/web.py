"""The REST edge: who asks, the request's Ctx, errors to JSON, and the guards that stand before every route."""

import ipaddress
import secrets
import time
from collections.abc import Callable
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import urlsplit

import anyio.to_thread
import structlog
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from visionsuit.core.actor import GUEST, Actor
from visionsuit.core.errors import (
    AppError,
    MalformedRequest,
    NotPermitted,
    NotSignedIn,
    TooLarge,
    TooMany,
    Unavailable,
)
from visionsuit.db import DATABASE_ERRORS, is_busy
from visionsuit.runtime import Runtime

log = structlog.get_logger()
T = TypeVar("T")

SESSION_COOKIE = "visionsuit_session"
#: JSON and form bodies; files travel on the routes in `streams_body`.
MAX_BODY_BYTES = 1024 * 1024
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
#: Files of the page itself: the same for everybody, so nobody is looked up for them.
PUBLIC_PREFIXES = ("/ui/", "/assets/", "/static/", "/svelte/", "/gradio_api/startup-events", "/theme.css", "/health")

#: First part of the addresses under /gradio_api/ that the pages and `gradio_client` use. Uploads, files, proxies,
#: component servers, recordings, run history and whatever a later version adds stay closed to everyone.
OPEN_GRADIO = frozenset(
    {"info", "config", "app_id", "startup-events", "heartbeat", "queue", "call", "run", "api", "cancel", "theme.css"}
)
CLOSED_ROOT = (
    "/monitoring",
    "/login/",
    "/file",
    "/upload/",
    "/upload_",
    "/openapi.json",
    "/custom_component",
    "/proxy",
)


def content_policy(scripts: str) -> str:
    """Content-Security-Policy of a document; `scripts` are the sources it may run besides this site's files."""
    return "; ".join(
        [
            "default-src 'self'",
            f"script-src 'self' {scripts}",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "worker-src 'self' blob:",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            "frame-ancestors 'self'",
        ]
    )


#: Of whatever sets none itself. The API's documentation starts with an inline script.
CSP = content_policy("'unsafe-inline'")

#: Of every answer.
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)
#: What nothing behind the edge has a say in.
FIXED_HEADERS = {b"x-request-id", b"strict-transport-security", *(name for name, _ in SECURITY_HEADERS)}

#: bearer token, session cookie -> who that is. Raises NotSignedIn for a bearer token that is no good.
Resolver = Callable[[str | None, str | None], Actor]


class SiteBusy(Unavailable):
    """The database had no turn for this request in time. Nothing of it was done."""

    code = "site_busy"
    retry_after_s = 5

    def __init__(self) -> None:
        super().__init__("The site is busy: others are writing just now.", hint="Try again in a few seconds.")


def error_response(error: AppError, request_id: str) -> JSONResponse:
    """The common error shape."""
    headers = {}
    if isinstance(error, TooMany | SiteBusy):
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, NotSignedIn):
        headers["WWW-Authenticate"] = "Bearer"
    body = {"error": {**error.as_json(), "request_id": request_id}}
    return JSONResponse(body, status_code=error.http_status, headers=headers)


class Edge:
    """Outermost ASGI layer: request id, log line, security headers, origin guard, body bound, identity.

    One class, because each needs the others' facts: a refusal is logged with its id and carries the headers.
    """

    def __init__(self, app: ASGIApp, runtime: Runtime, resolve: Resolver) -> None:
        self.app = app
        self.runtime = runtime
        self.resolve = resolve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        path: str = scope["path"]
        request_id = secrets.token_hex(8)
        state = scope.setdefault("state", {})
        state.update(
            runtime=self.runtime,
            request_id=request_id,
            actor=GUEST,
            address=client_address(scope, headers, self.runtime),
        )
        began = time.perf_counter()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                add_security_headers(message, path, scope.get("scheme", "http"), request_id)
            await send(message)

        async def refuse(error: AppError) -> None:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            else:
                await error_response(error, request_id)(scope, receive, send_with_headers)

        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            try:
                check_gradio_route(path)
                check_origin(scope.get("method", "GET"), headers, self.runtime.settings.public_url)
                bounded = receive if streams_body(path) else bound_body(receive, headers)
                if not path.startswith(PUBLIC_PREFIXES):
                    state["actor"] = await self._actor(headers)
            except AppError as error:
                await refuse(error)
                return
            except DATABASE_ERRORS as error:
                if not is_busy(error):
                    raise
                log.warning("database_busy", path=path, reason=str(error))
                await refuse(SiteBusy())
                return
            await self.app(scope, bounded, send_with_headers)
        finally:
            duration_ms = round((time.perf_counter() - began) * 1000, 1)
            noisy = path.startswith(PUBLIC_PREFIXES) or path.startswith("/gradio_api/heartbeat")
            (log.debug if noisy else log.info)(
                "request",
                method=scope.get("method", "WS"),
                path=path,
                status=status,
                duration_ms=duration_ms,
                user=state["actor"].public_id or None,
            )
            structlog.contextvars.unbind_contextvars("request_id")

    async def _actor(self, headers: Headers) -> Actor:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        bearer = token.strip() if scheme.lower() == "bearer" else None
        cookie = read_cookie(headers.get("cookie", ""), SESSION_COOKIE)
        if bearer is None and cookie is None:
            return GUEST
        return await anyio.to_thread.run_sync(self.resolve, bearer, cookie)


def read_cookie(header: str, name: str) -> str | None:
    for part in header.split(";"):
        key, _, value = part.strip().partition("=")
        if key == name and value:
            return value
    return None


def client_address(scope: Scope, headers: Headers, runtime: Runtime) -> str:
    """The caller's address; X-Forwarded-For counts only when it comes from a trusted proxy."""
    address = scope["client"][0] if scope.get("client") else "unknown"
    trusted = {part.strip() for part in runtime.settings.trusted_proxies.split(",") if part.strip()}
    if address in trusted and "x-forwarded-for" in headers:
        for hop in reversed([part.strip() for part in headers["x-forwarded-for"].split(",")]):
            if hop not in trusted:
                try:
                    return str(ipaddress.ip_address(hop))
                except ValueError:
                    break
    return str(address)


def check_gradio_route(path: str) -> None:
    """Refuse what Gradio offers beyond pages and named endpoints. Files go through /api/uploads."""
    refused = path.startswith(CLOSED_ROOT)
    if path.startswith("/gradio_api"):
        first = path.removeprefix("/gradio_api").lstrip("/").partition("/")[0]
        refused = first not in OPEN_GRADIO
    if refused:
        raise NotPermitted("This address is closed.", hint="Files go through /api/uploads.")


def check_origin(method: str, headers: Headers, public_url: str | None) -> None:
    """Refuse state-changing requests that another site's page sends with this site's cookie.

    SameSite=Lax lets sibling subdomains and other ports of the host through, so the browser's own words decide.
    """
    if method in SAFE_METHODS or headers.get("authorization", "").lower().startswith("bearer "):
        return
    if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        raise CrossOrigin("This request came from another site's page.")
    origin = headers.get("origin")
    if origin is None:
        return
    allowed = {headers.get("host", "").lower()}
    if public_url:
        allowed.add(urlsplit(public_url).netloc.lower())
    if urlsplit(origin).netloc.lower() not in allowed or origin == "null":
        raise CrossOrigin(f"This request came from another site's page ({origin[:200]}).")


class CrossOrigin(NotPermitted):
    code = "cross_origin"


def streams_body(path: str) -> bool:
    """Routes that read their body as a stream and bound it themselves."""
    return path.startswith("/api/uploads/") or path in ("/api/users/me/avatar", "/api/generations/inputs")


def bound_body(receive: Receive, headers: Headers) -> Receive:
    """Refuse a body over MAX_BODY_BYTES before or while it arrives."""
    message = f"The request body is larger than {MAX_BODY_BYTES // 1024} KiB."
    length = headers.get("content-length", "0")
    if not length.isdecimal():
        raise MalformedRequest("Content-Length is not a number.")
    if int(length) > MAX_BODY_BYTES:
        raise TooLarge(message)
    received = 0

    async def receive_bounded() -> Message:
        nonlocal received
        part = await receive()
        received += len(part.get("body", b""))
        if received > MAX_BODY_BYTES:
            raise TooLarge(message)
        return part

    return receive_bounded


def add_security_headers(message: Message, path: str, scheme: str, request_id: str) -> None:
    """To the start of an answer. A policy and a caching rule of its own stay."""
    headers = [header for header in message.get("headers", ()) if header[0] not in FIXED_HEADERS]
    present = {name for name, _ in headers}
    headers += [(b"x-request-id", request_id.encode()), *SECURITY_HEADERS]
    if b"content-security-policy" not in present:
        headers.append((b"content-security-policy", CSP.encode()))
    if scheme == "https":
        headers.append((b"strict-transport-security", b"max-age=31536000"))
    if path.startswith("/api/") and b"cache-control" not in present:
        headers.append((b"cache-control", b"no-store"))
    message["headers"] = headers


def json_response(model: BaseModel, status_code: int = 200, headers: dict[str, str] | None = None) -> Response:
    """The model as an answer, for routes that are asked often: FastAPI would check it once more, in one more thread."""
    return Response(model.model_dump_json(), status_code, headers, "application/json")


def get_runtime(request: Request) -> Runtime:
    runtime: Runtime = request.state.runtime
    return runtime


def get_actor(request: Request) -> Actor:
    actor: Actor = request.state.actor
    return actor


class FromRequest(Generic[T]):
    """A dependency that hands on what the edge found out. A coroutine, since FastAPI sends plain functions through a
    thread of their own, at every request."""

    def __init__(self, read: Callable[[Request], T]) -> None:
        self._read = read

    async def __call__(self, request: Request) -> T:
        return self._read(request)


RuntimeDep = Annotated[Runtime, Depends(FromRequest(get_runtime))]
ActorDep = Annotated[Actor, Depends(FromRequest(get_actor))]


def add_error_handlers(app: FastAPI) -> None:
    """AppError, validation errors, unknown routes and bugs, all in the common shape."""

    def request_id(request: Request) -> str:
        return getattr(request.state, "request_id", "-")

    def render_app_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, AppError)
        return error_response(error, request_id(request))

    def render_invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first: dict[str, Any] = dict(error.errors()[0]) if error.errors() else {}
        where = [str(part) for part in first.get("loc", ()) if part not in ("body", "query", "path")]
        malformed = (first.get("type") in ("json_invalid", "missing") and not where) or first.get(
            "type"
        ) == "json_invalid"
        field = ".".join(where) or None
        message = str(first.get("msg", "The request is not valid.")).removeprefix("Value error, ")
        body = {
            "code": "malformed" if malformed else "invalid_input",
            "message": f"{field}: {message}" if field and not malformed else message,
            "request_id": request_id(request),
        }
        if field and not malformed:
            body["field"] = field
        return JSONResponse({"error": body}, status_code=400 if malformed else 422)

    def render_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        # FastAPI wraps whatever goes wrong while it reads a body; what we raised there is the better answer.
        if isinstance(error.__cause__, AppError):
            return error_response(error.__cause__, request_id(request))
        codes = {
            404: "not_found",
            405: "method_not_allowed",
            401: "not_signed_in",
            403: "not_permitted",
            400: "malformed",
        }
        body = {
            "code": codes.get(error.status_code, "error"),
            "message": str(error.detail),
            "request_id": request_id(request),
        }
        return JSONResponse({"error": body}, status_code=error.status_code, headers=error.headers)

    def render_bug(request: Request, error: Exception) -> JSONResponse:
        reference = request_id(request)
        log.error("bug", request_id=reference, path=request.url.path, exc_info=error)
        message = f"Something went wrong (ref {reference})."
        return JSONResponse(
            {"error": {"code": "internal", "message": message, "request_id": reference}}, status_code=500
        )

    def render_database_error(request: Request, error: Exception) -> JSONResponse:
        if not is_busy(error):
            return render_bug(request, error)
        log.warning("database_busy", path=request.url.path, reason=str(error))
        return error_response(SiteBusy(), request_id(request))

    app.add_exception_handler(AppError, render_app_error)
    for kind in DATABASE_ERRORS:
        app.add_exception_handler(kind, render_database_error)
    app.add_exception_handler(RequestValidationError, render_invalid)
    app.add_exception_handler(HTTPException, render_http)
    app.add_exception_handler(Exception, render_bug)

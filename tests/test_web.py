"""The guards before every route: origin, body bound, headers, errors in one shape."""

import json
from dataclasses import replace

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.testclient import TestClient

from tests.postgres import both_databases
from visionsuit.core.actor import SYSTEM
from visionsuit.core.config import Settings
from visionsuit.core.errors import Conflict, TooMany
from visionsuit.main import guarded
from visionsuit.runtime import Runtime
from visionsuit.web import MAX_BODY_BYTES, add_error_handlers

HOST = "127.0.0.1:7860"


class Named(BaseModel):
    name: str
    count: int = 1


@pytest.fixture
def client(runtime: Runtime):
    app = FastAPI()
    add_error_handlers(app)

    @app.post("/api/echo")
    def echo(body: Named) -> Named:
        return body

    @app.get("/api/bug")
    def bug() -> None:
        raise ZeroDivisionError("secret detail")

    @app.get("/api/conflict")
    def conflict() -> None:
        raise Conflict("It is taken.", field="name", hint="Choose another.")

    @app.get("/api/often")
    def often() -> None:
        raise TooMany("Too often.", retry_after_s=7)

    @app.post("/api/write")
    def write() -> None:
        with runtime.open_ctx(SYSTEM) as ctx:
            ctx.connection.execute(sa.text("SELECT 1"))
            if ctx.connection.dialect.name == "postgresql":
                ctx.connection.execute(sa.text("LOCK TABLE account IN EXCLUSIVE MODE NOWAIT"))

    @app.get("/api/missing")
    def missing() -> None:
        with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
            ctx.connection.execute(sa.text("SELECT * FROM secret_table"))

    with TestClient(guarded(app, runtime), base_url=f"http://{HOST}", raise_server_exceptions=False) as client:
        yield client


GOOD = {"name": "x"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": f"http://{HOST}"}, 200),
        ({"Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:7861"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_only_our_own_pages_change_state(client: TestClient, headers: dict[str, str], status: int) -> None:
    answer = client.post("/api/echo", json=GOOD, headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["error"]["code"] == "cross_origin"


def test_a_proxy_s_public_address_is_our_own(client: TestClient, runtime: Runtime) -> None:
    runtime.settings.public_url = "https://art.example/"
    assert client.post("/api/echo", json=GOOD, headers={"Origin": "https://art.example"}).status_code == 200
    assert client.post("/api/echo", json=GOOD, headers={"Origin": "https://art.example.evil"}).status_code == 403


def test_large_bodies_are_refused_with_the_limit(client: TestClient) -> None:
    body = json.dumps({"name": "x" * MAX_BODY_BYTES})
    answer = client.post("/api/echo", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert "1024 KiB" in answer.json()["error"]["message"]


def test_large_bodies_without_a_length_are_refused(client: TestClient) -> None:
    chunks = (b'{"name": "' if i == 0 else b"x" * 65536 for i in range(20))
    answer = client.post("/api/echo", content=chunks, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def test_errors_have_one_shape(client: TestClient) -> None:
    error = client.get("/api/conflict").json()["error"]
    assert error.pop("request_id")
    assert error == {"code": "conflict", "message": "It is taken.", "field": "name", "hint": "Choose another."}
    assert client.get("/api/often").headers["Retry-After"] == "7"
    assert client.get("/api/nothing").json()["error"]["code"] == "not_found"
    assert client.get("/api/echo").json()["error"]["code"] == "method_not_allowed"


def test_a_bad_field_is_named(client: TestClient) -> None:
    answer = client.post("/api/echo", json={"name": "x", "count": "many"})
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == "count"


@pytest.mark.parametrize("body", [b"{", b"", b"\xff\xfe", b"[" * 5000])
def test_broken_json_is_malformed(client: TestClient, body: bytes) -> None:
    answer = client.post("/api/echo", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.json()["error"]["code"] in ("malformed", "invalid_input")


def test_a_bug_shows_a_reference_and_no_detail(client: TestClient) -> None:
    answer = client.get("/api/bug")
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert answer.json()["error"]["request_id"] in answer.json()["error"]["message"]
    assert answer.headers["X-Request-Id"] == answer.json()["error"]["request_id"]


def test_every_answer_carries_the_security_headers(client: TestClient) -> None:
    for path in ("/api/conflict", "/api/bug", "/nothing", "/gradio_api/upload"):
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert "frame-ancestors 'self'" in headers["Content-Security-Policy"], path
        assert headers["Referrer-Policy"] == "same-origin", path


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/upload",
        "/gradio_api/upload_progress",
        "/gradio_api//upload",
        "/gradio_api/%75pload",
        "/gradio_api/component_server",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/proxy=http://127.0.0.1/",
        "/gradio_api/deep_link",
        "/gradio_api/run-history/records",
        "/gradio_api/stream/x",
        "/gradio_api/process_recording",
        "/gradio_api/vibe-edit",
        "/file=/etc/passwd",
        "/monitoring",
        "/monitoring/summary",
    ],
)
def test_what_gradio_offers_beyond_pages_is_closed(client: TestClient, path: str) -> None:
    for method in ("GET", "POST"):
        answer = client.request(method, path)
        assert answer.status_code == 403, method
        assert answer.json()["error"]["message"] == "This address is closed."


@pytest.mark.parametrize("header", ["Bearer nonsense", "Bearer vs_nonsense", "bearer a.b.c", "Bearer "])
def test_a_bad_bearer_token_is_not_a_guest(client: TestClient, header: str) -> None:
    answer = client.post("/api/echo", json=GOOD, headers={"Authorization": header})
    assert answer.status_code == 401 or header == "Bearer "


def test_a_bad_cookie_is_a_guest(client: TestClient) -> None:
    client.cookies.set("visionsuit_session", "nonsense")
    assert client.post("/api/echo", json=GOOD).status_code == 200


@both_databases
def test_a_busy_database_is_no_bug(client: TestClient, runtime: Runtime) -> None:
    if runtime.database.dialect.name == "sqlite":
        sa.event.listen(runtime.database, "connect", lambda driver, _: driver.execute("PRAGMA busy_timeout=1"))
    assert client.post("/api/write").status_code == 200
    with runtime.open_ctx(SYSTEM) as ctx:
        ctx.connection.execute(sa.text("SELECT 1"))
        if ctx.connection.dialect.name == "postgresql":
            ctx.connection.execute(sa.text("LOCK TABLE account IN EXCLUSIVE MODE"))
        answer = client.post("/api/write")
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    error = answer.json()["error"]
    assert error["code"] == "site_busy"
    assert "busy" in error["message"]
    assert error["request_id"] == answer.headers["X-Request-Id"]
    assert "account" not in answer.text
    assert client.post("/api/write").status_code == 200


def test_other_errors_of_the_database_are_bugs(client: TestClient) -> None:
    answer = client.get("/api/missing")
    assert answer.status_code == 500
    assert "secret_table" not in answer.text


def test_who_cannot_be_looked_up_in_time_is_told_that_the_site_is_busy(settings: Settings, runtime: Runtime) -> None:
    one = sa.create_engine(
        settings.database.replace("sqlite:", "sqlite+locking:"), pool_size=1, max_overflow=0, pool_timeout=0.01
    )
    crowded = replace(runtime, database=one)
    with TestClient(guarded(FastAPI(), crowded), base_url=f"http://{HOST}", raise_server_exceptions=False) as asking:
        with crowded.open_ctx(SYSTEM) as ctx:
            ctx.connection.execute(sa.text("SELECT 1"))
            answer = asking.get("/api/x", headers={"Authorization": "Bearer vs_nonsense"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "site_busy")
        assert answer.headers["Retry-After"] == "5"
    one.dispose()

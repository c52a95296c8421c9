"""Routes that run in one go: committed before the answer leaves, and nothing of FastAPI's care lost."""

import threading

import pytest
import sqlalchemy as sa
from fastapi import FastAPI, Response
from fastapi.testclient import TestClient
from pydantic import BaseModel

from tests.conftest import People
from visionsuit.router import CtxDep, ReadCtxDep, Router
from visionsuit.runtime import Runtime
from visionsuit.web import ActorDep, add_error_handlers


class Out(BaseModel):
    name: str


class Secretive(Out):
    secret: str = "not for everybody"


def client(runtime: Runtime, router: Router, people: People) -> TestClient:
    app = FastAPI()
    add_error_handlers(app)
    app.include_router(router)

    @app.middleware("http")
    async def identify(request, call_next):  # type: ignore[no-untyped-def]
        request.state.runtime, request.state.actor = runtime, people.user
        return await call_next(request)

    return TestClient(app, raise_server_exceptions=False)


def test_a_failed_commit_is_no_success(runtime: Runtime, people: People) -> None:
    router = Router()

    @router.post("/write", status_code=201)
    def write(ctx: CtxDep, good: bool) -> Out:
        if not good:
            # Found out at the commit only.
            ctx.connection.execute(sa.text("PRAGMA defer_foreign_keys = ON"))
        owner_id = ctx.actor.user_id if good else 10**9
        ctx.connection.execute(
            sa.text("INSERT INTO owner_share (owner_id, used_s, used_at) VALUES (:id, 1, '2026-01-01 00:00:00')"),
            {"id": owner_id},
        )
        return Out(name="written")

    @router.get("/read")
    def read(ctx: ReadCtxDep) -> Out:
        return Out(name=str(ctx.connection.execute(sa.text("SELECT count(*) FROM owner_share")).scalar_one()))

    asker = client(runtime, router, people)
    assert asker.post("/write?good=false").status_code == 500
    assert asker.get("/read").json() == {"name": "0"}
    answer = asker.post("/write?good=true")
    assert (answer.status_code, answer.json()) == (201, {"name": "written"})
    assert asker.get("/read").json() == {"name": "1"}


def test_what_is_not_declared_stays_inside(runtime: Runtime, people: People) -> None:
    router = Router()

    @router.get("/ctx")
    def with_ctx(ctx: ReadCtxDep) -> Out:
        return Secretive(name="a")

    @router.get("/plain")
    def without(actor: ActorDep) -> Out:
        return Secretive(name="a")

    asker = client(runtime, router, people)
    assert asker.get("/ctx").json() == asker.get("/plain").json() == {"name": "a"}


def test_headers_and_empty_answers_stay(runtime: Runtime, people: People) -> None:
    router = Router()

    @router.get("/headers")
    def headers(ctx: ReadCtxDep, response: Response) -> Out:
        response.headers["Location"] = "/there"
        return Out(name="a")

    @router.delete("/nothing", status_code=204)
    def nothing(ctx: CtxDep) -> None:
        return None

    asker = client(runtime, router, people)
    answer = asker.get("/headers")
    assert (answer.headers["Location"], answer.json()) == ("/there", {"name": "a"})
    answer = asker.delete("/nothing")
    assert (answer.status_code, answer.content) == (204, b"")


def test_everything_of_a_request_happens_in_one_thread(runtime: Runtime, people: People) -> None:
    router = Router()
    threads: list[int] = []

    class Watched(Out):
        def model_dump_json(self, **how: object) -> str:  # type: ignore[override]
            threads.append(threading.get_ident())
            return super().model_dump_json(**how)  # type: ignore[arg-type]

    @router.get("/watched")
    def watched(ctx: ReadCtxDep) -> Watched:
        threads.append(threading.get_ident())
        ctx.after_commit(lambda: threads.append(threading.get_ident()))
        return Watched(name="a")

    assert client(runtime, router, people).get("/watched").json() == {"name": "a"}
    assert len(threads) == 3
    assert len(set(threads)) == 1


def test_a_coroutine_gets_no_transaction() -> None:
    async def slow(ctx: CtxDep) -> None: ...

    with pytest.raises(TypeError, match="slow is a coroutine"):
        Router().add_api_route("/slow", slow)

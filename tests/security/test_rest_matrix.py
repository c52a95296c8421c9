"""Every REST route as guest, member, other curator, owner, administrator and superadministrator.

A route that is not in the table fails the test: who may call it has to be decided before it is served.
"""

from dataclasses import dataclass
from typing import Any

import pytest
from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from tests.conftest import People
from tests.security.world import IDENTITIES, World, build_world
from visionsuit.main import ROUTERS
from visionsuit.runtime import Runtime

#: audience -> identity -> what a refusal answers; who is not named gets through.
NOBODY_REFUSED: dict[str, tuple[int, ...]] = {}
SIGNED_IN = {"guest": (401,)}
CURATORS = {"guest": (401,), "user": (403,)}
ADMINS = {"guest": (401,), "user": (403,), "other": (403,), "owner": (403,)}
#: What strangers may not know exists; guests are told to sign in or that it is not there.
OWNERS_AND_ADMINS = {"guest": (401, 404), "user": (404,), "other": (404,)}
#: Not even administrators: what is personal.
OWNER_ALONE = {"guest": (401, 404), "user": (403, 404), "other": (404,), "admin": (404,), "superadmin": (404,)}
#: Administrators see the render, but their own galleries are no place for it.
KEEPS_OWN = {"user": (404,), "admin": (403,), "superadmin": (403,)}
REFUSALS = (401, 403, 404)


@dataclass(frozen=True)
class Row:
    audience: dict[str, tuple[int, ...]]
    body: Any = None


TABLE: dict[str, Row] = {
    "POST /api/auth/register": Row(NOBODY_REFUSED, {"email": "x", "password": "x", "name": "x"}),
    "POST /api/auth/login": Row(dict.fromkeys(IDENTITIES, (401, 429)), {"email": "a@b.c", "password": "wrong one"}),
    "POST /api/auth/setup": Row(
        dict.fromkeys(IDENTITIES, (403, 404)),
        {"token": "x" * 64, "email": "setup@example.org", "password": "long enough", "name": "Setup"},
    ),
    "GET /api/auth/me": Row(SIGNED_IN),
    "POST /api/auth/logout": Row(NOBODY_REFUSED),
    "GET /api/auth/sessions": Row(SIGNED_IN),
    "DELETE /api/auth/sessions": Row(SIGNED_IN),
    "DELETE /api/auth/sessions/{session}": Row(OWNER_ALONE | {"user": (404,)}),
    "GET /api/auth/tokens": Row(SIGNED_IN),
    "POST /api/auth/tokens": Row(SIGNED_IN, {"name": "n", "scopes": ["read"]}),
    "DELETE /api/auth/tokens/{token}": Row(OWNER_ALONE | {"user": (404,)}),
    "GET /api/meta/session": Row(NOBODY_REFUSED),
    "PATCH /api/users/me": Row(SIGNED_IN, {"bio": "b"}),
    "PUT /api/users/me/password": Row(SIGNED_IN, {"current_password": "?", "new_password": "?"}),
    "PUT /api/users/me/avatar": Row(SIGNED_IN),
    "DELETE /api/users/me/avatar": Row(SIGNED_IN),
    "GET /api/users": Row(ADMINS),
    "POST /api/users": Row(ADMINS, {"email": "new@example.org", "password": "short", "name": "New"}),
    "GET /api/users/{victim}": Row(NOBODY_REFUSED),
    "PATCH /api/users/{victim}": Row(ADMINS, {"bio": "changed"}),
    "GET /api/settings": Row(ADMINS),
    "PATCH /api/settings": Row(ADMINS, {"site_title": "Changed"}),
    "GET /api/meta/stats": Row(NOBODY_REFUSED),
    "GET /api/meta/status": Row(NOBODY_REFUSED),
    "GET /health": Row(NOBODY_REFUSED),
    "GET /health/ready": Row(NOBODY_REFUSED),
    "GET /api/audit": Row(ADMINS),
    "GET /api/storage/images/{object}": Row(OWNERS_AND_ADMINS),
    # The world's version has no bytes, so who may have it is told that the file is missing.
    "GET /api/models/{card}/versions/{version}/download": Row(OWNERS_AND_ADMINS),
    "POST /api/uploads/models": Row(CURATORS),
    "POST /api/uploads/images": Row(CURATORS),
    "POST /api/uploads/drafts": Row(CURATORS, {"kind": "images", "files": [{"name": "a.png", "role": "image"}]}),
    "GET /api/uploads/drafts/{draft}": Row(OWNER_ALONE),
    "PUT /api/uploads/drafts/{draft}/files/0": Row(OWNER_ALONE),
    "POST /api/uploads/drafts/{draft}/publish": Row(OWNER_ALONE, {}),
    "DELETE /api/uploads/drafts/{draft}": Row(OWNER_ALONE),
    "GET /api/base-models": Row(NOBODY_REFUSED),
    "GET /api/base-models/all": Row(ADMINS),
    "POST /api/base-models/sync": Row(ADMINS),
    "POST /api/base-models": Row(ADMINS, {"path": "nothing"}),
    "PATCH /api/base-models/{base_model}": Row(ADMINS, {"position": 1}),
    "DELETE /api/base-models/{base_model}": Row(ADMINS),
    "POST /api/base-models/{base_model}/fetch": Row(ADMINS),
    "PUT /api/base-models/order": Row(ADMINS, {"ids": []}),
    "POST /api/base-models/{base_model}/cancel": Row(ADMINS),
    "POST /api/generations": Row(SIGNED_IN, {"prompt": "a cat", "steps": 0}),
    "POST /api/generations/inputs": Row(SIGNED_IN),
    "DELETE /api/generations/inputs/{input}": Row(OWNER_ALONE | {"user": (404,)}),
    "POST /api/generations/sheets": Row(
        SIGNED_IN, {"base": {"prompt": "a cat", "steps": 0}, "x": {"axis": "steps", "values": [1]}}
    ),
    "POST /api/models/{card}/versions/{version}/test-sheet": Row(
        {"guest": (401,), "user": (404,), "other": (404,)}, {"steps": 0}
    ),
    "GET /api/models/{card}/test-sheets": Row({"guest": (404,), "user": (404,), "other": (404,)}),
    "GET /api/generations": Row(SIGNED_IN),
    "GET /api/generations/counts": Row(SIGNED_IN),
    "GET /api/generations/{generation}": Row(OWNERS_AND_ADMINS),
    "POST /api/generations/{generation}/cancel": Row(OWNERS_AND_ADMINS),
    "GET /api/generations/{generation}/events": Row(OWNERS_AND_ADMINS),
    "POST /api/generations/{generation}/view": Row(OWNERS_AND_ADMINS),
    "DELETE /api/generations/{generation}": Row(OWNERS_AND_ADMINS),
    "POST /api/generations/{generation}/save": Row(OWNER_ALONE | KEEPS_OWN, {"gallery_title": "g"}),
    "GET /api/wildcards": Row(SIGNED_IN),
    "POST /api/prompts/check": Row(SIGNED_IN, {"prompt": "a cat"}),
    "POST /api/loras/fits": Row(NOBODY_REFUSED, {"model_ids": []}),
    "POST /api/loras/conflicts": Row(SIGNED_IN, {"loras": []}),
    "GET /api/queue": Row(ADMINS),
    "POST /api/queue/pause": Row(ADMINS),
    "POST /api/queue/resume": Row(ADMINS),
    "GET /api/queue/failures": Row(ADMINS),
    "POST /api/queue/drain": Row(ADMINS),
    "POST /api/queue/clear": Row(ADMINS),
    "POST /api/queue/jobs/{job}/cancel": Row(ADMINS),
    "POST /api/queue/jobs/{job}/retry": Row(ADMINS),
    "PATCH /api/queue/jobs/{job}": Row(ADMINS, {"priority": 1}),
    "GET /api/queue/blocks": Row(ADMINS),
    "PUT /api/queue/blocks/{victim}": Row(ADMINS, {"reason": "r"}),
    "DELETE /api/queue/blocks/{victim}": Row(ADMINS),
    "GET /api/tags": Row(NOBODY_REFUSED),
    "GET /api/images": Row(NOBODY_REFUSED),
    "GET /api/images/{image}": Row(OWNERS_AND_ADMINS),
    "PATCH /api/images/{image}": Row(OWNERS_AND_ADMINS, {"title": "Changed"}),
    "DELETE /api/images/{image}": Row(OWNERS_AND_ADMINS),
    "GET /api/models": Row(NOBODY_REFUSED),
    "GET /api/models/{card}": Row(OWNERS_AND_ADMINS),
    "PATCH /api/models/{card}": Row(OWNERS_AND_ADMINS, {"title": "Changed"}),
    "DELETE /api/models/{card}": Row(OWNERS_AND_ADMINS),
    "GET /api/galleries": Row(NOBODY_REFUSED),
    "POST /api/galleries": Row(SIGNED_IN, {"title": "Mine"}),
    "GET /api/galleries/{gallery}": Row(OWNERS_AND_ADMINS),
    "PATCH /api/galleries/{gallery}": Row(OWNERS_AND_ADMINS, {"title": "Changed"}),
    "DELETE /api/galleries/{gallery}": Row(OWNERS_AND_ADMINS),
    "GET /api/galleries/{gallery}/items": Row(OWNERS_AND_ADMINS),
    "POST /api/galleries/{gallery}/items": Row(OWNERS_AND_ADMINS, {"image_ids": [], "model_ids": []}),
    "DELETE /api/galleries/{gallery}/items/image/{image}": Row(OWNERS_AND_ADMINS),
    "PUT /api/galleries/{gallery}/order": Row(OWNERS_AND_ADMINS, {"items": []}),
}
#: Where a 404 is the right answer to somebody who may ask: the thing asked for is not in this world.
MISSING_EVEN_SO = (
    "GET /api/models/{card}/versions/{version}/download",
    "POST /api/models/{card}/versions/{version}/test-sheet",
    "DELETE /api/queue/blocks/{victim}",
)


def shape(method: str, path: str) -> str:
    """Method and path with every parameter as `{}`."""
    parts = ["{}" if part.startswith("{") else part for part in path.split("/")]
    return f"{method} {'/'.join(parts)}"


def test_every_route_is_in_the_table() -> None:
    literal = {
        "/api/storage/images/{}": "/api/storage/{}/{}",
        "/files/0": "/files/{}",
        "/items/image/{}": "/items/{}/{}",
    }
    listed = set()
    for name in TABLE:
        method, path = name.split(" ")
        key = shape(method, path)
        for written, template in literal.items():
            key = key.replace(written, template)
        listed.add(key)
    served = {
        shape(method, route.path)
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods - {"HEAD"}
    }
    assert served == listed
    assert len(served) > 60


def call(world: World, name: str, who: str) -> int:
    method, path = name.split(" ")
    path = path.format(**world.ids)
    if path.endswith("/events"):
        with world.client.stream(method, path, headers=world.headers(who)) as answer:
            return answer.status_code
    return world.client.request(method, path, json=TABLE[name].body, headers=world.headers(who)).status_code


def is_right(name: str, who: str, status: int) -> bool:
    refused = TABLE[name].audience.get(who)
    if refused is not None:
        return status in refused
    return status < 500 and (status not in REFUSALS or name in MISSING_EVEN_SO)


def test_every_reading_route(world: World, client: TestClient) -> None:
    # The stream of a render that waits would not end: let there be an end to it.
    client.post(f"/api/generations/{world.ids['generation']}/cancel", headers=world.headers("owner"))
    names = [name for name in TABLE if name.startswith("GET ")]
    answers = [(name, who, call(world, name, who)) for name in names for who in IDENTITIES]
    assert [answer for answer in answers if not is_right(*answer)] == []


@pytest.mark.parametrize("name", [name for name in TABLE if not name.startswith("GET ")])
def test_writing_route(name: str, world: World, runtime: Runtime, people: People, client: TestClient) -> None:
    for who in IDENTITIES:
        status = call(world, name, who)
        assert is_right(name, who, status), (name, who, status)
        is_let_through = who not in TABLE[name].audience and name not in MISSING_EVEN_SO
        if is_let_through and (name.startswith(("DELETE", "PUT /api/uploads")) or "publish" in name):
            world = build_world(runtime, people, client)


def test_no_answer_to_a_stranger_holds_a_secret(world: World) -> None:
    """Lists, searches, counts and type-ahead tell nothing of private things."""
    secrets = [world.ids[key] for key in ("image", "card", "gallery", "generation", "object", "version")]
    for who in ("guest", "user", "other"):
        for path in (
            "/api/images?q=secret",
            "/api/models?q=secret",
            "/api/galleries?q=secret",
            "/api/images?limit=100",
            "/api/models?sort=title",
            "/api/galleries",
            f"/api/images?owner={world.actors['owner'].public_id}",
            "/api/meta/stats",
            "/api/meta/status",
            "/api/tags",
            "/api/generations",
        ):
            answer = world.client.get(path, headers=world.headers(who))
            assert not any(secret in answer.text for secret in secrets), (who, path)
            assert "secret" not in answer.text, (who, path)
    assert world.client.get("/api/meta/stats").json()["images"] == 0

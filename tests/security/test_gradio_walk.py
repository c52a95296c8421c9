"""Every Gradio function, called by its number as anybody may, as every identity. One that is not listed fails."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import gradio as gr
import pytest
from starlette.testclient import TestClient

from app import create_app, demo
from tests.conftest import People
from tests.security.world import IDENTITIES, World, build_world
from visionsuit.runtime import Runtime

#: function -> (data that asks for what is the owner's, who gets an answer)
EVERYBODY = IDENTITIES
MEMBERS = IDENTITIES[1:]
OWNER_AND_ADMINS = ("owner", "admin", "superadmin")
FUNCTIONS: dict[str, tuple[list[Any], tuple[str, ...]]] = {
    "generate": (["a cat", "", None, None, None, 2, None, 1, 1, None, None, None], MEMBERS),
    "search_models": (["secret", None, None, None, None, None, 24], EVERYBODY),
    "search_images": (["secret", None, None, None, 24], EVERYBODY),
    "job_status": (["{generation}"], OWNER_AND_ADMINS),
    "cancel": (["{generation}"], OWNER_AND_ADMINS),
}


@pytest.fixture
def site(runtime: Runtime, people: People) -> Iterator[World]:
    with TestClient(create_app(runtime), base_url="http://127.0.0.1:7860") as client:  # type: ignore[arg-type]
        yield build_world(runtime, people, client)


def functions() -> dict[str, int]:
    return {str(function.api_name): number for number, function in demo.fns.items()}


def test_every_function_is_listed() -> None:
    assert set(functions()) == set(FUNCTIONS)
    # Listeners of components, timers, renders and server functions would be callable too: there are none.
    assert not [block for block in demo.blocks.values() if getattr(block, "server_fns", None)]
    assert all(isinstance(block, gr.HTML | gr.blocks.BlockContext) for block in demo.blocks.values() if block.elem_id)


def call(world: World, name: str, who: str, session: str) -> dict[str, Any]:
    """The answer of function `name` through the raw queue, by number, as the frontend sends it."""
    data = [item.format(**world.ids) if isinstance(item, str) else item for item in FUNCTIONS[name][0]]
    body = {
        "data": data,
        "fn_index": functions()[name],
        "session_hash": session,
        "event_data": None,
        "trigger_id": None,
    }
    joined = world.client.post("/gradio_api/queue/join", json=body, headers=world.headers(who))
    if joined.status_code != 200:
        return {"success": False, "status": joined.status_code}
    url = f"/gradio_api/queue/data?session_hash={session}"
    with world.client.stream("GET", url, headers=world.headers(who)) as stream:
        for line in stream.iter_lines():
            if line.startswith("data:"):
                message = json.loads(line[5:])
                if message["msg"] == "process_completed":
                    return message
    raise AssertionError("the stream ended without an answer")


def test_by_number(site: World) -> None:
    for name, who in itertools.product(FUNCTIONS, IDENTITIES):
        answer = call(site, name, who, f"{name}-{who}")
        assert bool(answer.get("success")) is (who in FUNCTIONS[name][1]), (name, who, answer)
        text = json.dumps(answer)
        if who in ("guest", "user", "other"):
            # What they send themselves comes back; what is the owner's does not.
            assert "secret picture" not in text
            assert "secret card" not in text
            assert "a secret prompt" not in text
            assert "Traceback" not in text


def test_direct_addresses_ask_the_same(site: World) -> None:
    for kind in ("run", "api"):
        answer = site.client.post(f"/gradio_api/{kind}/job_status", json={"data": [site.ids["generation"]]})
        assert "a secret prompt" not in answer.text
        assert answer.status_code >= 400


def test_the_description_tells_no_secret(site: World) -> None:
    for path in ("/config", "/gradio_api/info", "/", "/generate", "/admin"):
        answer = site.client.get(path)
        assert answer.status_code == 200, path
        for secret in ("secret.key", "password_hash", str(site.ids["generation"])):
            assert secret not in answer.text, path

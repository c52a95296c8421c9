"""The REST contract, through the guards."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.conftest import People
from tests.generation.conftest import finished, lora_bytes, make_card
from visionsuit.engine.mock import MockEngine
from visionsuit.jobs.worker import Worker
from visionsuit.runtime import Runtime

Bearer = Callable[..., dict[str, str]]
WANTED = {"prompt": "a red cat", "steps": 3, "seed": 5}


def post(client: TestClient, headers: dict[str, str], **more: Any) -> Any:
    return client.post("/api/generations", json={**WANTED, **more}, headers=headers)


def test_base_models_say_what_a_form_needs(site: Runtime, client: TestClient) -> None:
    answer = client.get("/api/base-models").json()
    [model] = [item for item in answer["items"] if item["is_default"]]
    assert set(model) == {
        "id", "label", "family", "description", "default", "sizes", "min_size", "max_size", "size_step",
        "prompt_tokens", "suggestions", "samplers", "abilities", "is_default",
    }  # fmt: skip
    assert set(model["default"]) == {"width", "height", "steps", "guidance", "sampler", "schedule"}
    assert {"id": "euler", "label": "Euler"} in answer["samplers"]
    assert {"id": "karras", "label": "Karras"} in answer["schedules"]


def test_the_way_of_a_render(site: Runtime, client: TestClient, people: People, bearer: Bearer, worker: Worker) -> None:
    headers = bearer(people.user)
    card = make_card(site, people.curator)
    answer = post(client, headers, loras=[{"model_id": card.public_id, "weight": 0.8}])
    assert answer.status_code == 202
    made = answer.json()
    assert made["status"] == "queued"
    assert answer.headers["location"] == f"/api/generations/{made['id']}"
    assert made["request"]["loras"] == [
        {
            "model_id": card.public_id,
            "version_id": made["request"]["loras"][0]["version_id"],
            "title": "Line art",
            "trigger": "lineart",
            "weight": 0.8,
            "text_encoder_weight": None,
        }
    ]
    finished(site, people.user, made["id"])
    done = client.get(answer.headers["location"], headers=headers).json()
    assert done["status"] == "completed"
    fields = {"id", "url", "thumb", "seed", "width", "height", "saved", "label", "cell", "variation_seed"}
    assert set(done["images"][0]) == fields
    assert done["images"][0]["seed"] == 5
    assert client.get(done["images"][0]["url"], headers=headers).content.startswith(b"\x89PNG")
    assert client.get(done["images"][0]["url"]).status_code in (401, 403, 404)
    counts = client.get("/api/generations/counts", headers=headers).json()
    assert (counts["all"], counts["completed"], counts["unseen"]) == (1, 1, 1)
    assert client.post(f"/api/generations/{made['id']}/view", headers=headers).status_code == 204
    assert client.get("/api/generations/counts", headers=headers).json()["unseen"] == 0
    listed = client.get("/api/generations?status=completed", headers=headers).json()
    assert [item["id"] for item in listed["items"]] == [made["id"]]
    saved = client.post(
        f"/api/generations/{made['id']}/save", json={"gallery_title": "Cats", "visibility": "public"}, headers=headers
    )
    assert saved.status_code == 200, saved.text
    assert saved.json()["gallery"]["title"] == "Cats"
    assert saved.json()["items"][0]["kind"] == "image"
    assert client.get(saved.json()["items"][0]["url"]).status_code == 200  # public: guests too
    assert client.get("/api/meta/stats").json()["generations"] == 1
    assert client.delete(f"/api/generations/{made['id']}", headers=headers).status_code == 204
    assert client.get(f"/api/generations/{made['id']}", headers=headers).status_code == 404
    assert client.get(done["images"][0]["url"], headers=headers).status_code == 404


def test_refusals_have_the_common_shape(site: Runtime, client: TestClient, people: People, bearer: Bearer) -> None:
    headers = bearer(people.user)
    bad = make_card(site, people.curator, "Wide", data=lora_bytes(inputs=768))
    for body, field, code in (
        ({"steps": 999}, "steps", "invalid_request"),
        ({"steps": "many"}, "steps", "invalid_input"),
        ({"prompt": "\ud800"}, "prompt", "invalid_request"),
        ({"base_model_id": "nope"}, "base_model_id", "unknown_base_model"),
        ({"loras": [{"model_id": bad.public_id}]}, "loras.0.model_id", "lora_incompatible"),
        ({"loras": [{"model_id": bad.public_id, "weight": None}]}, "loras.0.weight", "invalid_input"),
    ):
        answer = client.post(
            "/api/generations",
            content=_json({**WANTED, **body}),
            headers={**headers, "Content-Type": "application/json"},
        )
        assert answer.status_code == 422, answer.text
        assert (answer.json()["error"]["field"], answer.json()["error"]["code"]) == (field, code)
    assert post(client, {}).status_code == 401
    assert client.get("/api/generations").status_code == 401
    for _ in range(5):
        assert post(client, headers).status_code == 202
    sixth = post(client, headers)
    assert sixth.status_code == 429
    assert sixth.json()["error"]["code"] == "too_many_active"
    assert int(sixth.headers["retry-after"]) > 0


def _json(body: dict[str, Any]) -> str:
    import json

    return json.dumps(body)  # escapes lone surrogates, as a hostile client would


@pytest.mark.parametrize("name", ["other_user", "curator", "guest"])
def test_others_renders_do_not_exist(
    site: Runtime, client: TestClient, people: People, bearer: Bearer, name: str
) -> None:
    made = post(client, bearer(people.user)).json()["id"]
    headers = {} if name == "guest" else bearer(getattr(people, name))
    for method, path, body in (
        ("GET", "", None),
        ("GET", "/events", None),
        ("POST", "/cancel", None),
        ("POST", "/view", None),
        ("POST", "/save", {"gallery_title": "x"}),
        ("DELETE", "", None),
    ):
        answer = client.request(method, f"/api/generations/{made}{path}", json=body, headers=headers)
        expected = 401 if name == "guest" and path == "/save" else 404
        assert answer.status_code == expected, (method, path, answer.text)
    assert client.get(f"/api/generations/{made}", headers=bearer(people.user)).json()["status"] == "queued"


def test_the_queue_is_the_administrators(
    site: Runtime, client: TestClient, people: People, bearer: Bearer, engine: MockEngine
) -> None:
    made = post(client, bearer(people.user)).json()["id"]
    for name, expected in (("user", 403), ("curator", 403), ("admin", 200), ("superadmin", 200)):
        headers = bearer(getattr(people, name))
        assert client.get("/api/queue", headers=headers).status_code == expected
        assert client.get("/api/queue/failures", headers=headers).status_code == expected
        assert client.post("/api/queue/pause", headers=headers).status_code == expected
        assert client.post("/api/queue/resume", headers=headers).status_code == expected
    assert client.get("/api/queue").status_code == 401
    admin = bearer(people.admin)
    shown = client.post("/api/queue/pause", headers=admin).json()
    assert shown["paused"] is True
    assert [item["generation_id"] for item in shown["waiting"]] == [made]
    assert shown["waiting"][0]["owner"]["name"] == "user"
    assert "red cat" not in str(shown)
    assert shown["engine"]["name"] == "mock"
    waiting = client.get(f"/api/generations/{made}", headers=bearer(people.user)).json()
    assert "paused" in waiting["wait_reason"]


def test_failures_are_kept_for_administrators(
    site: Runtime, client: TestClient, people: People, bearer: Bearer, engine: MockEngine, worker: Worker
) -> None:
    engine.fail_with = ZeroDivisionError("detail")
    made = post(client, bearer(people.user)).json()["id"]
    finished(site, people.user, made)
    [failure] = client.get("/api/queue/failures", headers=bearer(people.admin)).json()["items"]
    assert failure["generation_id"] == made
    assert "ZeroDivisionError: detail" in failure["trace"]
    shown = client.get(f"/api/generations/{made}", headers=bearer(people.user)).json()
    assert shown["error"]["code"] == "internal"
    assert "detail" not in str(shown)

"""`gradio_client`: the named endpoints, and that there is nothing else."""

from typing import Any

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from pages.endpoints import ENDPOINTS
from pages.shell import build_ui
from tests.browser import until
from tests.pages.conftest import Site
from tests.pages.files import png
from visionsuit.core.actor import Role


def connect(site: Site, email: str | None = None) -> Client:
    headers = {"Authorization": site.client(email).headers["Authorization"]} if email else {}
    return Client(f"{site.url}/", headers=headers, verbose=False)


def test_the_named_endpoints_are_all_there_is(site: Site) -> None:
    named = connect(site).view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(named) == {"/generate", "/search_models", "/search_images", "/job_status", "/cancel"}
    assert [p["parameter_name"] for p in named["/generate"]["parameters"]][:3] == [
        "prompt",
        "negative_prompt",
        "base_model_id",
    ]
    functions = build_ui().fns.values()
    assert [function.name for function in functions] == [endpoint.__name__ for endpoint in ENDPOINTS]


def test_render_and_follow(site: Site) -> None:
    client = connect(site, site.person())
    job = client.predict("a red cat", steps=2, seed=7, api_name="/generate")

    def over() -> Any:
        now = client.predict(job["id"], api_name="/job_status")
        return now if now["status"] in ("completed", "failed") else None

    now = until(over, "the end of the render", seconds=60)
    assert now["status"] == "completed"
    assert now["images"][0]["seed"] == 7
    rest = site.client(None)
    other = connect(site, site.person())
    with pytest.raises(AppError, match="generation_not_found"):
        other.predict(job["id"], api_name="/job_status")
    with pytest.raises(AppError, match="generation_not_found"):
        other.predict(job["id"], api_name="/cancel")
    assert rest.get(f"/api/generations/{job['id']}").status_code in (401, 404)


def test_search_is_the_same_as_over_rest(site: Site) -> None:
    email = site.person(Role.CURATOR)
    with site.client(email) as rest:
        for n, visibility in ((60, "public"), (61, "private")):
            files = {"files": (f"quokka {n}.png", png(n), "image/png")}
            data = {"visibility": visibility, "tags": "quokka"}
            assert rest.post("/api/uploads/images", files=files, data=data).status_code == 201
    for who, count in ((None, 1), (email, 2)):
        found = connect(site, who).predict(query="quokka", tags=["quokka"], api_name="/search_images")
        assert found == site.client(who).get("/api/images", params={"q": "quokka", "tag": "quokka"}).json()
        assert len(found["items"]) == count


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ({"api_name": "/generate", "prompt": "x"}, "not_signed_in"),
        ({"api_name": "/search_models", "limit": 5000}, "invalid_input"),
        ({"api_name": "/search_models", "query": {"$gt": ""}}, "invalid_input"),
        ({"api_name": "/search_images", "sort": "sideways"}, "invalid_input"),
        ({"api_name": "/search_images", "cursor": "nonsense"}, "bad_cursor"),
        ({"api_name": "/job_status", "id": "nothing"}, "not_"),
        ({"api_name": "/job_status", "id": ["a"]}, "invalid_input"),
    ],
)
def test_refusals_are_words_with_a_code(site: Site, call: dict[str, Any], code: str) -> None:
    with pytest.raises(AppError, match=code) as raised:
        connect(site).predict(**call)
    assert "Traceback" not in str(raised.value)


@pytest.mark.parametrize(
    "path",
    ["upload", "file=/etc/passwd", "component_server", "deep_link", "monitoring", "process_recording", "proxy=x"],
)
def test_the_rest_of_gradio_is_closed(site: Site, path: str) -> None:
    for method in ("GET", "POST"):
        assert httpx.request(method, f"{site.url}/gradio_api/{path}").status_code == 403

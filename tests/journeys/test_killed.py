"""The program killed in the middle of a render: whoever asked for it gets it, once."""

from contextlib import closing
from pathlib import Path

import pytest

from tests.browser import until
from tests.server import Server

STARTS_AND_RENDERS_S = 150


@pytest.mark.timeout(400)
def test_a_render_killed_half_way_is_there_once_after_the_restart(tmp_path: Path) -> None:
    data = tmp_path / "data"
    server = Server(data, VISIONSUIT_ENGINE="diffusers")
    order = {"prompt": "red heart", "steps": 60, "seed": 7}
    try:
        with closing(server.start().admin()) as client:
            address = client.post("/api/generations", json=order).headers["Location"]
            until(lambda: client.get(address).json()["step"] >= 3, "the render's third step", STARTS_AND_RENDERS_S)
            waiting = client.post("/api/generations", json={**order, "steps": 2}).headers["Location"]
        server.kill()
        with closing(server.start().admin()) as client:
            for place in (address, waiting):
                until(
                    lambda place=place: client.get(place).json()["status"] == "completed",
                    "the end of the render",
                    STARTS_AND_RENDERS_S,
                )
            renders = client.get("/api/generations").json()["items"]
            assert sorted(len(render["images"]) for render in renders) == [1, 1]
            images = [image for render in renders for image in render["images"]]
            for image in images:
                assert client.get(image["url"]).content.startswith(b"\x89PNG")
    finally:
        server.kill()
    kept = {path.name for path in (data / "storage" / "outputs").rglob("*") if path.is_file()}
    files = [url for image in images for url in (image["url"], image["thumb"]["small"], image["thumb"]["large"])]
    assert kept == {url.rpartition("/")[2] for url in files}, "nothing else was left behind"

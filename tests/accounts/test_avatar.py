"""Avatars: cut, cleaned, seen by everybody, replaced without leftovers."""

import io
from collections.abc import Callable

import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.conftest import People
from tests.postgres import both_databases
from visionsuit.core.actor import Actor
from visionsuit.core.config import Settings
from visionsuit.runtime import Runtime
from visionsuit.storage.base import Bucket

Bearer = Callable[[Actor], dict[str, str]]
PATH = "/api/users/me/avatar"


def picture(kind: str = "PNG", size: tuple[int, int] = (600, 400), colour: str = "#8b5cf6") -> bytes:
    image = Image.new("RGB", size, colour)
    # The left and right ends are cut off.
    image.paste("#ff0000", (0, 0, (size[0] - size[1]) // 2, size[1]))
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    out = io.BytesIO()
    image.save(out, kind, exif=exif)
    return out.getvalue()


def stored(runtime: Runtime) -> list[str]:
    return [info.object_id for info in runtime.storage.list_objects(Bucket.AVATARS)]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_set(client: TestClient, people: People, bearer: Bearer, kind: str) -> None:
    answer = client.put(PATH, files={"file": ("me.gif", picture(kind))}, headers=bearer(people.user))
    assert answer.status_code == 200
    url = answer.json()["avatar_url"]
    assert url.startswith("/api/storage/avatars/")
    assert client.get(f"/api/users/{people.user.public_id}").json()["avatar_url"] == url
    served = client.get(url)
    assert (served.status_code, served.headers["content-type"]) == (200, "image/webp")
    assert b"taken at home" not in served.content
    with Image.open(io.BytesIO(served.content)) as image:
        assert (image.format, image.size) == ("WEBP", (256, 256))
        red, green, blue = image.convert("RGB").getpixel((3, 128))  # type: ignore[misc]
        assert blue > 200 > green
        assert red < 200


def test_small_ones_are_not_enlarged(client: TestClient, people: People, bearer: Bearer) -> None:
    url = client.put(PATH, files={"file": ("a.png", picture(size=(60, 40)))}, headers=bearer(people.user)).json()[
        "avatar_url"
    ]
    with Image.open(io.BytesIO(client.get(url).content)) as image:
        assert image.size == (40, 40)


@both_databases
def test_replaced_and_removed_leave_nothing(
    client: TestClient, people: People, bearer: Bearer, runtime: Runtime
) -> None:
    headers = bearer(people.user)
    first = client.put(PATH, files={"file": ("a.png", picture())}, headers=headers).json()["avatar_url"]
    second = client.put(PATH, files={"file": ("a.png", picture(colour="#000"))}, headers=headers).json()["avatar_url"]
    assert first != second
    assert client.get(first).status_code == 404
    assert stored(runtime) == [second.rpartition("/")[2]]
    for _ in range(2):
        assert client.delete(PATH, headers=headers).status_code == 204
    assert client.get("/api/auth/me", headers=headers).json()["avatar_url"] is None
    assert stored(runtime) == []


def gif() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (20, 20)).save(out, "GIF")
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (gif(), 415, "unsupported_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported_image"),
        (picture()[:200], 422, "bad_image"),
        (b"", 422, "missing_file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(5 * 1024**2), 413, "file_too_large"),
        (picture("PNG", (9000, 8000)), 413, "image_too_large"),
    ],
    ids=["gif", "svg", "cut off", "empty", "too many bytes", "too many pixels"],
)
def test_refused(
    client: TestClient, people: People, bearer: Bearer, runtime: Runtime, data: bytes, status: int, code: str
) -> None:
    answer = client.put(PATH, files={"file": ("me.png", data)}, headers=bearer(people.user))
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert stored(runtime) == []


def test_no_form(client: TestClient, people: People, bearer: Bearer) -> None:
    assert client.put(PATH, content=picture(), headers=bearer(people.user)).status_code == 400
    assert client.put(PATH, files={"other": ("a.png", picture())}, headers=bearer(people.user)).status_code == 422


def test_guests(client: TestClient, settings: Settings) -> None:
    assert client.put(PATH, files={"file": ("a.png", picture())}).status_code == 401
    assert client.delete(PATH).status_code == 401

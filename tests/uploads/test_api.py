"""Uploads through the REST API, with both storages: what becomes of good files, and that nothing stays of bad ones."""

import io
import json
import pickle
import secrets
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from fastapi import FastAPI
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sqlmodel import col, func, select
from starlette.testclient import TestClient

from tests.conftest import People
from tests.s3server import empty_buckets
from tests.uploads.weights import make_lora, make_picture
from visionsuit.core.actor import SYSTEM, Actor
from visionsuit.core.config import StorageSettings
from visionsuit.images.tables import Image as ImageRow
from visionsuit.main import guarded
from visionsuit.media import png
from visionsuit.modelcards.tables import ModelCard
from visionsuit.objects.tables import StorageObject
from visionsuit.runtime import Runtime
from visionsuit.storage.base import Bucket
from visionsuit.storage.folder import FolderStorage
from visionsuit.storage.s3 import S3Storage
from visionsuit.uploads.tables import UploadDraft, UploadFile

Bearer = Callable[[Actor], dict[str, str]]
OCTETS = "application/octet-stream"


@pytest.fixture(scope="module")
def s3(s3_settings: StorageSettings) -> S3Storage:
    """One for all tests of this file: a client and seven buckets take longer than most of them."""
    storage = S3Storage(s3_settings.model_copy(update={"bucket_prefix": f"u{secrets.token_hex(4)}-"}))
    storage.prepare()
    return storage


@pytest.fixture(params=["folder", "s3"])
def runtime(request: pytest.FixtureRequest, runtime: Runtime) -> Runtime:
    """With an empty storage."""
    if request.param == "folder":
        return runtime
    storage: S3Storage = request.getfixturevalue("s3")
    empty_buckets(storage._prefix)
    return replace(runtime, storage=storage)


@pytest.fixture
def curator(people: People, bearer: Bearer) -> dict[str, str]:
    return bearer(people.curator)


def stored(runtime: Runtime) -> dict[str, set[str]]:
    """Objects in each bucket that has any."""
    found = {bucket.value: {info.object_id for info in runtime.storage.list_objects(bucket)} for bucket in Bucket}
    return {bucket: ids for bucket, ids in found.items() if ids}


def assert_nothing_left(runtime: Runtime) -> None:
    """No file, no row, no lock, no temporary file."""
    assert stored(runtime) == {}
    with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        for table in (UploadDraft, UploadFile, StorageObject, ImageRow, ModelCard):
            assert ctx.session.exec(select(func.count()).select_from(table)).one() == 0, table
    assert_no_temporary_files(runtime)


def assert_no_temporary_files(runtime: Runtime) -> None:
    data = runtime.settings.data_dir
    assert list((data / "uploads").glob("*")) == []
    assert list(runtime.settings.scratch_dir.glob("*")) == []
    if isinstance(runtime.storage, FolderStorage):
        assert list((runtime.storage.root / ".incoming").iterdir()) == []
    elif isinstance(runtime.storage, S3Storage):
        for bucket in Bucket:
            assert not runtime.storage._client.list_multipart_uploads(Bucket=runtime.storage._name(bucket)).get(
                "Uploads"
            )


def assert_rows_and_files_agree(runtime: Runtime) -> None:
    with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        rows = ctx.session.exec(select(StorageObject)).all()
        assert ctx.session.exec(select(func.count()).select_from(UploadDraft)).one() == 0
    assert {row.id for row in rows} == set().union(*stored(runtime).values())
    for row in rows:
        assert runtime.storage.size(Bucket(row.bucket), row.id) == row.size_bytes
    assert_no_temporary_files(runtime)


def send_model(client: TestClient, headers: dict[str, str], file: bytes | None = None, **fields: object):  # type: ignore[no-untyped-def]
    name = fields.pop("name", "ink_style.safetensors")
    cover = fields.pop("cover", make_picture(1))
    data = {"title": "Ink style", "trigger": "ink style"} | fields
    files = {"file": (name, make_lora() if file is None else file, OCTETS), "cover": ("cover.png", cover, "image/png")}
    return client.post("/api/uploads/models", headers=headers, data=data, files=files)


def send_images(client: TestClient, headers: dict[str, str], *pictures: bytes | tuple[str, bytes], **fields: object):  # type: ignore[no-untyped-def]
    named = [entry if isinstance(entry, tuple) else (f"picture_{n}.png", entry) for n, entry in enumerate(pictures)]
    files = [("files", (name, data, "image/png")) for name, data in named]
    return client.post("/api/uploads/images", headers=headers, data=fields, files=files)


def code(answer) -> str:  # type: ignore[no-untyped-def]
    return str(answer.json()["error"]["code"])


def test_a_model(runtime: Runtime, client: TestClient, curator: dict[str, str]) -> None:
    weights = make_lora()
    answer = send_model(
        client, curator, weights, description="*Bold* ink", tags=["ink", "black and white"], visibility="public"
    )
    assert answer.status_code == 201, answer.text
    card = answer.json()
    assert (card["title"], card["trigger"], card["type"]) == ("Ink style", "ink style", "LORA")
    assert card["tags"] == ["ink", "black and white"]
    assert (card["family"], card["base_model"]) == ("sd1", "SD 1.5")
    version = card["versions"][0]
    assert version["facts"]["rank"] == 4
    assert version["facts"]["tags"] == ["ink style", "1girl"]
    assert version["primary"]
    assert version["file_name"] == "ink_style.safetensors"
    assert client.get(version["download_url"], headers=curator).content == weights
    cover = card["cover"]
    small = Image.open(io.BytesIO(client.get(cover["small"]).content))
    assert (small.format, small.size) == ("WEBP", (320, 240))
    assert (cover["width"], cover["height"]) == (400, 300)
    assert cover["placeholder"].startswith("data:image/webp;base64,")
    assert client.get(f"/api/models/{card['id']}").json()["title"] == "Ink style"
    assert_rows_and_files_agree(runtime)


def test_a_model_in_a_zip(runtime: Runtime, client: TestClient, curator: dict[str, str]) -> None:
    weights, out = make_lora(), io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("readme.txt", "hello")
        archive.writestr("deep/my lora.safetensors", weights)
    answer = send_model(client, curator, out.getvalue(), name="lora.zip")
    assert answer.status_code == 201, answer.text
    version = answer.json()["versions"][0]
    assert version["file_name"] == "my lora.safetensors"
    assert client.get(version["download_url"], headers=curator).content == weights
    assert_rows_and_files_agree(runtime)


def test_images_into_a_new_gallery(runtime: Runtime, client: TestClient, curator: dict[str, str]) -> None:
    info = PngInfo()
    info.add_text("parameters", "a fox\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42, Size: 400x300")
    pictures = [("red_fox.png", make_picture(1, pnginfo=info)), ("two.webp", make_picture(2, "WEBP"))]
    answer = send_images(client, curator, *pictures, gallery_title="Foxes", tags=["fox"], visibility="public")
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert [item["title"] for item in body["items"]] == ["red fox", "two"]
    assert body["gallery"]["title"] == "Foxes"
    assert body["gallery"]["image_count"] == 2
    first = client.get(f"/api/images/{body['items'][0]['id']}").json()
    assert first["recipe"]["prompt"] == "a fox"
    assert first["recipe"]["seed"] == 42
    assert first["tags"] == ["fox"]
    assert (first["width"], first["height"], first["mime"]) == (400, 300, "image/png")
    assert client.get(first["url"]).status_code == 200
    more = send_images(client, curator, make_picture(3), gallery_id=body["gallery"]["id"], title="Third").json()
    assert more["items"][0]["title"] == "Third"
    assert more["gallery"]["image_count"] == 3
    again = send_images(client, curator, make_picture(4), gallery_title="Foxes").json()
    assert again["gallery"]["id"] == body["gallery"]["id"]
    assert_rows_and_files_agree(runtime)


def test_who_may_upload(runtime: Runtime, people: People, client: TestClient, bearer: Bearer) -> None:
    for path in ("models", "images"):
        for headers, status in (({}, 401), (bearer(people.user), 403)):
            files = {"files": ("a.png", make_picture(), "image/png")}
            assert client.post(f"/api/uploads/{path}", headers=headers, files=files).status_code == status
    assert client.post("/api/uploads/drafts", json={"kind": "model", "files": []}).status_code == 401
    assert_nothing_left(runtime)
    assert send_images(client, bearer(people.admin), make_picture()).status_code == 201


def test_a_gallery_of_somebody_else_takes_nothing(
    runtime: Runtime, people: People, client: TestClient, curator: dict[str, str], bearer: Bearer
) -> None:
    made = send_images(client, curator, make_picture(1), gallery_title="Mine", visibility="public").json()
    before = stored(runtime)
    other = bearer(people.other_curator)
    answer = send_images(client, other, make_picture(2), gallery_id=made["gallery"]["id"])
    assert answer.status_code == 403
    assert send_images(client, other, make_picture(2), gallery_id="nope").status_code == 404
    assert stored(runtime) == before
    assert_rows_and_files_agree(runtime)


def test_the_same_bytes_name_the_card_that_has_them(
    runtime: Runtime, people: People, client: TestClient, curator: dict[str, str], bearer: Bearer
) -> None:
    card = send_model(client, curator, visibility="public").json()
    before = stored(runtime)
    answer = send_model(client, bearer(people.other_curator), title="Copy")
    assert answer.status_code == 409
    error = answer.json()["error"]
    assert error["code"] == "duplicate_file"
    assert error["existing"] == {"kind": "model", "id": card["id"], "title": "Ink style"}
    assert "Ink style" in error["message"]
    image = send_images(client, curator, make_picture(7), visibility="public").json()["items"][0]
    answer = send_images(client, curator, make_picture(8), make_picture(7))
    assert answer.json()["error"]["existing"]["id"] == image["id"]
    # What was behind the picture is gone when it is compared: the same picture stays the same.
    assert code(send_images(client, curator, make_picture(7) + b"trailing junk")) == "duplicate_file"
    assert len(stored(runtime)["images"]) == 1
    assert stored(runtime)["models"] == before["models"]
    assert_rows_and_files_agree(runtime)


def test_what_one_may_not_see_is_not_given_away(
    runtime: Runtime, people: People, client: TestClient, curator: dict[str, str], bearer: Bearer
) -> None:
    send_model(client, curator, visibility="private")
    send_images(client, curator, make_picture(1), visibility="private")
    other = bearer(people.other_curator)
    assert send_model(client, other).status_code == 201
    assert send_images(client, other, make_picture(1)).status_code == 201
    assert_rows_and_files_agree(runtime)


def test_the_same_picture_twice_in_one_request(runtime: Runtime, client: TestClient, curator: dict[str, str]) -> None:
    answer = send_images(client, curator, ("a.png", make_picture(1)), ("b.png", make_picture(1)))
    assert answer.status_code == 422
    assert "a.png and b.png" in answer.json()["error"]["message"]
    assert_nothing_left(runtime)


def zip_of(*members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()


def lying_lora() -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(100)


@pytest.mark.parametrize(
    ("data", "name", "status", "expected"),
    [
        (lying_lora(), "x.safetensors", 422, "bad_safetensors"),
        (make_lora()[:-7], "x.safetensors", 422, "bad_safetensors"),
        (make_lora() + b"more", "x.safetensors", 422, "bad_safetensors"),
        (b"", "x.safetensors", 422, "bad_safetensors"),
        (b"\0" * 5000, "x.safetensors", 422, "bad_safetensors"),
        (struct.pack("<Q", 2**62) + b"{" * 100, "x.safetensors", 422, "bad_safetensors"),
        (pickle.dumps(list(range(1000))), "x.safetensors", 415, "unsupported_weights"),
        (zip_of(("archive/data.pkl", b"x")), "x.pt", 415, "unsupported_weights"),
        (zip_of(("../../x.safetensors", make_lora())), "x.zip", 422, "bad_archive"),
        (zip_of(("a.safetensors", b"1"), ("b.safetensors", b"2")), "x.zip", 422, "bad_archive"),
        (zip_of(("a.safetensors", b"not weights at all")), "x.zip", 422, "bad_safetensors"),
        (zip_of(("a.safetensors", make_lora()))[:-30], "x.zip", 422, "bad_archive"),
        (b"PK\x03\x04" + bytes(50), "x.zip", 422, "bad_archive"),
        (make_picture(), "x.safetensors", 422, "bad_safetensors"),
    ],
)
def test_bad_weights_are_refused_and_leave_nothing(
    runtime: Runtime, client: TestClient, curator: dict[str, str], data: bytes, name: str, status: int, expected: str
) -> None:
    answer = send_model(client, curator, data, name=name)
    assert (answer.status_code, code(answer)) == (status, expected), answer.text
    assert_nothing_left(runtime)


def gif() -> bytes:
    out = io.BytesIO()
    Image.new("P", (9, 9)).save(out, "GIF")
    return out.getvalue()


def bomb() -> bytes:
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunks = png.build_chunk(b"IHDR", header) + png.build_chunk(b"IDAT", zlib.compress(bytes(10_000)))
    return png.SIGNATURE + chunks + png.build_chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "status", "expected"),
    [
        (gif(), 415, "unsupported_image"),
        (b"<svg onload='alert(1)'/>", 415, "unsupported_image"),
        (b"", 415, "unsupported_image"),
        (make_picture()[:-40], 422, "bad_image"),
        (bomb(), 413, "image_too_large"),
        (make_picture() + bytes(11 * 1024 * 1024), 413, "file_too_large"),
    ],
)
def test_bad_pictures_are_refused_and_take_the_good_ones_with_them(
    runtime: Runtime, client: TestClient, curator: dict[str, str], data: bytes, status: int, expected: str
) -> None:
    answer = send_images(client, curator, make_picture(1), ("holiday.png", data), make_picture(2))
    assert (answer.status_code, code(answer)) == (status, expected), answer.text
    assert "holiday.png" in answer.json()["error"]["message"]
    assert send_model(client, curator, cover=data).status_code == status
    assert_nothing_left(runtime)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"title": "   "}, "title"),
        ({"title": "x" * 181}, "title"),
        ({"trigger": ""}, "trigger"),
        ({"trigger": "x" * 181}, "trigger"),
        ({"tags": [f"tag {n}" for n in range(25)]}, "tags"),
        ({"tags": ["x" * 61]}, "tags"),
        ({"description": "x" * 1501}, "description"),
        ({"type": "CKPT"}, "type"),
        ({"visibility": "everyone"}, "visibility"),
        ({"adult": "perhaps"}, "adult"),
    ],
)
def test_bad_fields_are_named_and_leave_nothing(
    runtime: Runtime, client: TestClient, curator: dict[str, str], fields: dict[str, object], field: str
) -> None:
    answer = send_model(client, curator, **fields)
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["field"] == field
    assert_nothing_left(runtime)


def test_missing_and_superfluous_files(runtime: Runtime, client: TestClient, curator: dict[str, str]) -> None:
    post = lambda path, **body: client.post(f"/api/uploads/{path}", headers=curator, **body)  # noqa: E731
    data = {"title": "a", "trigger": "b"}
    weights, cover = ("a.safetensors", make_lora(), OCTETS), ("a.png", make_picture(), "image/png")
    assert post("models", data=data, files={"cover": cover}).json()["error"]["field"] == "file"
    assert post("models", data=data, files={"file": weights}).json()["error"]["field"] == "cover"
    twice = [("file", weights), ("file", weights), ("cover", cover)]
    assert "exactly one" in post("models", data=data, files=twice).json()["error"]["message"]
    assert post("models", data=data, files={"other": weights}).status_code == 422
    assert post("models", data=data | {"file": "text"}, files={"cover": cover}).json()["error"]["field"] == "file"
    assert code(post("images", data={"title": "a"}, files={"files": ("", b"")})) in ("missing_file", "invalid_input")
    many = [("files", (f"{n}.png", make_picture(n, size=(8, 8)), "image/png")) for n in range(13)]
    answer = post("images", files=many)
    assert (answer.status_code, code(answer)) == (413, "too_many_files")
    assert_nothing_left(runtime)


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{}", 400),
        ("multipart/form-data", b"", 400),
        ("multipart/form-data; boundary=abc", b"", 400),
        ("multipart/form-data; boundary=abc", b"nonsense without any boundary", 400),
        ("multipart/form-data; boundary=abc", b"--abc\r\nContent-Disposition: form-data\r\n\r\nx\r\n--abc--\r\n", 400),
        (
            "multipart/form-data; boundary=abc",
            b'--abc\r\nContent-Disposition: form-data; name="title"\r\n\r\nhalf',
            400,
        ),
        ("multipart/form-data; boundary=" + "a" * 300, b"", 400),
        ("multipart/form-data; boundary=abc", b"--abc\r\nX: " + b"y" * 100_000, 400),
        (
            "multipart/form-data; boundary=abc",
            b'--abc\r\nContent-Disposition: form-data; name="description"\r\n\r\n'
            + b"x" * 300_000
            + b"\r\n--abc--\r\n",
            413,
        ),
        (
            "multipart/form-data; boundary=abc",
            b'--abc\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 300 + b"--abc--\r\n",
            413,
        ),
    ],
)
def test_malformed_forms(
    runtime: Runtime, client: TestClient, curator: dict[str, str], kind: str, body: bytes, status: int
) -> None:
    answer = client.post("/api/uploads/images", headers=curator | {"Content-Type": kind}, content=body)
    assert answer.status_code == status, answer.text
    assert_nothing_left(runtime)


def test_a_form_that_breaks_off_within_a_file_leaves_nothing(
    runtime: Runtime, client: TestClient, curator: dict[str, str]
) -> None:
    head = b'--abc\r\nContent-Disposition: form-data; name="file"; filename="a.safetensors"\r\n\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=abc"}
    answer = client.post("/api/uploads/models", headers=curator | kind, content=head + make_lora()[:3000])
    assert (answer.status_code, code(answer)) == (400, "upload_broken")
    assert_nothing_left(runtime)


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd.png", "a" * 300 + ".png", "<script>alert(1)</script>.png", "a\u202eb.png"]
)
def test_names_are_only_text(runtime: Runtime, client: TestClient, curator: dict[str, str], name: str) -> None:
    answer = send_images(client, curator, (name, make_picture(1)), visibility="public")
    assert answer.status_code == 201, answer.text
    image = client.get(f"/api/images/{answer.json()['items'][0]['id']}").json()
    assert len(image["file_name"]) <= 255
    assert len(image["title"]) <= 180
    header = client.get(image["url"]).headers["content-disposition"]
    assert "/" not in header.split(";")[1]
    assert_rows_and_files_agree(runtime)


def test_limits_come_from_the_settings(runtime: Runtime, api: FastAPI, people: People, bearer: Bearer) -> None:
    limits = runtime.settings.limits.model_copy(update={"weights_bytes": 5000, "image_bytes": 3000})
    small = replace(runtime, settings=runtime.settings.model_copy(update={"limits": limits}))
    headers = bearer(people.curator)
    with TestClient(guarded(api, small), base_url="http://127.0.0.1:7860") as client:  # type: ignore[arg-type]
        answer = send_model(client, headers, make_lora(rank=8))
        assert (answer.status_code, code(answer)) == (413, "file_too_large")
        assert "4.88 KB" in answer.json()["error"]["message"]
        answer = send_model(client, headers, zip_of(("a.safetensors", bytes(100_000))))
        assert (answer.status_code, code(answer)) == (413, "archive_too_large")
        draft = {"kind": "model", "files": [{"name": "a.safetensors", "size_bytes": 6000, "role": "weights"}]}
        assert code(client.post("/api/uploads/drafts", headers=headers, json=draft)) == "file_too_large"
    assert_nothing_left(runtime)


MODEL_DRAFT = {
    "kind": "model",
    "files": [{"name": "ink.safetensors", "size_bytes": None, "role": "weights"}, {"name": "c.png", "role": "cover"}],
}


def test_a_draft_from_announcement_to_card(runtime: Runtime, client: TestClient, curator: dict[str, str]) -> None:
    opened = client.post("/api/uploads/drafts", headers=curator, json=MODEL_DRAFT)
    assert opened.status_code == 201, opened.text
    draft = opened.json()
    address = f"/api/uploads/drafts/{draft['id']}"
    fields = {"title": "Ink", "trigger": "ink", "tags": ["a"], "visibility": "public"}
    weights, cover = (file["upload_url"] for file in draft["files"])
    early = client.post(f"{address}/publish", headers=curator, json=fields)
    assert (early.status_code, code(early)) == (409, "draft_incomplete")
    bad = client.put(weights, headers=curator, content=b"nonsense")
    assert (bad.status_code, code(bad)) == (422, "bad_safetensors")
    sent = client.put(weights, headers=curator, content=make_lora(1))
    assert sent.status_code == 200, sent.text
    assert sent.json()["found"]["base_model"] == "SD 1.5"
    again = client.put(weights, headers=curator, content=make_lora(2)).json()
    assert again["sha256"] != sent.json()["sha256"]
    assert client.put(weights, headers=curator, content=b"nonsense").status_code == 422
    assert client.put(cover, headers=curator, content=make_picture()).json()["found"]["width"] == 400
    seen = client.get(address, headers=curator).json()
    assert [file["received"] for file in seen["files"]] == [True, True]
    assert seen["files"][0]["sha256"] == again["sha256"], "a bad second try leaves the first"
    refused = client.post(f"{address}/publish", headers=curator, json=fields | {"title": ""})
    assert (refused.status_code, refused.json()["error"]["field"]) == (422, "title")
    published = client.post(f"{address}/publish", headers=curator, json=fields)
    assert published.status_code == 201, published.text
    card = published.json()
    assert card["versions"][0]["sha256"] == again["sha256"]
    assert client.get(card["versions"][0]["download_url"], headers=curator).content == make_lora(2)
    assert client.post(f"{address}/publish", headers=curator, json=fields).status_code == 404
    assert client.get(address, headers=curator).status_code == 404
    assert_rows_and_files_agree(runtime)
    assert len(stored(runtime)["models"]) == 1


def test_a_draft_of_images(runtime: Runtime, client: TestClient, curator: dict[str, str]) -> None:
    body = {"kind": "images", "files": [{"name": f"{n}.png", "role": "image"} for n in range(2)]}
    draft = client.post("/api/uploads/drafts", headers=curator, json=body).json()
    for n, file in enumerate(draft["files"]):
        assert client.put(file["upload_url"], headers=curator, content=make_picture(n)).status_code == 200
    answer = client.post(f"/api/uploads/drafts/{draft['id']}/publish", headers=curator, json={"gallery_title": "G"})
    assert answer.status_code == 201, answer.text
    assert len(answer.json()["items"]) == 2
    assert answer.json()["gallery"]["title"] == "G"
    assert_rows_and_files_agree(runtime)


def test_a_draft_answers_duplicates_when_the_file_arrives(
    runtime: Runtime, client: TestClient, curator: dict[str, str]
) -> None:
    card = send_model(client, curator).json()
    before = stored(runtime)
    draft = client.post("/api/uploads/drafts", headers=curator, json=MODEL_DRAFT).json()
    answer = client.put(draft["files"][0]["upload_url"], headers=curator, content=make_lora())
    assert answer.json()["error"]["existing"]["id"] == card["id"]
    assert stored(runtime) == before


def test_drafts_are_their_owners(
    runtime: Runtime, people: People, client: TestClient, curator: dict[str, str], bearer: Bearer
) -> None:
    draft = client.post("/api/uploads/drafts", headers=curator, json=MODEL_DRAFT).json()
    address = f"/api/uploads/drafts/{draft['id']}"
    for headers, status in (
        ({}, 401),
        (bearer(people.user), 403),
        (bearer(people.other_curator), 404),
        (bearer(people.admin), 404),
    ):
        assert client.get(address, headers=headers).status_code == status
        assert client.put(f"{address}/files/0", headers=headers, content=b"x").status_code == status
        assert client.post(f"{address}/publish", headers=headers, json={}).status_code == status
        assert client.delete(address, headers=headers).status_code == status
    assert client.put(f"{address}/files/2", headers=curator, content=b"x").status_code == 404
    assert client.put(f"{address}/files/-1", headers=curator, content=b"x").status_code == 404
    client.put(f"{address}/files/0", headers=curator, content=make_lora())
    assert client.delete(address, headers=curator).status_code == 204
    assert_nothing_left(runtime)


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "model", "files": []},
        {"kind": "model", "files": [{"name": "a", "role": "image"}]},
        {"kind": "model", "files": [{"name": "a", "role": "weights"}] * 2},
        {"kind": "images", "files": [{"name": "a", "role": "weights"}]},
        {"kind": "images", "files": [{"name": "a", "role": "image"}] * 13},
        {"kind": "images", "files": [{"name": "a", "role": "image", "size_bytes": 11 * 1024**2}]},
        {"kind": "other", "files": [{"name": "a", "role": "image"}]},
    ],
)
def test_drafts_that_cannot_be(runtime: Runtime, client: TestClient, curator: dict[str, str], body: object) -> None:
    assert client.post("/api/uploads/drafts", headers=curator, json=body).status_code in (413, 422)
    assert_nothing_left(runtime)


def test_open_drafts_are_bounded(runtime: Runtime, client: TestClient, curator: dict[str, str]) -> None:
    statuses = [client.post("/api/uploads/drafts", headers=curator, json=MODEL_DRAFT).status_code for _ in range(21)]
    assert statuses == [201] * 20 + [409]


def test_deleting_what_was_uploaded_leaves_nothing(
    runtime: Runtime, client: TestClient, curator: dict[str, str]
) -> None:
    card = send_model(client, curator).json()
    image = send_images(client, curator, make_picture(5)).json()["items"][0]
    assert client.delete(f"/api/models/{card['id']}", headers=curator).status_code == 204
    assert client.delete(f"/api/images/{image['id']}", headers=curator).status_code == 204
    assert_nothing_left(runtime)


def test_search_finds_an_upload(runtime: Runtime, client: TestClient, curator: dict[str, str]) -> None:
    send_model(client, curator, title="Wandering heron", visibility="public")
    found = client.get("/api/models", params={"q": "heron"}).json()["items"]
    assert [item["title"] for item in found] == ["Wandering heron"]
    with runtime.open_ctx(SYSTEM, read_only=True) as ctx:
        assert ctx.session.exec(select(func.count()).where(col(ModelCard.title) == "Wandering heron")).one() == 1

import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from fastapi import FastAPI
from sqlmodel import select
from starlette.testclient import TestClient

from tests.conftest import People
from visionsuit.audit.tables import AuditEntry
from visionsuit.core.actor import Actor
from visionsuit.core.config import StorageSettings
from visionsuit.core.ids import new_id
from visionsuit.downloads.serving import SmallFiles, content_disposition
from visionsuit.images.service import create_image
from visionsuit.main import guarded
from visionsuit.modelcards.queries import get_card, list_versions
from visionsuit.modelcards.service import create_card
from visionsuit.objects import service as objects
from visionsuit.objects.service import Subject
from visionsuit.runtime import Runtime
from visionsuit.storage.base import Bucket
from visionsuit.storage.s3 import S3Storage
from visionsuit.visibility import Visibility

Bearer = Callable[[Actor], dict[str, str]]
DATA = bytes(range(256)) * 40


def make_image(
    runtime: Runtime, owner: Actor, visibility: Visibility, *, adult: bool = False, name: str = "fox.png"
) -> str:
    """An image page with one file; returns the file's address."""
    with runtime.open_ctx(owner) as ctx:
        file = objects.write(runtime, Bucket.IMAGES, DATA, mime="image/png", file_name=name)
        image = create_image(
            ctx,
            title="fox",
            object_id=file.object_id,
            file_name=name,
            mime="image/png",
            size_bytes=len(DATA),
            sha256=file.sha256,
            width=8,
            height=8,
            thumb_small_id=None,
            thumb_large_id=None,
            visibility=visibility,
            is_adult=adult,
        )
        objects.adopt(ctx, file, Subject("image", image.public_id))
    return f"/api/storage/images/{file.object_id}"


def make_model(runtime: Runtime, owner: Actor, visibility: Visibility = Visibility.PUBLIC) -> tuple[str, str, str]:
    """A card with one file; returns card id, version id and the file's storage address."""
    with runtime.open_ctx(owner) as ctx:
        data = DATA * 200
        file = objects.write(runtime, Bucket.MODELS, data, mime="application/octet-stream", file_name="ink.safetensors")
        card = create_card(
            ctx,
            title="ink",
            object_id=file.object_id,
            file_name="ink.safetensors",
            size_bytes=len(data),
            sha256=file.sha256,
            trigger="ink",
            visibility=visibility,
        )
        objects.adopt(ctx, file, Subject("model", card.public_id))
        version = list_versions(ctx, card)[0]
    return card.public_id, version.public_id, f"/api/storage/models/{file.object_id}"


@pytest.mark.parametrize("visibility", list(Visibility))
def test_a_picture_goes_to_whoever_sees_its_page(
    runtime: Runtime, people: People, client: TestClient, bearer: Bearer, visibility: Visibility
) -> None:
    address = make_image(runtime, people.curator, visibility)
    open_to_all = visibility is not Visibility.PRIVATE
    assert client.get(address).status_code == (200 if open_to_all else 404)
    for actor in (people.user, people.other_curator):
        assert client.get(address, headers=bearer(actor)).status_code == (200 if open_to_all else 404)
    for actor in (people.curator, people.admin):
        assert client.get(address, headers=bearer(actor)).content == DATA


def test_adult_pictures_need_the_viewers_own_switch(
    runtime: Runtime, people: People, client: TestClient, bearer: Bearer
) -> None:
    address = make_image(runtime, people.curator, Visibility.PUBLIC, adult=True)
    grown = people.make("grown", people.user.role, shows_adult=True)
    assert client.get(address).status_code == 404
    assert client.get(address, headers=bearer(people.user)).status_code == 404
    assert client.get(address, headers=bearer(people.admin)).status_code == 404
    assert client.get(address, headers=bearer(grown)).status_code == 200
    assert client.get(address, headers=bearer(people.curator)).status_code == 200


@pytest.mark.parametrize(
    ("kind", "seen_by"),
    [
        ("avatar", {"guest", "user", "curator", "admin"}),
        ("generation", {"curator", "admin"}),
        ("new kind", {"curator", "admin"}),
    ],
)
def test_what_else_a_file_may_belong_to(
    runtime: Runtime, people: People, client: TestClient, bearer: Bearer, kind: str, seen_by: set[str]
) -> None:
    with runtime.open_ctx(people.curator) as ctx:
        row = objects.store(ctx, Bucket.OUTPUTS, b"x", Subject(kind, new_id()), mime="image/webp")
    for name in ("guest", "user", "curator", "admin"):
        headers = {} if name == "guest" else bearer(getattr(people, name))
        found = client.get(f"/api/storage/outputs/{row.id}", headers=headers)
        assert found.status_code == (200 if name in seen_by else 404), name


def test_files_of_a_page_that_is_gone_are_gone(runtime: Runtime, people: People, client: TestClient) -> None:
    with runtime.open_ctx(people.curator) as ctx:
        row = objects.store(ctx, Bucket.IMAGES, b"x", Subject("image", "no such image"), mime="image/png")
    assert client.get(f"/api/storage/images/{row.id}").status_code == 404


@pytest.mark.parametrize(
    "path", ["images/..%2f..%2fsecret.key", "images/nothing", "nowhere/abcdefgh", "IMAGES/abcdefgh", "images/%00"]
)
def test_addresses_that_lead_nowhere(client: TestClient, path: str) -> None:
    answer = client.get(f"/api/storage/{path}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] in ("object_missing", "not_found")


def test_the_right_bucket_is_part_of_the_address(runtime: Runtime, people: People, client: TestClient) -> None:
    address = make_image(runtime, people.curator, Visibility.PUBLIC)
    assert client.get(address.replace("/images/", "/previews/")).status_code == 404


def test_headers_of_a_picture(runtime: Runtime, people: People, client: TestClient) -> None:
    address = make_image(runtime, people.curator, Visibility.PUBLIC, name='a "b"; ünï\r\nX: y.png')
    answer = client.get(address)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    disposition = answer.headers["content-disposition"]
    assert disposition.startswith('inline; filename="a _b__ _n_')
    assert "filename*=UTF-8''a%20%22b%22%3B%20%C3%BCn%C3%AF" in disposition
    assert client.get(address, params={"download": "1"}).headers["content-disposition"].startswith("attachment;")


def test_other_types_are_never_shown(runtime: Runtime, people: People, client: TestClient) -> None:
    with runtime.open_ctx(people.curator) as ctx:
        row = objects.store(
            ctx, Bucket.AVATARS, b"<script>", Subject("avatar", "x"), mime="text/html", file_name="x.html"
        )
    answer = client.get(f"/api/storage/avatars/{row.id}")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment;")


@pytest.fixture(params=["folder", "s3"])
def any_client(request: pytest.FixtureRequest, api: FastAPI, runtime: Runtime) -> Iterator[tuple[Runtime, TestClient]]:
    if request.param == "s3":
        settings: StorageSettings = request.getfixturevalue("s3_settings")
        storage = S3Storage(settings.model_copy(update={"bucket_prefix": f"d{secrets.token_hex(4)}-"}))
        storage.prepare()
        runtime = replace(runtime, storage=storage)
    served = guarded(api, runtime)
    with TestClient(served, base_url="http://127.0.0.1:7860") as client:  # type: ignore[arg-type]
        yield runtime, client


def test_ranges_and_conditions(any_client: tuple[Runtime, TestClient], people: People, bearer: Bearer) -> None:
    runtime, client = any_client
    address = make_image(runtime, people.curator, Visibility.PUBLIC)
    _, _, weights = make_model(runtime, people.curator)
    user = bearer(people.user)
    for path, whole in ((address, DATA), (weights, DATA * 200)):
        full = client.get(path, headers=user)
        assert full.status_code == 200
        assert full.content == whole
        assert full.headers["content-length"] == str(len(whole))
        assert full.headers["accept-ranges"] == "bytes"
        etag = full.headers["etag"]
        part = client.get(path, headers={**user, "Range": "bytes=100-199"})
        assert part.status_code == 206
        assert part.content == whole[100:200]
        assert part.headers["content-range"] == f"bytes 100-199/{len(whole)}"
        tail = client.get(path, headers={**user, "Range": "bytes=-5"})
        assert tail.content == whole[-5:]
        beyond = client.get(path, headers={**user, "Range": f"bytes={len(whole)}-"})
        assert beyond.status_code == 416
        assert beyond.headers["content-range"] == f"bytes */{len(whole)}"
        assert beyond.json()["error"]["code"] == "range_not_satisfiable"
        assert client.get(path, headers={**user, "If-None-Match": etag}).status_code == 304
        assert client.get(path, headers={**user, "If-None-Match": '"other"'}).status_code == 200
        same = client.get(path, headers={**user, "Range": "bytes=0-9", "If-Range": etag})
        assert (same.status_code, same.content) == (206, whole[:10])
        changed = client.get(path, headers={**user, "Range": "bytes=0-9", "If-Range": '"other"'})
        assert (changed.status_code, changed.content) == (200, whole)
        head = client.head(path, headers=user)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(whole))


def test_not_modified_is_no_way_around_permission(
    runtime: Runtime, people: People, client: TestClient, bearer: Bearer
) -> None:
    address = make_image(runtime, people.curator, Visibility.PRIVATE)
    etag = client.get(address, headers=bearer(people.curator)).headers["etag"]
    assert client.get(address, headers={"If-None-Match": etag}).status_code == 404
    assert client.head(address).status_code == 404


def test_weights_need_an_account_and_are_counted_once_a_day(
    runtime: Runtime, people: People, client: TestClient, bearer: Bearer
) -> None:
    card_id, version_id, address = make_model(runtime, people.curator)
    download = f"/api/models/{card_id}/versions/{version_id}/download"
    for path in (address, download):
        answer = client.get(path)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "not_signed_in"
    user = bearer(people.user)
    first = client.get(download, headers=user)
    assert first.content == DATA * 200
    assert first.headers["content-disposition"] == 'attachment; filename="ink.safetensors"'
    client.get(download, headers=user)
    client.get(address, headers=user)
    client.head(download, headers=user)
    client.get(download, headers={**user, "Range": "bytes=500-"})
    client.get(download, headers=bearer(people.other_curator))
    with runtime.open_ctx(people.admin, read_only=True) as ctx:
        assert get_card(ctx, card_id).downloads == 2
        entries = ctx.session.exec(select(AuditEntry).where(AuditEntry.action == "model.download")).all()
        assert [entry.target for entry in entries] == [card_id] * 4
        assert {entry.actor_name for entry in entries} == {"user", "other_curator"}


def test_private_weights_do_not_exist_for_others(
    runtime: Runtime, people: People, client: TestClient, bearer: Bearer
) -> None:
    card_id, version_id, address = make_model(runtime, people.curator, Visibility.PRIVATE)
    download = f"/api/models/{card_id}/versions/{version_id}/download"
    for path in (address, download):
        assert client.get(path).status_code == 404
        assert client.get(path, headers=bearer(people.other_curator)).status_code == 404
        assert client.get(path, headers=bearer(people.curator)).status_code == 200
        assert client.get(path, headers=bearer(people.admin)).status_code == 200
    assert (
        client.get(f"/api/models/{card_id}/versions/nope/download", headers=bearer(people.curator)).status_code == 404
    )


def test_small_files_stay_within_their_memory(runtime: Runtime, people: People) -> None:
    small = SmallFiles(max_bytes=1000)
    with runtime.open_ctx(people.curator) as ctx:
        rows = [
            objects.store(ctx, Bucket.PREVIEWS, bytes([n]) * 400, Subject("image", "x"), mime="image/webp")
            for n in range(4)
        ]
    for row in rows:
        assert small.read(runtime, row) == runtime.storage.read_bytes(Bucket.PREVIEWS, row.id)
    assert list(small._files) == [rows[2].id, rows[3].id]
    small.read(runtime, rows[2])
    small.read(runtime, rows[0])
    assert list(small._files) == [rows[2].id, rows[0].id]


@pytest.mark.parametrize("name", ["../../x.safetensors", "a/b\\c", "", "...", "x" * 300, "日本.png", 'a";b', "a\tb"])
def test_no_name_leaves_its_header(name: str) -> None:
    header = content_disposition(name, inline=False)
    assert header.isascii()
    assert header.isprintable()
    assert header.count('"') == 2
    assert "/" not in header.split(";")[1]

"""/api/models over HTTP: shapes, who may do what, covers, downloads that count."""

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from tests.assets import made, new_card, new_gallery, stored_image
from tests.conftest import People
from tests.postgres import both_databases
from visionsuit.core.actor import Actor
from visionsuit.core.errors import InvalidInput, NotPermitted, NotSignedIn
from visionsuit.galleries.service import add_items
from visionsuit.modelcards.queries import CardNotFound, VersionNotFound, find_version_by_sha256, get_version
from visionsuit.modelcards.service import LabelTaken, add_version, count_download, create_card
from visionsuit.modelcards.tables import ModelType
from visionsuit.objects.service import Subject, store
from visionsuit.runtime import Runtime
from visionsuit.storage.base import Bucket, ObjectMissing
from visionsuit.visibility import Visibility

Bearer = Callable[[Actor], dict[str, str]]


def test_card_and_page_have_the_promised_fields(runtime: Runtime, people: People, client: TestClient) -> None:
    with runtime.open_ctx(people.curator) as ctx:
        card = new_card(
            ctx,
            title="<b>Ink</b>",
            type=ModelType.LORA,
            base_model="SD 1.5",
            family="sd1",
            trigger="inkstyle",
            size_bytes=1234,
            facts={"rank": 8},
            cover_object_id="o",
            cover_small_id="s",
            cover_large_id="l",
            cover_width=640,
            cover_height=480,
        )
        add_version(ctx, card, label="v2", object_id="second", file_name="b.safetensors", size_bytes=9, sha256="2")
        gallery = new_gallery(ctx, title="With it")
        add_items(ctx, gallery, cards=[card])
    [tile] = client.get("/api/models").json()["items"]
    page = client.get(f"/api/models/{card.public_id}").json()
    assert tile == {key: page[key] for key in tile}
    assert page.keys() - tile.keys() == {"description", "versions", "galleries"}
    assert tile.pop("created_at").endswith("Z")
    assert tile.pop("updated_at").endswith("Z")
    assert tile == {
        "kind": "model",
        "id": card.public_id,
        "title": "<b>Ink</b>",
        "type": "LORA",
        "base_model": "SD 1.5",
        "family": "sd1",
        "trigger": "inkstyle",
        "tags": [],
        "visibility": "public",
        "adult": False,
        "reported": False,
        "owner": {"id": people.curator.public_id, "name": "curator", "avatar_url": None},
        "cover": {
            "small": "/api/storage/previews/s",
            "large": "/api/storage/previews/l",
            "placeholder": None,
            "width": 640,
            "height": 480,
        },
        "downloads": 0,
        "size_bytes": 1234,
        "can_edit": False,
    }
    assert page["galleries"] == [{"id": gallery.public_id, "title": "With it"}]
    first, second = page["versions"]
    assert (first["label"], first["primary"], first["facts"]) == ("v1", True, {"rank": 8})
    assert (second["label"], second["primary"]) == ("v2", False)
    assert first["download_url"] == f"/api/models/{card.public_id}/versions/{first['id']}/download"


def test_who_may_change_and_delete(runtime: Runtime, people: People, client: TestClient, bearer: Bearer) -> None:
    for visibility, actor, expected in [
        ("public", people.guest, 401),
        ("public", people.user, 403),
        ("public", people.other_curator, 403),
        ("public", people.curator, 200),
        ("public", people.admin, 200),
        ("private", people.guest, 404),
        ("private", people.other_curator, 404),
        ("private", people.curator, 200),
        ("private", people.admin, 200),
    ]:
        card = made(runtime, people.curator, "models", visibility=visibility)
        headers = {} if actor.is_guest else bearer(actor)
        path = f"/api/models/{card.public_id}"
        assert client.patch(path, json={"title": "New"}, headers=headers).status_code == expected, (visibility, actor)
        gone = client.delete(path, headers=headers).status_code
        assert gone == (204 if expected == 200 else expected), (visibility, actor)


def test_a_change_is_kept_and_found(runtime: Runtime, people: People, client: TestClient, bearer: Bearer) -> None:
    card = made(runtime, people.curator, "models", title="Old", type=ModelType.LORA)
    path = f"/api/models/{card.public_id}"
    sent = {"type": "CHECKPOINT", "base_model": " SDXL ", "trigger": "wash\nstyle", "tags": ["Ink"]}
    assert client.patch(path, json=sent, headers=bearer(people.curator)).status_code == 200
    body = client.get(path).json()
    assert (body["type"], body["base_model"], body["trigger"]) == ("CHECKPOINT", "SDXL", "wash style")
    for query in ("type=CHECKPOINT", "base_model=sdxl", "q=wash", "tag=ink"):
        assert len(client.get(f"/api/models?{query}").json()["items"]) == 1, query
    assert client.get("/api/models?type=LORA").json()["items"] == []
    assert client.patch(path, json={"base_model": None}, headers=bearer(people.curator)).json()["base_model"] is None


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"trigger": "x" * 181}, "trigger"),
        ({"base_model": "x" * 81}, "base_model"),
        ({"type": "EMBEDDING"}, "type"),
        ({"title": " "}, "title"),
    ],
)
def test_bad_changes_name_the_field(
    runtime: Runtime, people: People, client: TestClient, bearer: Bearer, sent: dict[str, object], field: str
) -> None:
    card = made(runtime, people.curator, "models")
    answer = client.patch(f"/api/models/{card.public_id}", json=sent, headers=bearer(people.curator))
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == field


def test_an_image_becomes_the_cover_and_outlives_itself(
    runtime: Runtime, people: People, client: TestClient, bearer: Bearer
) -> None:
    mine = bearer(people.curator)
    first, second = (stored_image(runtime, people.curator) for _ in range(2))
    card = made(runtime, people.curator, "models")
    path = f"/api/models/{card.public_id}"
    before = client.patch(path, json={"cover_image": first}, headers=mine).json()["cover"]
    after = client.patch(path, json={"cover_image": second}, headers=mine).json()["cover"]
    assert client.delete(f"/api/images/{second}", headers=mine).status_code == 204
    assert runtime.storage.read_bytes(Bucket.PREVIEWS, after["small"].rpartition("/")[2]) == b"small"
    assert runtime.storage.read_bytes(Bucket.PREVIEWS, after["large"].rpartition("/")[2]) == b"large"
    with pytest.raises(ObjectMissing):
        runtime.storage.size(Bucket.PREVIEWS, before["small"].rpartition("/")[2])


def test_a_cover_must_be_seen_and_safe(runtime: Runtime, people: People, client: TestClient, bearer: Bearer) -> None:
    mine = bearer(people.curator)
    theirs = stored_image(runtime, people.other_curator, visibility=Visibility.PRIVATE)
    adult = stored_image(runtime, people.curator, is_adult=True)
    card = made(runtime, people.curator, "models")
    path = f"/api/models/{card.public_id}"
    files = sum(1 for _ in runtime.storage.list_objects(Bucket.PREVIEWS))
    assert client.patch(path, json={"cover_image": theirs}, headers=mine).status_code == 404
    assert client.patch(path, json={"cover_image": adult}, headers=mine).json()["error"]["code"] == "adult_cover"
    assert sum(1 for _ in runtime.storage.list_objects(Bucket.PREVIEWS)) == files
    assert client.patch(path, json={"cover_image": adult, "adult": True}, headers=mine).status_code == 200


def test_deletion_takes_the_files_along(runtime: Runtime, people: People, client: TestClient, bearer: Bearer) -> None:
    with runtime.open_ctx(people.curator) as ctx:
        card = new_card(ctx)
        kept = store(ctx, Bucket.MODELS, b"weights", Subject("model", card.public_id), mime="application/octet-stream")
        add_version(ctx, card, label="v2", object_id=kept.id, file_name="w", size_bytes=7, sha256="7")
    with runtime.open_ctx(people.user) as ctx:
        count_download(ctx, get_version(ctx, card.public_id)[1])
    assert client.delete(f"/api/models/{card.public_id}", headers=bearer(people.curator)).status_code == 204
    assert client.get(f"/api/models/{card.public_id}").status_code == 404
    with pytest.raises(ObjectMissing):
        runtime.storage.size(Bucket.MODELS, kept.id)


@both_databases
def test_versions_by_id_and_hash(runtime: Runtime, people: People) -> None:
    with runtime.open_ctx(people.curator) as ctx:
        card = new_card(ctx, sha256="a" * 64, visibility=Visibility.PRIVATE)
        second = add_version(ctx, card, label="v2", object_id="x", file_name="f", size_bytes=1, sha256="b" * 64)
        with pytest.raises(LabelTaken):
            add_version(ctx, card, label=" v2 ", object_id="y", file_name="f", size_bytes=1, sha256="c")
        with pytest.raises(InvalidInput):
            add_version(ctx, card, label="", object_id="y", file_name="f", size_bytes=1, sha256="c")
        assert get_version(ctx, card.public_id)[1].label == "v1"
        assert get_version(ctx, card.public_id, second.public_id)[1].label == "v2"
        found = find_version_by_sha256(ctx, "B" * 64)
        assert found is not None
        assert (found[0].id, found[1].id) == (card.id, second.id)
        with pytest.raises(VersionNotFound):
            get_version(ctx, card.public_id, "\0")
    with runtime.open_ctx(people.other_curator, read_only=True) as ctx:
        assert find_version_by_sha256(ctx, "b" * 64) is None
        with pytest.raises(CardNotFound):
            get_version(ctx, card.public_id, second.public_id)


@both_databases
def test_who_may_create(runtime: Runtime, people: People) -> None:
    file = {"object_id": "o", "file_name": "f", "size_bytes": 1, "sha256": "0"}
    for actor, error in [(people.guest, NotSignedIn), (people.user, NotPermitted)]:
        with pytest.raises(error), runtime.open_ctx(actor) as ctx:
            create_card(ctx, title="x", **file)  # type: ignore[arg-type]
    for number, actor in enumerate([people.curator, people.admin]):
        with runtime.open_ctx(actor) as ctx:
            assert create_card(ctx, title="x", **(file | {"object_id": str(number)})).owner_id == actor.user_id  # type: ignore[arg-type]


@both_databases
def test_a_download_counts_once_a_person_and_day(runtime: Runtime, people: People) -> None:
    card = made(runtime, people.curator, "models")
    for actor in (people.user, people.user, people.curator, people.guest):
        with runtime.open_ctx(actor) as ctx:
            count_download(ctx, get_version(ctx, card.public_id)[1])
    with runtime.open_ctx(people.guest, read_only=True) as ctx:
        assert get_version(ctx, card.public_id)[0].downloads == 2

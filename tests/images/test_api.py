"""/api/images over HTTP: shapes, who may do what, what bad requests answer."""

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from tests.assets import made, new_card, new_gallery, new_image, stored_image
from tests.conftest import People
from visionsuit.core.actor import Actor
from visionsuit.galleries.service import add_items
from visionsuit.images.queries import get_image
from visionsuit.runtime import Runtime
from visionsuit.storage.base import Bucket, ObjectMissing
from visionsuit.visibility import Visibility

Bearer = Callable[[Actor], dict[str, str]]
HTML = "<img src=x onerror=alert(1)>"


def test_a_tile_has_the_promised_fields(runtime: Runtime, people: People, client: TestClient) -> None:
    image = made(runtime, people.curator, "images", title=HTML, tags=["Fox"], placeholder="data:image/webp;base64,AA")
    body = client.get("/api/images").json()
    assert body["next_cursor"] is None
    assert body["notes"] == []
    [tile] = body["items"]
    assert tile.pop("created_at").endswith("Z")
    assert tile == {
        "kind": "image",
        "id": image.public_id,
        "title": HTML,
        "tags": ["Fox"],
        "visibility": "public",
        "adult": False,
        "reported": False,
        "owner": {"id": people.curator.public_id, "name": "curator", "avatar_url": None},
        "can_edit": False,
        "url": f"/api/storage/images/{image.object_id}",  # type: ignore[attr-defined]
        "thumb": {
            "small": f"/api/storage/previews/{image.thumb_small_id}",  # type: ignore[attr-defined]
            "large": f"/api/storage/previews/{image.thumb_large_id}",  # type: ignore[attr-defined]
            "placeholder": "data:image/webp;base64,AA",
            "width": 64,
            "height": 48,
        },
        "width": 64,
        "height": 48,
    }


def test_the_page_shows_recipe_cards_and_galleries(runtime: Runtime, people: People, client: TestClient) -> None:
    digest = "ab12cd34ef" + "0" * 54
    with runtime.open_ctx(people.curator) as ctx:
        card = new_card(ctx, sha256=digest)
        secret = new_card(ctx, sha256="f" * 64, visibility=Visibility.PRIVATE)
        loras = [
            {"name": "whole", "weight": 0.8, "sha256": digest.upper()},
            {"name": "ten digits", "weight": 1, "sha256": digest[:10]},
            {"name": "twelve", "weight": 1, "sha256": digest[:12]},
            {"name": "another", "weight": 1, "sha256": "ab12cd34e0"},
            {"name": "private", "weight": 1, "sha256": "f" * 64},
            {"name": "none", "weight": 1, "model_id": secret.public_id},
        ]
        image = new_image(ctx, recipe={"prompt": "a fox", "seed": 7, "loras": loras}, description="**bold**")
        shown, hidden = new_gallery(ctx, title="Shown"), new_gallery(ctx, title="Hidden", visibility="private")
        for gallery in (shown, hidden):
            add_items(ctx, gallery, images=[image])
    body = client.get(f"/api/images/{image.public_id}").json()
    assert body["recipe"]["prompt"] == "a fox"
    assert body["recipe"]["seed"] == 7
    assert [lora["model_id"] for lora in body["recipe"]["loras"]] == [card.public_id] * 3 + [None] * 3
    assert body["galleries"] == [{"id": shown.public_id, "title": "Shown"}]
    assert body["description"] == "**bold**"
    assert {"size_bytes", "mime", "sha256", "file_name"} <= body.keys()


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
        ("unlisted", people.user, 403),
    ]:
        image = made(runtime, people.curator, "images", visibility=visibility)
        headers = {} if actor.is_guest else bearer(actor)
        path = f"/api/images/{image.public_id}"
        assert client.patch(path, json={"title": "New"}, headers=headers).status_code == expected, (visibility, actor)
        gone = client.delete(path, headers=headers).status_code
        assert gone == (204 if expected == 200 else expected), (visibility, actor)


def test_a_change_is_kept_and_answered(runtime: Runtime, people: People, client: TestClient, bearer: Bearer) -> None:
    image = made(runtime, people.curator, "images", title="Old", tags=["x"], description="old")
    mine = bearer(people.curator)
    path = f"/api/images/{image.public_id}"
    sent = {"title": "  New\n title ", "tags": [" Fox ", "fox", "#Hare", ""], "visibility": "unlisted", "adult": True}
    answer = client.patch(path, json=sent, headers=mine)
    assert answer.status_code == 200
    for body in (answer.json(), client.get(path, headers=mine).json()):
        assert body["title"] == "New title"
        assert body["tags"] == ["Fox", "Hare"]
        assert body["visibility"] == "unlisted"
        assert body["adult"] is True
        assert body["description"] == "old"
        assert body["can_edit"] is True
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"title": ""}, "title"),
        ({"title": " \u202e\0 "}, "title"),
        ({"title": "x" * 181}, "title"),
        ({"title": None}, "title"),
        ({"description": "x" * 1501}, "description"),
        ({"tags": [f"t{n}" for n in range(25)]}, "tags"),
        ({"tags": ["x" * 61]}, "tags"),
        ({"tags": "fox"}, "tags"),
        ({"visibility": "secret"}, "visibility"),
        ({"adult": "perhaps"}, "adult"),
    ],
)
def test_bad_changes_name_the_field(
    runtime: Runtime, people: People, client: TestClient, bearer: Bearer, sent: dict[str, object], field: str
) -> None:
    image = made(runtime, people.curator, "images", title="Old")
    answer = client.patch(f"/api/images/{image.public_id}", json=sent, headers=bearer(people.curator))
    assert answer.status_code == 422
    assert answer.json()["error"]["field"].startswith(field)
    assert client.get(f"/api/images/{image.public_id}").json()["title"] == "Old"


def test_deletion_takes_the_files_along(runtime: Runtime, people: People, client: TestClient, bearer: Bearer) -> None:
    public_id = stored_image(runtime, people.curator, tags=["gone"])
    with runtime.open_ctx(people.curator, read_only=True) as ctx:
        image = get_image(ctx, public_id)
    assert client.delete(f"/api/images/{public_id}", headers=bearer(people.curator)).status_code == 204
    assert client.get(f"/api/images/{public_id}").status_code == 404
    assert client.get("/api/images").json()["items"] == []
    assert client.get("/api/tags").json()["items"] == []
    files = [(Bucket.IMAGES, image.object_id), (Bucket.PREVIEWS, image.thumb_small_id)]
    for bucket, object_id in files:
        with pytest.raises(ObjectMissing):
            runtime.storage.size(bucket, str(object_id))


def test_pages_over_http(runtime: Runtime, people: People, client: TestClient) -> None:
    for number in range(5):
        made(runtime, people.curator, "images", title=f"Image {number}", tags=["a b", "c"])
    first = client.get("/api/images", params={"limit": 2, "tag": ["a b", "c"]}).json()
    assert [tile["title"] for tile in first["items"]] == ["Image 4", "Image 3"]
    params = {"limit": 3, "tag": ["a b", "c"], "cursor": first["next_cursor"]}
    second = client.get("/api/images", params=params).json()
    assert [tile["title"] for tile in second["items"]] == ["Image 2", "Image 1", "Image 0"]
    assert second["next_cursor"] is None
    assert client.get("/api/images", params={"tag": ["a b", "d"]}).json()["items"] == []


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("limit=0", 422),
        ("limit=101", 422),
        ("limit=x", 422),
        ("sort=random", 422),
        ("cursor=nonsense", 422),
        ("q=%00%ff%22*", 200),
        ("q=" + "a%22" * 2500, 200),
        ("tag=%00&type=%00&base_model=%00&owner=%00", 200),
        ("sort=likes", 200),
        ("sort=downloads&q=fox", 200),
    ],
)
def test_odd_queries(runtime: Runtime, people: People, client: TestClient, query: str, status: int) -> None:
    made(runtime, people.curator, "images", title="fox")
    answer = client.get(f"/api/images?{query}")
    assert answer.status_code == status
    if status == 422:
        assert answer.json()["error"]["field"] == query.partition("=")[0]


@pytest.mark.parametrize("public_id", ["nope", "%00", "a" * 300, "..%2f..", "%F0%9F%8E%A8"])
def test_what_is_no_id_is_not_found(client: TestClient, public_id: str) -> None:
    for where in ("images", "models", "galleries"):
        answer = client.get(f"/api/{where}/{public_id}")
        assert answer.status_code == 404
        assert answer.json()["error"]["code"].endswith("not_found")


def test_an_adult_image_shows_only_to_those_who_ask_for_it(
    runtime: Runtime, people: People, client: TestClient, bearer: Bearer
) -> None:
    image = made(runtime, people.curator, "images", is_adult=True, tags=["nude"])
    willing = people.make("willing", shows_adult=True)
    for actor, expected in [(people.guest, 404), (people.user, 404), (willing, 200), (people.curator, 200)]:
        headers = {} if actor.is_guest else bearer(actor)
        assert client.get(f"/api/images/{image.public_id}", headers=headers).status_code == expected
        found = client.get("/api/images?q=tag:nude", headers=headers).json()["items"]
        assert len(found) == (1 if expected == 200 else 0)
    assert client.get("/api/tags?q=nu").json()["items"] == []

"""Galleries: what is in them, in which order, who sees what of it; over services and over HTTP."""

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from tests.assets import made, new_card, new_gallery, new_image
from tests.conftest import People
from tests.postgres import both_databases
from visionsuit.core.actor import Actor
from visionsuit.core.errors import NotPermitted
from visionsuit.core.paging import BadCursor
from visionsuit.galleries.out import gallery_detail
from visionsuit.galleries.queries import find_own_gallery, get_gallery, list_items
from visionsuit.galleries.service import ItemNotFound, add_by_id, add_items, change_gallery, order_items, remove_item
from visionsuit.galleries.tables import ItemKind
from visionsuit.images.service import delete_image
from visionsuit.images.tables import Image
from visionsuit.runtime import Runtime
from visionsuit.visibility import Visibility

Bearer = Callable[[Actor], dict[str, str]]


def contents(runtime: Runtime, actor: Actor, public_id: str, limit: int = 2) -> list[str]:
    """Titles over all pages, with the counts that the gallery gives for the same viewer."""
    found: list[str] = []
    cursor = None
    while True:
        with runtime.open_ctx(actor, read_only=True) as ctx:
            gallery = get_gallery(ctx, public_id)
            page = list_items(ctx, gallery, cursor=cursor, limit=limit)
            detail = gallery_detail(ctx, gallery)
        found += [item.row.title for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            assert detail.image_count + detail.model_count == len(found)
            return found


@both_databases
def test_items_keep_their_order(runtime: Runtime, people: People) -> None:
    with runtime.open_ctx(people.curator) as ctx:
        gallery = new_gallery(ctx)
        images = [new_image(ctx, title=f"i{number}") for number in range(3)]
        card = new_card(ctx, title="card")
        add_items(ctx, gallery, images=images[:2], cards=[card])
        add_items(ctx, gallery, images=images)
        ids = {image.title: image.public_id for image in images}
    assert contents(runtime, people.guest, gallery.public_id) == ["i0", "i1", "card", "i2"]
    with runtime.open_ctx(people.curator) as ctx:
        order = [(ItemKind.MODEL, card.public_id), (ItemKind.IMAGE, ids["i2"]), (ItemKind.MODEL, card.public_id)]
        order_items(ctx, get_gallery(ctx, gallery.public_id), order)
    assert contents(runtime, people.guest, gallery.public_id, limit=1) == ["card", "i2", "i0", "i1"]
    with runtime.open_ctx(people.curator) as ctx:
        remove_item(ctx, get_gallery(ctx, gallery.public_id), ItemKind.IMAGE, ids["i0"])
        delete_image(ctx, ctx.session.get_one(Image, images[2].id))
    assert contents(runtime, people.guest, gallery.public_id) == ["card", "i1"]
    with runtime.open_ctx(people.curator) as ctx:
        mine = get_gallery(ctx, gallery.public_id)
        with pytest.raises(ItemNotFound):
            remove_item(ctx, mine, ItemKind.IMAGE, ids["i0"])
        with pytest.raises(ItemNotFound):
            order_items(ctx, mine, [(ItemKind.IMAGE, "nothing")])
        with pytest.raises(BadCursor):
            list_items(ctx, mine, cursor="x")


@both_databases
def test_what_a_viewer_may_not_see_is_not_there(runtime: Runtime, people: People) -> None:
    with runtime.open_ctx(people.curator) as ctx:
        gallery = new_gallery(ctx)
        images = [
            new_image(ctx, title="private", visibility=Visibility.PRIVATE),
            new_image(ctx, title="unlisted", visibility=Visibility.UNLISTED),
            new_image(ctx, title="adult", is_adult=True),
            new_image(ctx, title="public"),
        ]
        add_items(ctx, gallery, images=images, cards=[new_card(ctx, title="secret", visibility=Visibility.PRIVATE)])
    everything = ["private", "unlisted", "adult", "public", "secret"]
    public_id = gallery.public_id
    assert contents(runtime, people.curator, public_id) == everything
    assert contents(runtime, people.guest, public_id) == ["public"]
    assert contents(runtime, people.user, public_id) == ["public"]
    assert contents(runtime, people.with_adult(people.user), public_id) == ["adult", "public"]
    assert contents(runtime, people.admin, public_id) == ["private", "unlisted", "public", "secret"]
    assert contents(runtime, people.with_adult(people.admin), public_id) == everything
    with runtime.open_ctx(people.curator) as ctx:
        change_gallery(ctx, get_gallery(ctx, public_id), {"visibility": "unlisted"})
    # Who has the address of an unlisted gallery sees what its owner shares in it by address.
    assert contents(runtime, people.guest, public_id) == ["unlisted", "public"]


@both_databases
def test_an_unlisted_picture_of_somebody_else_stays_unlisted(runtime: Runtime, people: People) -> None:
    image = made(runtime, people.other_curator, "images", title="theirs", visibility=Visibility.UNLISTED)
    with runtime.open_ctx(people.curator) as ctx:
        gallery = new_gallery(ctx, visibility=Visibility.UNLISTED)
        add_by_id(ctx, gallery, image_ids=[image.public_id], model_ids=[])
    assert contents(runtime, people.guest, gallery.public_id) == []
    assert contents(runtime, people.other_curator, gallery.public_id) == ["theirs"]


@both_databases
def test_the_cover_is_chosen_or_the_first_that_the_viewer_sees(runtime: Runtime, people: People) -> None:
    with runtime.open_ctx(people.curator) as ctx:
        gallery = new_gallery(ctx)
        private = new_image(ctx, visibility=Visibility.PRIVATE)
        first, second = new_image(ctx), new_image(ctx)
        add_items(ctx, gallery, images=[private, first, second], cards=[new_card(ctx)])

    def cover(actor: Actor) -> str | None:
        with runtime.open_ctx(actor, read_only=True) as ctx:
            thumb = gallery_detail(ctx, get_gallery(ctx, gallery.public_id)).cover
        return thumb.small.rpartition("/")[2] if thumb else None

    def choose(image: Image | None) -> None:
        with runtime.open_ctx(people.curator) as ctx:
            edits = {"cover_image_id": image.public_id if image else None}
            change_gallery(ctx, get_gallery(ctx, gallery.public_id), edits)

    assert (cover(people.curator), cover(people.guest)) == (private.thumb_small_id, first.thumb_small_id)
    choose(second)
    assert (cover(people.curator), cover(people.guest)) == (second.thumb_small_id, second.thumb_small_id)
    choose(private)
    assert (cover(people.curator), cover(people.guest)) == (private.thumb_small_id, first.thumb_small_id)
    choose(second)
    with runtime.open_ctx(people.curator) as ctx:
        delete_image(ctx, ctx.session.get_one(Image, second.id))
    assert cover(people.guest) == first.thumb_small_id
    choose(first)
    choose(None)
    assert cover(people.curator) == private.thumb_small_id
    with pytest.raises(ItemNotFound):
        choose(second)


@both_databases
def test_only_its_owner_or_an_administrator_fills_a_gallery(runtime: Runtime, people: People) -> None:
    gallery = made(runtime, people.curator, "galleries")
    image = made(runtime, people.curator, "images")
    for actor in (people.user, people.other_curator):
        with pytest.raises(NotPermitted), runtime.open_ctx(actor) as ctx:
            add_by_id(ctx, get_gallery(ctx, gallery.public_id), image_ids=[image.public_id], model_ids=[])
    for actor in (people.admin, people.curator):
        with runtime.open_ctx(actor) as ctx:
            add_by_id(ctx, get_gallery(ctx, gallery.public_id), image_ids=[image.public_id], model_ids=[])
    assert len(contents(runtime, people.guest, gallery.public_id)) == 1


def test_over_http(runtime: Runtime, people: People, client: TestClient, bearer: Bearer) -> None:
    mine = bearer(people.user)
    assert client.post("/api/galleries", json={"title": "Mine"}).status_code == 401
    answer = client.post("/api/galleries", json={"title": "<i>Mine</i>", "tags": ["A"]}, headers=mine)
    assert answer.status_code == 201
    path = answer.headers["Location"]
    gallery = answer.json()
    assert path == f"/api/galleries/{gallery['id']}"
    assert (gallery["visibility"], gallery["image_count"], gallery["model_count"]) == ("private", 0, 0)
    assert client.get(path).status_code == 404
    image = made(runtime, people.curator, "images", title="Fox")
    card = made(runtime, people.curator, "models", title="Ink")
    hidden = made(runtime, people.curator, "images", visibility=Visibility.PRIVATE)
    sent = {"image_ids": [image.public_id], "model_ids": [card.public_id]}
    filled = client.post(f"{path}/items", json=sent, headers=mine)
    assert filled.status_code == 200
    assert (filled.json()["image_count"], filled.json()["model_count"]) == (1, 1)
    refused = client.post(f"{path}/items", json={"image_ids": [hidden.public_id]}, headers=mine)
    assert refused.status_code == 404
    assert hidden.public_id in refused.json()["error"]["message"]
    order = {"items": [{"kind": "model", "id": card.public_id}, {"kind": "image", "id": image.public_id}]}
    assert client.put(f"{path}/order", json=order, headers=mine).status_code == 204
    items = client.get(f"{path}/items", headers=mine).json()
    assert [(item["kind"], item["title"]) for item in items["items"]] == [("model", "Ink"), ("image", "Fox")]
    assert {"trigger", "downloads", "cover"} <= items["items"][0].keys()
    assert client.patch(path, json={"cover_image_id": image.public_id}, headers=mine).json()["cover"] is not None
    assert client.patch(path, json={"cover_image_id": card.public_id}, headers=mine).status_code == 404
    assert client.patch(path, json={"visibility": "public"}, headers=mine).status_code == 200
    [tile] = client.get("/api/galleries").json()["items"]
    assert (tile["kind"], tile["title"], tile["image_count"]) == ("gallery", "<i>Mine</i>", 1)
    assert client.delete(f"{path}/items/model/{card.public_id}", headers=mine).status_code == 204
    assert client.delete(f"{path}/items/model/{card.public_id}", headers=mine).status_code == 404
    assert client.delete(f"{path}/items/image/{image.public_id}", headers=bearer(people.other_user)).status_code == 403
    assert client.delete(path, headers=bearer(people.other_user)).status_code == 403
    assert client.delete(path, headers=mine).status_code == 204
    assert client.get(path, headers=mine).status_code == 404
    assert client.get(f"/api/images/{image.public_id}").json()["galleries"] == []


def test_a_gallery_by_its_title_is_ones_own(runtime: Runtime, people: People) -> None:
    theirs = made(runtime, people.other_user, "galleries", title="Renders")
    with runtime.open_ctx(people.user) as ctx:
        assert find_own_gallery(ctx, "Renders") is None
        mine = new_gallery(ctx, title="Renders")
        found = find_own_gallery(ctx, "Renders")
    assert found is not None
    assert found.id == mine.id != theirs.id

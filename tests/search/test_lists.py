"""Lists over services: order, paging, filters, words, on both databases."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.assets import made, new_card, new_image
from tests.conftest import People
from tests.postgres import both_databases
from visionsuit.core.actor import Actor
from visionsuit.core.paging import BadCursor, encode_cursor
from visionsuit.galleries.queries import list_galleries
from visionsuit.images.queries import list_images
from visionsuit.images.service import change_image, delete_image
from visionsuit.modelcards.queries import SOURCE as CARDS
from visionsuit.modelcards.queries import list_cards
from visionsuit.modelcards.service import add_version, count_download
from visionsuit.modelcards.tables import ModelType
from visionsuit.runtime import Ctx, Runtime
from visionsuit.search.listing import Listing, Source, Thresholds, list_assets
from visionsuit.search.plan import ListRequest, Sort
from visionsuit.visibility import Visibility

pytestmark = both_databases
LISTS: dict[str, Callable[[Ctx, ListRequest], Listing]] = {
    "images": list_images,
    "models": list_cards,
    "galleries": list_galleries,
}


def titles(runtime: Runtime, actor: Actor, where: str, **asked: Any) -> list[str]:
    """Titles over all pages."""
    found: list[str] = []
    cursor = None
    for _ in range(500):
        with runtime.open_ctx(actor, read_only=True) as ctx:
            page = LISTS[where](ctx, ListRequest(cursor=cursor, **asked))
        found += [row.title for row in page.rows]
        cursor = page.next_cursor
        if cursor is None:
            return found
        assert page.rows, "a page that can be continued is not empty"
    raise AssertionError("the list does not end")


@pytest.mark.parametrize("where", LISTS)
def test_newest_and_oldest_come_in_order_whatever_the_page_size(runtime: Runtime, people: People, where: str) -> None:
    for number in range(7):
        made(runtime, people.curator, where, title=f"Thing {number}")
    expected = [f"Thing {number}" for number in range(6, -1, -1)]
    for limit in (1, 2, 3, 7, 100):
        assert titles(runtime, people.guest, where, limit=limit) == expected
        assert titles(runtime, people.guest, where, limit=limit, sort=Sort.OLDEST) == expected[::-1]


@pytest.mark.parametrize("where", LISTS)
def test_title_order_ignores_case_and_pages(runtime: Runtime, people: People, where: str) -> None:
    for title in ("beta", "Alpha", "alpha", "gamma", "Beta", "delta"):
        made(runtime, people.curator, where, title=title)
    found = titles(runtime, people.guest, where, sort=Sort.TITLE, limit=2)
    assert [title.lower() for title in found] == ["alpha", "alpha", "beta", "beta", "delta", "gamma"]


def test_most_downloaded_first(runtime: Runtime, people: People) -> None:
    with runtime.open_ctx(people.curator) as ctx:
        versions = []
        for title in ("never", "often", "once"):
            card = new_card(ctx, title=title)
            versions.append(
                add_version(ctx, card, label="v2", object_id=title, file_name="f", size_bytes=1, sha256="0")
            )
    for actor in (people.user, people.other_user):
        with runtime.open_ctx(actor) as ctx:
            count_download(ctx, versions[1])
            count_download(ctx, versions[1])
    with runtime.open_ctx(people.user) as ctx:
        count_download(ctx, versions[2])
    assert titles(runtime, people.guest, "models", sort=Sort.DOWNLOADS, limit=1) == ["often", "once", "never"]
    with runtime.open_ctx(people.guest, read_only=True) as ctx:
        assert [row.downloads for row in list_cards(ctx, ListRequest(sort=Sort.DOWNLOADS)).rows] == [2, 1, 0]


def test_a_page_goes_on_where_it_ended_while_rows_come_and_go(runtime: Runtime, people: People) -> None:
    images = [made(runtime, people.curator, "images", title=f"old {number}") for number in range(6)]
    with runtime.open_ctx(people.guest, read_only=True) as ctx:
        first = list_images(ctx, ListRequest(limit=3))
    made(runtime, people.curator, "images", title="new")
    with runtime.open_ctx(people.curator) as ctx:
        for image in (images[3], images[2]):
            delete_image(ctx, ctx.session.get_one(type(image), image.id))  # type: ignore[arg-type]
    with runtime.open_ctx(people.guest, read_only=True) as ctx:
        second = list_images(ctx, ListRequest(limit=3, cursor=first.next_cursor))
    assert [row.title for row in first.rows] == ["old 5", "old 4", "old 3"]
    assert [row.title for row in second.rows] == ["old 1", "old 0"]
    assert second.next_cursor is None


QUERIES: list[tuple[str, list[str]]] = [
    ("fox", ["Red fox"]),
    ("FOX", ["Red fox"]),
    ("red", ["A cat in red", "Red fox"]),
    ("re", ["A cat in red", "Red fox"]),
    ("re ", []),
    ("foxtr", []),
    ("cafe", ["Café à la crème"]),
    ("CRÈME", ["Café à la crème"]),
    ("red fox", ["Red fox"]),
    ("fox red", ["Red fox"]),
    ('"red fox"', ["Red fox"]),
    ('"fox red"', []),
    ("red -fox", ["A cat in red"]),
    ("-red", ["東京タワー", "Café à la crème"]),
    ("東京", ["東京タワー"]),
    ("京タ", ["東京タワー"]),
    ("tag:Animal", ["A cat in red", "Red fox"]),
    ('tag:"big CATS"', ["A cat in red"]),
    ("tag:animal -tag:forest", ["A cat in red"]),
    ("red tag:forest", ["Red fox"]),
    ("user:curator fox", ["Red fox"]),
    ("user:CURATOR fox", ["Red fox"]),
    ("user:nobody fox", []),
    ("-user:curator", []),
    ("moonlight", ["Red fox"]),
    ("ferret", ["A cat in red"]),
    ("base:sdxl", ["Red fox"]),
    ("base:SDXL-1.0", ["Red fox"]),
    ("forest", ["Red fox"]),
    ("sunrise_02", ["東京タワー"]),
]


def test_words_and_fields(runtime: Runtime, people: People) -> None:
    with runtime.open_ctx(people.curator) as ctx:
        recipe = {"prompt": "by MOONLIGHT", "base_model": "SDXL 1.0"}
        new_image(ctx, title="Red fox", tags=["Animal", "Forest"], recipe=recipe)
        new_image(ctx, title="A cat in red", tags=["animal", "Big cats"], description="not a ferret")
        new_image(ctx, title="Café à la crème")
        new_image(ctx, title="東京タワー", file_name="sunrise_02.png")
    found = {q: titles(runtime, people.guest, "images", q=q, sort=Sort.NEWEST) for q, _ in QUERIES}
    assert found == dict(QUERIES)
    by_relevance = {q: sorted(titles(runtime, people.guest, "images", q=q, limit=1)) for q, _ in QUERIES}
    assert by_relevance == {q: sorted(expected) for q, expected in QUERIES}


def test_filters_of_models(runtime: Runtime, people: People) -> None:
    with runtime.open_ctx(people.curator) as ctx:
        new_card(ctx, title="one", type=ModelType.LORA, base_model="SD 1.5", family="sd1", trigger="zorn style")
        new_card(ctx, title="two", type=ModelType.CHECKPOINT, base_model="SDXL", family="sdxl", file_name="juno_v3.zip")
        new_card(ctx, title="three", tags=["ink", "line art"], facts={"tags": ["watercolor wash"]})
    with runtime.open_ctx(people.other_curator) as ctx:
        new_card(ctx, title="four", tags=["Ink"])

    def found(**asked: Any) -> list[str]:
        return titles(runtime, people.guest, "models", **asked)

    assert found(type="CHECKPOINT") == ["two"]
    assert found(q="type:checkpoint") == ["two"]
    assert found(base_model="SD 1.5") == found(base_model="sd1") == found(q="base:sd15") == ["one"]
    assert found(tags=("INK",)) == ["four", "three"]
    assert found(tags=("ink", "line art")) == ["three"]
    assert found(owner=people.other_curator.public_id) == ["four"]
    assert found(owner="me") == found(owner="nobody-is-called-this") == []
    assert titles(runtime, people.other_curator, "models", owner="me") == ["four"]
    assert found(q="zorn") == ["one"]
    assert found(q="juno") == ["two"]
    assert found(q="watercolor") == ["three"]
    assert found(q="nosuchfield:ink") == []
    assert found(q="ink", sort=Sort.TITLE) == ["four", "three"]


def test_notes_name_what_was_not_understood(runtime: Runtime, people: People) -> None:
    made(runtime, people.curator, "images", title="Red fox")
    with runtime.open_ctx(people.guest, read_only=True) as ctx:
        assert "'colour:'" in list_images(ctx, ListRequest(q="colour:red fox")).notes[0]
        assert "'type:'" in list_images(ctx, ListRequest(q="type:lora fox")).notes[0]
        assert "downloads" in list_images(ctx, ListRequest(sort=Sort.DOWNLOADS)).notes[0]
        assert list_images(ctx, ListRequest(q="red fox")).notes == []


def test_relevance_puts_title_matches_first_and_pages(runtime: Runtime, people: People) -> None:
    with runtime.open_ctx(people.curator) as ctx:
        for number in range(5):
            new_image(ctx, title=f"Fox {number}")
            new_image(ctx, title=f"Other {number}", description="a fox and a hare")
    expected = [f"Fox {number}" for number in range(4, -1, -1)] + [f"Other {number}" for number in range(4, -1, -1)]
    for limit in (1, 3, 5, 20):
        assert titles(runtime, people.guest, "images", q="fox", limit=limit) == expected
        assert titles(runtime, people.guest, "images", q="fo", limit=limit) == expected
    assert titles(runtime, people.guest, "images", q="fox hare", limit=2) == expected[5:]


def test_a_common_whole_word_hides_what_merely_begins_alike_the_same_on_every_page(
    runtime: Runtime, people: People
) -> None:
    with runtime.open_ctx(people.curator) as ctx:
        new_image(ctx, title="Catamaran")
        for number in range(99):
            new_image(ctx, title=f"Cat {number}")
    assert len(titles(runtime, people.guest, "images", q="cat", limit=40)) == 100
    made(runtime, people.curator, "images", title="Cat 100")
    found = titles(runtime, people.guest, "images", q="cat", limit=40)
    assert len(found) == 100
    assert "Catamaran" not in found


def test_the_index_follows_a_change(runtime: Runtime, people: People) -> None:
    image = made(runtime, people.curator, "images", title="Red fox", tags=["animal"])
    with runtime.open_ctx(people.curator) as ctx:
        row = ctx.session.get_one(type(image), image.id)
        change_image(ctx, row, {"title": "Blue hare", "tags": ["calm"], "visibility": "private"})  # type: ignore[arg-type]
    assert titles(runtime, people.guest, "images") == []
    assert titles(runtime, people.curator, "images", q="fox") == []
    assert titles(runtime, people.curator, "images", tags=("animal",)) == []
    assert titles(runtime, people.curator, "images", q="hare tag:calm") == ["Blue hare"]


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "????",
        "bnVsbA",
        encode_cursor(1),
        encode_cursor("newest", 0, 0),
        encode_cursor("oldest", 0, 0, 5),
        encode_cursor("newest", 0, 7, 5),
        encode_cursor("newest", 0, 0, 2**70),
        encode_cursor("title", "\0", 1),
        encode_cursor("title", "\ud800", 1),
        encode_cursor("newest", True, 0, 1),
    ],
)
def test_a_cursor_of_another_list_is_refused(runtime: Runtime, people: People, cursor: str) -> None:
    for sort in (Sort.NEWEST, Sort.TITLE):
        with pytest.raises(BadCursor), runtime.open_ctx(people.guest, read_only=True) as ctx:
            list_images(ctx, ListRequest(cursor=cursor, sort=sort))


def test_column_order_walks_or_sorts_with_the_same_result(runtime: Runtime, people: People) -> None:
    with runtime.open_ctx(people.curator) as ctx:
        for number in range(30):
            shown = Visibility.PUBLIC if number % 3 else Visibility.PRIVATE
            new_card(ctx, title=f"{number * 7 % 30:02}", tags=["even"] if number % 2 == 0 else [], visibility=shown)

    def found(source: Source, cursor: str | None = None, **asked: Any) -> list[str]:
        with runtime.open_ctx(people.guest, read_only=True) as ctx:
            page = list_assets(ctx, source, ListRequest(sort=Sort.TITLE, limit=4, cursor=cursor, **asked))
        rest = found(source, page.next_cursor, **asked) if page.next_cursor else []
        return [row.title for row in page.rows] + rest

    asked: list[dict[str, Any]] = [{}, {"tags": ("even",)}, {"q": "13"}, {"q": "-tag:even"}]
    sorted_few = [found(CARDS, **one) for one in asked]
    for thresholds in (Thresholds(few=0), Thresholds(few=0, some=0)):
        assert [found(replace(CARDS, thresholds=thresholds), **one) for one in asked] == sorted_few
    assert [len(one) for one in sorted_few] == [20, 10, 1, 10]

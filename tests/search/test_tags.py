"""Type-ahead for tags counts what everybody finds, and nothing else."""

import pytest

from tests.assets import made, new_card, new_image
from tests.conftest import People
from tests.postgres import both_databases
from visionsuit.core.actor import GUEST
from visionsuit.images.service import change_image, delete_image
from visionsuit.images.tables import Image
from visionsuit.runtime import Runtime
from visionsuit.search.document import Kind
from visionsuit.search.tags import Tag, list_tags
from visionsuit.visibility import Visibility

pytestmark = both_databases


def tags(runtime: Runtime, start: str = "", kind: Kind | None = None, limit: int = 20) -> list[tuple[str, int]]:
    with runtime.open_ctx(GUEST, read_only=True) as ctx:
        found = list_tags(ctx, start, kind=kind, limit=limit)
    assert all(isinstance(tag, Tag) for tag in found)
    return [(tag.name, tag.count) for tag in found]


def test_most_used_first_and_by_beginning(runtime: Runtime, people: People) -> None:
    with runtime.open_ctx(people.curator) as ctx:
        new_image(ctx, tags=["Landscape", "lamp"])
        new_image(ctx, tags=["landscape", "portrait"])
        new_card(ctx, tags=["LANDSCAPE", "50%_off"])
        new_image(ctx, tags=["secret", "landscape"], visibility=Visibility.PRIVATE)
        new_image(ctx, tags=["hidden"], visibility=Visibility.UNLISTED)
        new_image(ctx, tags=["nude"], is_adult=True)
    assert tags(runtime)[0] == ("Landscape", 3)
    assert {name for name, _ in tags(runtime)} == {"Landscape", "lamp", "portrait", "50%_off"}
    assert tags(runtime, "LA") == [("Landscape", 3), ("lamp", 1)]
    assert [count for _, count in tags(runtime, "la", Kind.MODEL)] == [1]
    assert tags(runtime, "50%_") == [("50%_off", 1)]
    assert tags(runtime, "%") == tags(runtime, "_") == tags(runtime, "zzz") == []
    assert tags(runtime, limit=1) == [("Landscape", 3)]


def test_counts_follow_changes(runtime: Runtime, people: People) -> None:
    image = made(runtime, people.curator, "images", tags=["one", "two"])
    for edits, expected in [
        ({"tags": ["two", "three"]}, [("three", 1), ("two", 1)]),
        ({"tags": ["TWO"]}, [("two", 1)]),
        ({"visibility": "private"}, []),
        ({"visibility": "public"}, [("two", 1)]),
        ({"adult": True}, []),
        ({"adult": False}, [("two", 1)]),
    ]:
        with runtime.open_ctx(people.curator) as ctx:
            change_image(ctx, ctx.session.get_one(Image, image.id), edits)
        assert tags(runtime) == expected, edits
    with runtime.open_ctx(people.curator) as ctx:
        delete_image(ctx, ctx.session.get_one(Image, image.id))
    assert tags(runtime) == []


def test_a_transaction_that_fails_counts_nothing(runtime: Runtime, people: People) -> None:
    def fail_half_way() -> None:
        with runtime.open_ctx(people.curator) as ctx:
            new_image(ctx, tags=["ghost"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert tags(runtime) == []

"""The rule of who sees what stands in three forms and is used in four places: all of them agree, for everybody."""

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlmodel import col, select

from tests.assets import MAKERS
from tests.conftest import People
from tests.postgres import both_databases
from visionsuit.core.actor import GUEST, Actor, Role
from visionsuit.galleries import queries as galleries
from visionsuit.galleries import service as gallery_service
from visionsuit.galleries.tables import Gallery
from visionsuit.images import queries as images
from visionsuit.images import service as image_service
from visionsuit.images.tables import Image
from visionsuit.modelcards import queries as modelcards
from visionsuit.modelcards import service as card_service
from visionsuit.modelcards.tables import ModelCard
from visionsuit.runtime import Ctx, Runtime
from visionsuit.search.plan import ListRequest, Sort
from visionsuit.visibility import Asset, Visibility, sees, token_filter, visibility_tokens, visible_to

TABLES: dict[str, type[Asset]] = {"images": Image, "models": ModelCard, "galleries": Gallery}
REINDEX = {
    "images": image_service.reindex,
    "models": card_service.reindex,
    "galleries": gallery_service.reindex,
}
LISTS = {"images": images.list_images, "models": modelcards.list_cards, "galleries": galleries.list_galleries}
PAGES = {"images": images.find_image, "models": modelcards.find_card, "galleries": galleries.find_gallery}


def everybody(people: People) -> list[Actor]:
    signed_in = [people.user, people.other_user, people.curator, people.other_curator, people.admin, people.superadmin]
    return [GUEST, *signed_in, *(replace(actor, shows_adult=True) for actor in signed_in)]


def make_all(ctx: Ctx, where: str) -> list[Asset]:
    """One asset of the actor for each state an asset can be in."""
    made = []
    for visibility, adult, reported in product(Visibility, [False, True], [False, True]):
        asset = MAKERS[where](ctx, title=f"fox {visibility} {adult} {reported}", visibility=visibility, is_adult=adult)
        asset.is_reported = reported
        ctx.session.flush()
        REINDEX[where](ctx, asset)
        made.append(asset)
    return made


@both_databases
@pytest.mark.parametrize("where", TABLES)
def test_lists_pages_search_and_predicate_agree(runtime: Runtime, people: People, where: str) -> None:
    assets: list[Asset] = []
    for owner in (people.curator, people.other_curator, people.admin):
        with runtime.open_ctx(owner) as ctx:
            assets += make_all(ctx, where)
    table = TABLES[where]
    for actor in everybody(people):
        listed = {asset.public_id for asset in assets if sees(actor, asset, listed=True)}
        open_ = {asset.public_id for asset in assets if sees(actor, asset)}
        with runtime.open_ctx(actor, read_only=True) as ctx:
            for asked in (
                ListRequest(limit=100),
                ListRequest(limit=100, sort=Sort.OLDEST),
                ListRequest(limit=100, sort=Sort.TITLE),
                ListRequest(limit=100, q="fox"),
                ListRequest(limit=100, q="fo"),
                ListRequest(limit=100, q="-nothing"),
            ):
                assert {row.public_id for row in LISTS[where](ctx, asked).rows} == listed, (actor, asked)
            by_page = {asset.public_id for asset in assets if PAGES[where](ctx, asset.public_id)}
            assert by_page == open_, actor
            in_sql = set(ctx.session.exec(select(col(table.public_id)).where(visible_to(actor, table, listed=True))))
            assert in_sql == listed, actor


ACTORS = [
    GUEST,
    *(
        Actor(user_id=role.rank, role=role, shows_adult=adult)
        for role in (Role.USER, Role.CURATOR, Role.ADMIN, Role.SUPERADMIN)
        for adult in (False, True)
    ),
]


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    actor=st.sampled_from(ACTORS),
    owner_id=st.integers(1, 12),
    visibility=st.sampled_from(list(Visibility)),
    adult=st.booleans(),
    reported=st.booleans(),
)
def test_index_tokens_say_what_the_predicate_says(
    actor: Actor, owner_id: int, visibility: Visibility, adult: bool, reported: bool
) -> None:
    asset = Image(owner_id=owner_id, visibility=visibility, is_adult=adult, is_reported=reported)
    wanted = token_filter(actor)
    by_token = wanted is None or bool(set(wanted) & set(visibility_tokens(asset)))
    assert by_token == sees(actor, asset, listed=True)


def test_the_rule_in_words(people: People) -> None:
    """The cases a person would name, so that all forms cannot be wrong together."""
    owner, other, admin = people.user, people.other_user, people.admin
    adult_other, adult_admin = replace(other, shows_adult=True), replace(admin, shows_adult=True)

    def asset(**fields: object) -> Image:
        return Image(owner_id=owner.user_id, **({"visibility": Visibility.PUBLIC} | fields))  # type: ignore[arg-type]

    public, private = asset(), asset(visibility=Visibility.PRIVATE)
    assert all(sees(actor, public, listed=True) for actor in (GUEST, other, owner, admin))
    assert [sees(actor, private) for actor in (GUEST, other, owner, admin)] == [False, False, True, True]
    unlisted = asset(visibility=Visibility.UNLISTED)
    assert [sees(actor, unlisted) for actor in (GUEST, other, owner, admin)] == [True, True, True, True]
    assert [sees(actor, unlisted, listed=True) for actor in (GUEST, other, owner, admin)] == [False, False, True, True]
    reported = asset(is_reported=True)
    assert [sees(actor, reported) for actor in (GUEST, other, owner, admin)] == [False, False, True, True]
    adult = asset(is_adult=True)
    seen = [sees(actor, adult) for actor in (GUEST, other, adult_other, owner, admin, adult_admin)]
    assert seen == [False, False, True, True, False, True]

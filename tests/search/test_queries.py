"""Whatever is typed is answered, and both databases answer alike."""

from collections.abc import Callable
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.assets import new_card, new_gallery, new_image
from tests.conftest import People
from tests.postgres import both_databases
from visionsuit.core.actor import GUEST
from visionsuit.galleries.queries import list_galleries
from visionsuit.images.queries import list_images
from visionsuit.modelcards.queries import list_cards
from visionsuit.runtime import Ctx, Runtime
from visionsuit.search.listing import Listing
from visionsuit.search.match import Term
from visionsuit.search.plan import FIELDS, ListRequest, Sort
from visionsuit.search.syntax import Filter, parse
from visionsuit.search.words import words

HOSTILE = [
    "",
    " ",
    '"',
    '""',
    '"" ""',
    '"a',
    "-",
    "--",
    "- -",
    '-"',
    "*",
    "a*",
    "^a",
    "a OR",
    "OR",
    "AND AND",
    "NOT",
    "NOT a",
    "a NEAR b",
    "NEAR(a b, 5)",
    "NEAR(",
    "words:a",
    "rowid:1",
    "{words tags}: a",
    "- words : a",
    "a + b",
    "a & b | !c <-> d",
    "a:*",
    "'a' 'b",
    "a\\",
    "\\'",
    "%s %(match)s :match ?",
    "a;DROP TABLE image;--",
    "\0",
    "a\0b",
    "\ud800",
    "tag:\ud800",
    "user:\ud800 user:\0",
    "\ue000xpub",
    "\ue001fox",
    "🎨",
    "tag:🎨",
    "👩‍👩‍👧",
    "tag:",
    "tag:tag:tag:",
    "tag:-",
    "-tag:",
    "user:",
    'user:"',
    "type:x base:",
    "seed:1..9",
    "(((((",
    ")" * 50,
    "a" * 10_000,
    "a " * 5_000,
    '"a b" ' * 2_000,
    "-a " * 3_000,
    "tag:a " * 2_000,
    "東" * 10_000,
    "\u202e\u200b\u00ad",
    "ß ſ ﬁ Ⅷ İ",
    "e\u0301",
    "\n\t\r",
    "१२३ ٣٤ हिन्दी ไทย",
]
LISTS: list[Callable[[Ctx, ListRequest], Listing]] = [list_images, list_cards, list_galleries]


@pytest.fixture
def filled(runtime: Runtime, people: People) -> Runtime:
    with runtime.open_ctx(people.curator) as ctx:
        for make in (new_image, new_card, new_gallery):
            make(ctx, title="a fox & b", tags=["a", "🎨"], description="words tags rowid AND near")
    return runtime


@both_databases
@pytest.mark.parametrize("sort", [None, Sort.NEWEST, Sort.TITLE])
def test_hostile_queries_are_answered(filled: Runtime, sort: Sort | None) -> None:
    for text in HOSTILE:
        with filled.open_ctx(GUEST, read_only=True) as ctx:
            for list_ in LISTS:
                list_(ctx, ListRequest(q=text, sort=sort))
            list_images(ctx, ListRequest(tags=(text,), type=text, base_model=text, sort=sort))
            assert list_images(ctx, ListRequest(owner=text or "-", sort=sort)).rows == []


@both_databases
def test_any_text_is_answered(filled: Runtime) -> None:
    with ExitStack() as stack:
        ctx = stack.enter_context(filled.open_ctx(GUEST, read_only=True))

        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.text(max_size=60), st.lists(st.text(max_size=20), max_size=3))
        def ask(text: str, tags: list[str]) -> None:
            list_images(ctx, ListRequest(q=text, tags=tuple(tags)))
            list_cards(ctx, ListRequest(q=f'{text}" -tag:{text} user:"{text}', base_model=text, sort=Sort.TITLE))

        ask()


@both_databases
def test_whatever_is_written_is_found_by_its_own_words(runtime: Runtime, people: People) -> None:
    with runtime.open_ctx(people.curator) as ctx:

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.text(min_size=1, max_size=40))
        def write_and_find(text: str) -> None:
            image = new_image(ctx, title=f"x {text}")
            spoken = words(image.title, 32)[1:]
            if not spoken:
                return
            for asked in (f'"{" ".join(spoken)}"', spoken[-1]):
                # The newest match of all: nothing written later has these words.
                found = list_images(ctx, ListRequest(q=asked, limit=1, sort=Sort.NEWEST)).rows
                assert [row.public_id for row in found] == [image.public_id], (text, asked)

        write_and_find()


def test_the_parser_gives_data() -> None:
    query = parse('Red "long hair" -cat tag:"Big Cats" -type:lora fo', FIELDS)
    assert query.terms == [Term(("red",)), Term(("long", "hair")), Term(("fo",), prefix=True)]
    assert query.unwanted == [Term(("cat",))]
    assert query.filters == [Filter("tag", "Big Cats"), Filter("type", "lora", negated=True)]
    assert query.notes == []


@pytest.mark.parametrize(
    ("text", "part_of_note"),
    [
        ("colour:red", "'colour:'"),
        ("tag:", "'tag:' lacks a value"),
        ("fox !!!", "'!!!'"),
        ('"open', "quotation mark"),
        ("word " * 40, "first 32"),
        ("x" * 3000, "first 2000"),
    ],
)
def test_the_parser_says_what_it_did_not_understand(text: str, part_of_note: str) -> None:
    assert any(part_of_note in note for note in parse(text, FIELDS).notes)


def test_only_a_last_word_goes_on() -> None:
    assert parse("re", FIELDS).terms == [Term(("re",), prefix=True)]
    assert parse("re ", FIELDS).terms == [Term(("re",))]
    assert parse("r", FIELDS).terms == [Term(("r",))]
    assert parse('"re"', FIELDS).terms == [Term(("re",))]
    assert parse("re tag:x", FIELDS).terms == [Term(("re",))]

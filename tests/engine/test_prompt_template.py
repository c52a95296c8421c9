"""Choices, wildcards and LoRA tags: the same seed makes the same choices, whatever is not syntax stays."""

import time
from collections import Counter
from contextlib import suppress
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from visionsuit.engine.prompt_template import (
    MAX_CHARACTERS,
    MAX_LOOKS,
    BadLoraTag,
    LoraTag,
    TooManyOptions,
    UnknownWildcard,
    WildcardsTooDeep,
    expand,
    has_choices,
    parse_template,
    take_lora_tags,
)

LISTS = {
    "animal": ["cat", "{small|big} dog"],
    "scene": ["a __animal__ on a __place__"],
    "place": ["sofa"],
    "loop": ["__loop__"],
    "bomb": ["__bomb2__" * 30],
    "bomb2": ["__bomb3__" * 30],
    "bomb3": ["x" * 2000],
    "letters": ["{99$$" + "|" * 998 + "}"],
    "a-b_c9": ["fine"],
}


def expanded(text: str, seed: int | str = 0) -> str:
    return expand(text, Random(seed), LISTS.get)


def outcomes(text: str, tries: int = 200) -> Counter[str]:
    return Counter(expanded(text, seed) for seed in range(tries))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{red|green} heart", {"red heart", "green heart"}),
        ("{a|{b|c}}", {"a", "b", "c"}),
        ("{|very }old", {"old", "very old"}),
        ("{2$$a|b|c}", {"a, b", "b, a", "a, c", "c, a", "b, c", "c, b"}),
        ("{2$$ and $$a|b}", {"a and b", "b and a"}),
        ("{0-1$$a|b}", {"", "a", "b"}),
        ("{5$$a|b}", {"a, b", "b, a"}),
        ("{0::a|b}", {"b"}),
        ("{0::a|0::b}", {"b"}),
        ("__animal__", {"cat", "small dog", "big dog"}),
        ("__scene__!", {"a cat on a sofa!", "a small dog on a sofa!", "a big dog on a sofa!"}),
        ("{__place__|__a-b_c9__}", {"sofa", "fine"}),
        ("{(a:1.2)|[b]}", {"(a:1.2)", "[b]"}),
        ("<lora:{a|b}:0.8>", {"<lora:a:0.8>", "<lora:b:0.8>"}),
        ("{a}", {"{a}"}),
        ("{}", {"{}"}),
        ("{a|b", {"{a|b"}),
        ("a|b}", {"a|b}"}),
        ("{a|{b", {"{a|{b"}),
        (r"\{a|b\} \| \__animal__ \\ \( \[", {r"{a|b} | __animal__ \\ \( \["}),
        (r"{a\|b|c}", {"a|b", "c"}),
        ("snake_case ____ a__b", {"snake_case ____ a__b"}),
        ('{"json": [1, 2]}', {'{"json": [1, 2]}'}),
    ],
)
def test_every_choice_is_made_and_no_other(text: str, expected: set[str]) -> None:
    assert set(outcomes(text)) == expected


def test_weights_are_kept() -> None:
    counts = outcomes("{3::a|b}", 2000)
    assert 1350 < counts["a"] < 1650


def test_choices_of_a_seed_never_change() -> None:
    """Recorded once: the recipe of a picture says template and seed."""
    assert [expanded("{a|b|c|d} {1|2|3} __animal__", f"{seed}:prompt") for seed in range(3)] == [
        "b 2 cat",
        "d 2 small dog",
        "a 3 cat",
    ]


@pytest.mark.parametrize("text", ["__nothing__", "{__nothing__|__nothing__}"])
def test_an_unknown_wildcard_is_named(text: str) -> None:
    with pytest.raises(UnknownWildcard, match="nothing"):
        expanded(text)


@pytest.mark.parametrize("text", ["__loop__", "__bomb__", "__animal__ " * 501])
def test_growth_has_an_end(text: str) -> None:
    began = time.thread_time()
    with pytest.raises(WildcardsTooDeep):
        expanded(text)
    assert time.thread_time() - began < 2


@pytest.mark.parametrize("text", ["{99$$" + "|" * 3980 + "}", "__letters__" * 300])
def test_many_picks_of_many_options_are_refused_at_once(text: str) -> None:
    began = time.thread_time()
    with pytest.raises(TooManyOptions, match=f"99 of .* {MAX_LOOKS}") as refused:
        expanded(text)
    assert time.thread_time() - began < 0.5
    assert refused.value.hint


def test_picks_within_the_bound_are_made() -> None:
    text = "{99$$" + "|".join("abcdefgh"[number % 8] for number in range(MAX_LOOKS // 99)) + "}"
    assert len(expanded(text)) == 99 + 98 * 2


def test_the_same_choices_as_one_by_one() -> None:
    """What is drawn, and how, is part of every recipe."""
    names = "abcdefg"
    for seed in range(200):
        random = Random(seed)
        weights = [float(random.randrange(4)) for _ in names]
        left, expected, drawn = list(zip(names, weights, strict=True)), [], Random(seed)
        for _ in names:
            point = drawn.random() * sum(weight for _, weight in left)
            index = 0
            while index < len(left) - 1 and (point := point - left[index][1]) >= 0:
                index += 1
            expected.append(left.pop(index)[0])
        options = "|".join(f"{weight:g}::{name}" for name, weight in zip(names, weights, strict=True))
        assert expanded(f"{{7$$ $${options}}}", seed) == " ".join(expected)


def texts() -> st.SearchStrategy[str]:
    words = [*"{}|\\$_: ab12", "__animal__", "2$$", "0.5::", "__", "\\{", "\\__", "é"]
    return st.lists(st.sampled_from(words), max_size=50).map("".join) | st.text(max_size=60)


@settings(deadline=None)
@given(texts(), st.integers(0, 2**32 - 1))
@example("{" * 1000 + "a|b" + "}" * 1000, 1)
@example("{a|" * 1000 + "b" + "}" * 1000, 1)
def test_any_text_is_a_template(text: str, seed: int) -> None:
    try:
        once = expanded(text, seed)
    except UnknownWildcard:
        return
    assert once == expanded(text, seed)
    assert len(once) <= MAX_CHARACTERS


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="{}|_\\"), max_size=60))
def test_text_without_syntax_stays_as_it_is(text: str) -> None:
    assert expanded(text) == text
    assert not has_choices(text)


@pytest.mark.parametrize(
    "unit", ["{", "}", "|", "{a|", "{a|b}", "__", "_", "\\", "_a", "__a", "{2$$a|", "1::", "<lora:", "a"]
)
def test_hostile_text_takes_no_time(unit: str) -> None:
    text = (unit * 100_000)[:100_000]
    began = time.thread_time()
    parse_template(text)
    if "__a" not in text:
        with suppress(TooManyOptions):
            expanded(text)
    take_lora_tags(text)
    assert time.thread_time() - began < 5


@pytest.mark.parametrize(
    ("text", "left", "tags"),
    [
        ("a cat", "a cat", []),
        (" a ", " a ", []),
        ("a <lora:Ink:0.8> cat", "a  cat", [("Ink", 0.8, None)]),
        ("<lora:Ink>a", "a", [("Ink", 1.0, None)]),
        ("<lora:Ink Style v2:0.8:0.5>", "", [("Ink Style v2", 0.5, 0.8)]),
        ("<lora:Ink:0.8:0.8>", "", [("Ink", 0.8, None)]),
        ("<lora:Ink:te=0.2:unet=-1>", "", [("Ink", -1.0, 0.2)]),
        ("<lora:Ink:0.5:unet=1>", "", [("Ink", 1.0, 0.5)]),
        ("<LORA:a:1><lyco: b : 2 >", "", [("a", 1.0, None), ("b", 2.0, None)]),
        ("a < b > c <other:x:1> <lora:>", "a < b > c <other:x:1> <lora:>", []),
    ],
)
def test_lora_tags_are_taken_out(text: str, left: str, tags: list[tuple[str, float, float | None]]) -> None:
    rest, found = take_lora_tags(text)
    assert rest == left
    assert [(tag.name, tag.weight, tag.text_encoder_weight) for tag in found] == tags
    assert all(tag.text in text for tag in found)
    assert all(isinstance(tag, LoraTag) for tag in found)


@pytest.mark.parametrize(
    "tag", ["<lora:Ink:strong>", "<lora:Ink:nan>", "<lora:Ink:1:inf>", "<lora: :1>", "<lora:a:te=x>"]
)
def test_a_broken_tag_is_named(tag: str) -> None:
    with pytest.raises(BadLoraTag) as refused:
        take_lora_tags(f"a cat {tag}")
    assert tag in refused.value.message


@settings(deadline=None)
@given(st.text(max_size=80))
def test_tags_in_any_text(text: str) -> None:
    try:
        rest, tags = take_lora_tags(text)
    except BadLoraTag:
        return
    assert tags or rest == text

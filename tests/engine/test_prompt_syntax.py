"""Emphasis, BREAK and chunks: what A1111 would read, for any text, in time that grows with its length."""

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from visionsuit.engine.prompt_syntax import (
    BREAK,
    MAX_WEIGHT,
    Chunk,
    Piece,
    fill_chunks,
    parse_prompt,
    plain_text,
)

SYNTAX = "()[]:\\"


def texts(*words: str) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from([*"()[]:\\ ab1.2-", "\n", "é", *words]), max_size=60).map("".join)


def read(text: str) -> list[tuple[str, float]]:
    return [("BREAK" if piece.is_break else piece.text, round(piece.weight, 6)) for piece in parse_prompt(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("normal text", [("normal text", 1.0)]),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        (r"\(literal\]", [("(literal]", 1.0)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        ("((word))", [("word", 1.21)]),
        ("[word]", [("word", round(1 / 1.1, 6))]),
        ("[(word)]", [("word", 1.0)]),
        ("(word:1.5)", [("word", 1.5)]),
        ("(word : 1.5 )", [("word ", 1.5)]),
        ("(word:-0.5)", [("word", -0.5)]),
        ("(word:0)", [("word", 0.0)]),
        ("((a:1.5) b:2)", [("a", 3.0), (" b", 2.0)]),
        ("word:1.5)", [("word:1.5)", 1.0)]),
        ("a ) b ] c", [("a ) b ] c", 1.0)]),
        ("[word:1.5]", [("word:1.5", round(1 / 1.1, 6))]),
        ("(word:1.2.3)", [("word:1.2.3", 1.1)]),
        ("(word:...)", [("word:...", 1.1)]),
        ("(word:99999)", [("word", MAX_WEIGHT)]),
        (":) and :(", [(":) and :", 1.0)]),
        ("12:30 o'clock", [("12:30 o'clock", 1.0)]),
        (r"a \\(b\\)", [("a \\", 1.0), ("b\\", 1.1)]),
        ("a BREAK b", [("a", 1.0), ("BREAK", 1.0), ("b", 1.0)]),
        ("a\nBREAK\nb", [("a", 1.0), ("BREAK", 1.0), ("b", 1.0)]),
        ("BREAKFAST break OUTBREAK", [("BREAKFAST break OUTBREAK", 1.0)]),
        ("(a BREAK b:2)", [("a", 2.0), ("BREAK", 1.0), ("b", 2.0)]),
        ("a BREAK BREAK b BREAK", [("a", 1.0), ("BREAK", 1.0), ("BREAK", 1.0), ("b", 1.0), ("BREAK", 1.0)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                ("a ", 1.0),
                ("house", 1.573),
                (" ", 1.1),
                ("on", 1.0),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.4641),
                (".", 1.1),
            ],
        ),
    ],
)
def test_text_is_read_as_a1111_reads_it(text: str, expected: list[tuple[str, float]]) -> None:
    assert read(text) == expected


@settings(deadline=None)
@given(texts("BREAK") | st.text(max_size=80))
@example("(" * 400 + "a" + ")" * 400)
@example("(a:0)" + "(" * 300 + "b:9999)" * 300)
def test_any_text_is_a_prompt(text: str) -> None:
    pieces = parse_prompt(text)
    for piece in pieces:
        assert -MAX_WEIGHT <= piece.weight <= MAX_WEIGHT
        assert bool(piece.text) != piece.is_break
    assert all(character in text for character in plain_text(text) if character != " ")


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters=SYNTAX), min_size=1, max_size=60))
def test_text_without_syntax_stays_as_it_is(text: str) -> None:
    if re.search(r"\bBREAK\b", text):
        return
    assert parse_prompt(text) == [Piece(text)]


@settings(deadline=None)
@given(st.text(max_size=60))
def test_escaped_text_is_itself(text: str) -> None:
    if re.search(r"\bBREAK\b", text):
        return
    escaped = re.sub(r"([()\[\]\\])", r"\\\1", text)
    assert parse_prompt(escaped) == ([Piece(text)] if text else [])


@pytest.mark.parametrize(
    "unit",
    ["(", "[", ")", "((a)", "([", "(a:1.1", ":", "\\", " ", "BREAK ", " \nBREAK", ": 1 ", ":1", "(a)", "()", "(:", "x"],
)
def test_hostile_text_takes_no_time(unit: str) -> None:
    text = (unit * 100_000)[:100_000]
    began = time.thread_time()
    parse_prompt(text)
    assert time.thread_time() - began < 5
    parse_prompt("(" * 1000 + "a:1.2" + ")" * 1000)


def letters(text: str) -> list[int]:
    return [ord(letter) for letter in text if letter != " "]


def chunks(text: str, room: int = 4) -> list[str]:
    return ["".join(map(chr, chunk.ids)) for chunk in fill_chunks(parse_prompt(text), letters, room)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [""]),
        ("abcd", ["abcd"]),
        ("abcde", ["abcd", "e"]),
        ("ab BREAK cd", ["ab", "cd"]),
        ("abcd BREAK ef", ["abcd", "ef"]),
        ("BREAK a", ["", "a"]),
        ("a BREAK", ["a"]),
        ("a BREAK BREAK b", ["a", "", "b"]),
        ("ab(cde:2)f", ["abcd", "ef"]),
    ],
)
def test_tokens_fill_chunks(text: str, expected: list[str]) -> None:
    assert chunks(text) == expected


def test_tokens_carry_their_weight() -> None:
    [first, second] = fill_chunks(parse_prompt("ab(cde:2)f"), letters, 4)
    assert first.weights == (1.0, 1.0, 2.0, 2.0)
    assert second.weights == (2.0, 1.0)
    assert first.is_weighted
    assert not Chunk((1, 2), (1.0, 1.0)).is_weighted


@settings(deadline=None)
@given(texts("BREAK"), st.integers(1, 9))
def test_no_token_is_lost(text: str, room: int) -> None:
    pieces = parse_prompt(text)
    filled = fill_chunks(pieces, letters, room)
    assert [token for chunk in filled for token in chunk.ids] == [
        token for piece in pieces for token in letters(piece.text)
    ]
    assert all(len(chunk.ids) == len(chunk.weights) <= room for chunk in filled)
    assert len(filled) >= max(1, pieces[:-1].count(BREAK))

"""Hashing: nothing is cut, nothing ends early, and nobody's password takes as long as somebody's."""

import time

import pytest

from visionsuit.accounts.passwords import (
    COST,
    BadPassword,
    check_new_password,
    hash_password,
    verify_password,
)


def hashed(password: str) -> str:
    return hash_password(password, cost=4)


@pytest.mark.parametrize(
    ("password", "other"),
    [
        ("x" * 1023 + "a", "x" * 1023 + "b"),
        ("x" * 72 + "a", "x" * 72 + "b"),
        ("before\0after", "before\0other"),
        ("before\0after", "before"),
        ("密码" * 100 + "一", "密码" * 100 + "二"),
        ("password ", "password"),
        ("Password", "password"),
    ],
)
def test_differs_to_the_last_character(password: str, other: str) -> None:
    made = hashed(password)
    assert verify_password(password, made)
    assert not verify_password(other, made)


def test_the_same_characters_typed_elsewhere() -> None:
    assert verify_password("Zoe\u0308 schläft", hashed("Zo\u00eb schla\u0308ft"))
    assert verify_password("ｐａｓｓｗｏｒｄ", hashed("password"))


def test_halves_of_characters_are_hashed_too() -> None:
    assert verify_password("\ud800secret!", hashed("\ud800secret!"))
    assert not verify_password("\ud801secret!", hashed("\ud800secret!"))


@pytest.mark.usefixtures("slow_hashes")
def test_hash_is_salted_and_costs_what_it_should() -> None:
    first, second = hash_password("password"), hashed("password")
    assert first != second
    assert first.startswith(f"$2b${COST}$")
    assert COST >= 12


@pytest.mark.parametrize("stored", ["!", "", None])
def test_no_password_matches_no_hash(stored: str | None) -> None:
    assert not verify_password("!", stored)
    assert not verify_password("", stored)


@pytest.mark.usefixtures("slow_hashes")
def test_unknown_account_takes_as_long_as_a_known_one() -> None:
    known = hash_password("password")
    verify_password("warm-up", None)

    def fastest(stored: str | None) -> float:
        times = []
        for _ in range(3):
            began = time.process_time()
            verify_password("wrong one", stored)
            times.append(time.process_time() - began)
        return min(times)

    assert 0.5 < fastest(None) / fastest(known) < 2


@pytest.mark.parametrize("length", [8, 1024])
def test_lengths_that_are_taken(length: int) -> None:
    check_new_password("x" * length)


@pytest.mark.parametrize("length", [0, 7, 1025])
def test_lengths_that_are_refused(length: int) -> None:
    with pytest.raises(BadPassword, match=r"8 to 1,024"):
        check_new_password("x" * length)

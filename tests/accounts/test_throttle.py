"""Guessing gets slower; the clock is moved by hand."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.accounts.conftest import PASSWORD
from tests.conftest import People
from tests.postgres import both_databases
from visionsuit.accounts.service import InvalidCredentials, log_in
from visionsuit.accounts.sessions import Source
from visionsuit.accounts.tables import Attempts
from visionsuit.accounts.throttle import (
    PER_ACCOUNT,
    PER_ADDRESS,
    Allowance,
    TooManyAttempts,
    address_key,
    charge,
    delete_old_attempts,
)
from visionsuit.core.actor import SYSTEM, Actor
from visionsuit.runtime import Runtime

pytestmark = both_databases

START = datetime(2026, 1, 1, tzinfo=UTC)
HERE = Source("203.0.113.7")


class Clock:
    def __init__(self) -> None:
        self.now = START

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def attempt(runtime: Runtime, clock: Clock, allowance: Allowance, key: str = "email:x") -> int:
    """0 if let through, else the seconds to wait."""
    try:
        with runtime.open_ctx(SYSTEM) as ctx:
            charge(ctx, {key: allowance}, clock.now)
    except TooManyAttempts as error:
        return error.retry_after_s
    return 0


def test_delay_doubles_up_to_the_longest(runtime: Runtime, clock: Clock) -> None:
    allowance = Allowance(free=3, longest=timedelta(seconds=6))
    assert [attempt(runtime, clock, allowance) for _ in range(3)] == [0, 0, 0]
    waits = []
    for _ in range(5):
        wait = attempt(runtime, clock, allowance)
        waits.append(wait)
        clock.move(wait - 0.5)
        assert attempt(runtime, clock, allowance) == 1
        clock.move(0.5)
        assert attempt(runtime, clock, allowance) == 0
    assert waits == [1, 2, 4, 6, 6]


def test_forgotten_after_an_hour(runtime: Runtime, clock: Clock) -> None:
    allowance = Allowance(free=2, longest=timedelta(seconds=6))
    for _ in range(2):
        attempt(runtime, clock, allowance)
    assert attempt(runtime, clock, allowance) > 0
    clock.move(3601)
    assert [attempt(runtime, clock, allowance) for _ in range(2)] == [0, 0]
    clock.move(3601)
    with runtime.open_ctx(SYSTEM) as ctx:
        assert delete_old_attempts(ctx, clock.now) == 1
        assert ctx.session.get(Attempts, "email:x") is None


class TestLogin:
    @pytest.mark.parametrize("exists", [True, False])
    def test_locked_after_five_and_the_right_password_does_not_help(
        self, runtime: Runtime, people: People, clock: Clock, with_password: Callable[[Actor], str], exists: bool
    ) -> None:
        email = with_password(people.user) if exists else "nobody@example.org"
        for _ in range(PER_ACCOUNT.free):
            with pytest.raises(InvalidCredentials):
                log_in(runtime, email, "wrong password", HERE, now=clock.now)
        with pytest.raises(TooManyAttempts) as refused:
            log_in(runtime, f" {email.upper()} ", PASSWORD, Source("198.51.100.1"), now=clock.now)
        assert refused.value.retry_after_s == 1
        clock.move(1)
        if exists:
            assert log_in(runtime, email, PASSWORD, HERE, now=clock.now).token
        else:
            with pytest.raises(InvalidCredentials):
                log_in(runtime, email, PASSWORD, HERE, now=clock.now)

    def test_success_starts_the_account_anew(
        self, runtime: Runtime, people: People, clock: Clock, with_password: Callable[[Actor], str]
    ) -> None:
        email = with_password(people.user)
        for _ in range(3):
            for _ in range(PER_ACCOUNT.free - 1):
                with pytest.raises(InvalidCredentials):
                    log_in(runtime, email, "wrong password", Source("198.51.100.9"), now=clock.now)
            log_in(runtime, email, PASSWORD, HERE, now=clock.now)

    def test_one_address_trying_many_accounts(
        self, runtime: Runtime, people: People, clock: Clock, with_password: Callable[[Actor], str]
    ) -> None:
        with runtime.open_ctx(SYSTEM) as ctx:
            ctx.session.add(Attempts(key=address_key(HERE.address), count=PER_ADDRESS.free - 1, last_at=clock.now))
        with pytest.raises(InvalidCredentials):
            log_in(runtime, "first@example.org", "wrong password", HERE, now=clock.now)
        with pytest.raises(TooManyAttempts):
            log_in(runtime, with_password(people.user), PASSWORD, HERE, now=clock.now)
        assert log_in(runtime, with_password(people.user), PASSWORD, Source("198.51.100.1"), now=clock.now).token

    def test_right_logins_of_a_household_are_no_guesses(
        self, runtime: Runtime, people: People, clock: Clock, with_password: Callable[[Actor], str]
    ) -> None:
        email = with_password(people.user)
        for _ in range(PER_ADDRESS.free + 5):
            log_in(runtime, email, PASSWORD, HERE, now=clock.now)

"""What is counted together, and how delays grow: no database."""

from datetime import timedelta

from visionsuit.accounts.throttle import Allowance, account_key, address_key


def test_thousands_of_attempts_do_not_overflow() -> None:
    assert Allowance(free=3, longest=timedelta(seconds=6)).delay_after(10**9) == timedelta(seconds=6)


def test_keys_hold_no_address_of_a_person() -> None:
    assert "mira" not in account_key("mira@example.org")
    assert len(account_key("x" * 5000)) <= 80


def test_one_subscriber_has_one_key() -> None:
    assert address_key("2001:db8::1") == address_key("2001:db8::ffff:1") != address_key("2001:db8:0:1::1")
    assert address_key("203.0.113.7") != address_key("203.0.113.8")
    assert len(address_key("unknown" * 100)) <= 80

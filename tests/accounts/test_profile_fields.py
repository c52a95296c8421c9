import pytest

from visionsuit.accounts.profile_fields import BadEmail, BadText, clean_bio, clean_email, clean_name, email_key


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        (" Mira@Example.ORG ", "mira@example.org"),
        ("Ü@EXÄMPLE.org", "ü@exämple.org"),
        ("a@xn--exmple-cua.org", "a@exämple.org"),
        ("Admin@Localhost", "admin@localhost"),
        ("admin@box.local", "admin@box.local"),
        ("a+tag@example.org", "a+tag@example.org"),
    ],
)
def test_one_form_of_an_address(typed: str, kept: str) -> None:
    assert clean_email(typed) == kept
    assert email_key(typed) == kept


@pytest.mark.parametrize(
    "typed",
    ["", "a", "a@", "@b.org", "a b@c.org", "Mira <a@b.org>", "a\0@b.org", "\ud800@b.org", "a@@localhost", "@local"],
)
def test_no_address(typed: str) -> None:
    with pytest.raises(BadEmail):
        clean_email(typed)
    assert isinstance(email_key(typed), str)


def test_names() -> None:
    assert clean_name("  Mira \n van\tDam ") == "Mira van Dam"
    assert clean_name("Mi\u202era\0") == "Mira"
    for bad in ("", " M ", "\0\0\0", "x" * 161):
        with pytest.raises(BadText, match="2 to 160"):
            clean_name(bad)


def test_bio() -> None:
    assert clean_bio("one\r\ntwo\0 ") == "one\ntwo"
    assert clean_bio("x" * 600) == "x" * 600
    with pytest.raises(BadText, match="600"):
        clean_bio("x" * 601)

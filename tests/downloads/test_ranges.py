import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionsuit.downloads.ranges import Span, matches_etag, parse_range


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-0", Span(0, 1)),
        ("bytes=10-19", Span(10, 20)),
        ("bytes=90-", Span(90, 100)),
        ("bytes=90-1000", Span(90, 100)),
        ("bytes=-10", Span(90, 100)),
        ("bytes=-1000", Span(0, 100)),
        ("Bytes=0-9", Span(0, 10)),
        ("bytes=100-", "unsatisfiable"),
        ("bytes=-0", "unsatisfiable"),
        ("bytes=0-9,20-29", None),
        ("bytes=9-0", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("items=0-9", None),
        ("bytes=0-9999999999999999999999", None),
        ("", None),
    ],
)
def test_one_range(header: str | None, expected: Span | str | None) -> None:
    assert parse_range(header, 100) == expected


@given(st.text(max_size=30), st.integers(0, 10_000))
def test_whatever_is_asked_the_answer_lies_within_the_file(text: str, size: int) -> None:
    for header in (text, f"bytes={text}"):
        span = parse_range(header, size)
        if isinstance(span, Span):
            assert 0 <= span.start < span.end <= size


def test_etags() -> None:
    assert matches_etag('"a", W/"b"', '"b"')
    assert matches_etag("*", '"b"')
    assert not matches_etag('"a"', '"b"')
    assert not matches_etag(None, '"b"')

"""HTTP's conditional and range requests (RFC 9110) for files that never change."""

import re
from dataclasses import dataclass
from typing import Literal

_ONE_RANGE = re.compile(r"bytes=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*")


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` (included) to `end` (excluded)."""

    start: int
    end: int


def parse_range(header: str | None, size: int) -> Span | Literal["unsatisfiable"] | None:
    """The one range a client asks for; None: all of it, also for several ranges or words that mean nothing."""
    match = _ONE_RANGE.fullmatch(header.lower()) if header else None
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:
        length = min(int(last), size)
        return Span(size - length, size) if length else "unsatisfiable"
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        return "unsatisfiable"
    return Span(start, min(int(last) + 1, size) if last else size)


def matches_etag(header: str | None, etag: str) -> bool:
    """Whether `If-None-Match` names this content."""
    if header is None:
        return False
    return any(tag.strip().removeprefix("W/") in (etag, "*") for tag in header.split(","))

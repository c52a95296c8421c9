"""multipart/form-data as a stream of parts: nothing of a file is ever held but the block at hand."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from visionsuit.core.errors import MalformedRequest, TooLarge
from visionsuit.uploads.errors import UploadBroken

_MAX_PARTS = 200
_MAX_TEXT_BYTES = 256 * 1024


@dataclass(slots=True)
class Part:
    """One field. `file_name` is None for plain fields; `data` is read before the next part is asked for."""

    name: str
    file_name: str | None
    data: Iterator[memoryview]


class FormTexts:
    """The plain fields of a form, bounded together."""

    def __init__(self) -> None:
        self._values: dict[str, list[str]] = {}
        self._size = 0

    def add(self, part: Part) -> None:
        """
        Raises:
            TooLarge: the texts of the form exceed the bound together.
        """
        value = bytearray()
        for piece in part.data:
            self._size += len(piece)
            if self._size > _MAX_TEXT_BYTES:
                raise TooLarge(f"The text fields of this form exceed {_MAX_TEXT_BYTES // 1024} KiB.", field=part.name)
            value += piece
        self._values.setdefault(part.name, []).append(value.decode("utf-8", "replace"))

    def as_values(self, *, lists: tuple[str, ...] = ()) -> dict[str, Any]:
        """Field -> text, the last one counts; fields in `lists` -> all their texts. Empty texts are left out."""
        values: dict[str, Any] = {name: found[-1] for name, found in self._values.items() if name not in lists}
        values = {name: text for name, text in values.items() if text.strip()}
        return values | {name: self._values[name] for name in lists if name in self._values}


def boundary_of(content_type: str) -> bytes:
    """
    Raises:
        MalformedRequest: not multipart/form-data, or without a boundary.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise MalformedRequest("Send this as multipart/form-data.")
    return boundary


def read_parts(blocks: Iterator[bytes], boundary: bytes) -> Iterator[Part]:
    """The parts in their order. What the caller leaves of a part is skipped.

    Raises:
        MalformedRequest: not what multipart/form-data looks like.
        UploadBroken: the body ends in the middle.
    """
    events = _events(blocks, boundary)
    count = 0
    for kind, value in events:
        if kind == "end":
            continue  # the end of a part that its reader did not see through
        if kind != "part":
            continue
        count += 1
        if count > _MAX_PARTS:
            raise TooLarge(f"A form has at most {_MAX_PARTS} fields.")
        part = _open_part(value, _data(events))
        yield part
        for _ in part.data:
            pass


def _data(events: Iterator[tuple[str, Any]]) -> Iterator[memoryview]:
    for kind, value in events:
        if kind == "end":
            return
        yield value


def _open_part(headers: dict[str, bytes], data: Iterator[memoryview]) -> Part:
    kind, options = parse_options_header(headers.get("content-disposition", b""))
    name = options.get(b"name")
    if kind != b"form-data" or name is None:
        raise MalformedRequest("A part of this form has no name.")
    file_name = options.get(b"filename")
    return Part(
        name=name.decode("utf-8", "replace"),
        file_name=None if file_name is None else file_name.decode("utf-8", "replace"),
        data=data,
    )


def _events(blocks: Iterator[bytes], boundary: bytes) -> Iterator[tuple[str, Any]]:
    """("part", headers), ("data", view)..., ("end", None) for each part."""
    waiting: deque[tuple[str, Any]] = deque()
    headers: dict[str, bytes] = {}
    field, value = bytearray(), bytearray()
    is_over = False

    def on_part_begin() -> None:
        headers.clear()

    def on_header_field(data: bytes, start: int, end: int) -> None:
        field.extend(data[start:end])

    def on_header_value(data: bytes, start: int, end: int) -> None:
        value.extend(data[start:end])

    def on_header_end() -> None:
        headers[field.decode("latin-1").lower()] = bytes(value)
        field.clear()
        value.clear()

    def on_headers_finished() -> None:
        waiting.append(("part", dict(headers)))

    def on_part_data(data: bytes, start: int, end: int) -> None:
        waiting.append(("data", memoryview(data)[start:end]))

    def on_part_end() -> None:
        waiting.append(("end", None))

    def on_end() -> None:
        nonlocal is_over
        is_over = True

    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": on_part_begin,
                "on_header_field": on_header_field,
                "on_header_value": on_header_value,
                "on_header_end": on_header_end,
                "on_headers_finished": on_headers_finished,
                "on_part_data": on_part_data,
                "on_part_end": on_part_end,
                "on_end": on_end,
            },
        )
        for block in blocks:
            parser.write(block)
            while waiting:
                yield waiting.popleft()
    except FormParserError as error:
        raise MalformedRequest("The form does not look like multipart/form-data.") from error
    if not is_over:
        raise UploadBroken("The form ends in the middle: not everything has arrived.")

"""multipart/form-data, part by part as it comes: files are never gathered, and fields have limits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks


@dataclass(frozen=True)
class Begin:
    """A part begins; ``filename`` is None for a plain field."""

    name: str
    filename: str | None


@dataclass(frozen=True)
class Data:
    """Some of its bytes, valid until the next event is asked for."""

    content: memoryview


@dataclass(frozen=True)
class End:
    """It is complete."""


async def events(request: Request, chunks: AsyncIterator[bytes]) -> AsyncIterator[Begin | Data | End]:
    """The parts of a form, in the order in which they were sent. Raises: HTTPException 400 if it is malformed."""
    _, options = parse_options_header(request.headers["content-type"])
    if not options.get(b"boundary"):
        raise HTTPException(400, "the Content-Type of the form names no boundary")
    reader = _Reader()
    try:
        parser = MultipartParser(options[b"boundary"], reader.callbacks())  # it limits the headers of each part
        async for chunk in chunks:
            parser.write(chunk)
            for event in reader.take():
                yield event
    except FormParserError as error:
        raise HTTPException(400, f"the form is malformed: {error}") from error
    if not reader.ended:
        raise HTTPException(400, "the form is malformed: its last boundary is missing")


class _Reader:
    """What the parser calls."""

    def __init__(self) -> None:
        self._events: list[Begin | Data | End] = []
        self._header, self._value, self._disposition = b"", b"", b""
        self.ended = False

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": lambda data, start, end: self._events.append(Data(memoryview(data)[start:end])),
            "on_part_end": lambda: self._events.append(End()),
            "on_end": self._on_end,
        }

    def take(self) -> list[Begin | Data | End]:
        taken, self._events = self._events, []
        return taken

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._disposition = b""
        if b"name" not in options:
            raise HTTPException(400, "the form is malformed: a part has no name")
        filename = options.get(b"filename")
        name = options[b"name"].decode("utf-8", "replace")
        self._events.append(Begin(name, None if filename is None else filename.decode("utf-8", "replace")))

    def _on_end(self) -> None:
        self.ended = True

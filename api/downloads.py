"""Sends a stored file: whole, in part, or not at all if the client has it already."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import Header, Request
from fastapi.responses import Response, StreamingResponse

from api.copies import Copy
from api.errors import problem
from api.services import Services
from jobs.tables import Artifact

_CHUNK = 1 << 20
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)

RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {}}},
    206: {"description": "The part that `Range` asked for."},
    304: {"description": "`If-None-Match` has its ETag."},
    404: {"description": "No such job, or it has no such file."},
    416: {"description": "`Range` lies outside the file."},
}
"""What OpenAPI says of a download."""


class Conditions:
    """The request headers that decide what is sent."""

    def __init__(
        self,
        request: Request,
        if_none_match: Annotated[str | None, Header()] = None,
        if_range: Annotated[str | None, Header()] = None,
        byte_range: Annotated[str | None, Header(alias="Range")] = None,
    ) -> None:
        self.head = request.method == "HEAD"
        self.if_none_match, self.if_range, self.byte_range = if_none_match, if_range, byte_range


def send(artifact: Artifact, conditions: Conditions, services: Services) -> Response:
    """200, 206, 304 or 416, with ETag, length and digest."""
    etag = f'"{artifact.sha256}"'
    digest = base64.b64encode(bytes.fromhex(artifact.sha256)).decode()
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Repr-Digest": f"sha-256=:{digest}:"}
    known = conditions.if_none_match
    if known and (known.strip() == "*" or etag in [tag.strip().removeprefix("W/") for tag in known.split(",")]):
        return Response(status_code=304, headers=headers)
    start, end = 0, artifact.size
    status = 200
    wanted = conditions.byte_range if not conditions.head and conditions.if_range in (None, etag) else None
    if (bounds := _bounds(wanted or "", artifact.size)) is not None:
        start, end = bounds
        if start >= end:
            return problem(
                416,
                "range_not_satisfiable",
                f"the file has {artifact.size} bytes",
                {"Content-Range": f"bytes */{artifact.size}"},
            )
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{artifact.size}"
    headers["Content-Length"] = str(end - start)
    headers["Content-Disposition"] = f'attachment; filename="{artifact.name}"'
    if conditions.head:
        return Response(status_code=status, headers=headers, media_type="application/octet-stream")
    # hashed before the first byte leaves: what the store damaged is never sent
    copy = services.copies.get(artifact)
    return StreamingResponse(_read(copy, start, end), status, headers, media_type="application/octet-stream")


def _read(copy: Copy, start: int, end: int) -> Iterator[bytes]:
    while start < end and (chunk := copy.read(start, min(_CHUNK, end - start))):
        start += len(chunk)
        yield chunk


def _bounds(header: str, size: int) -> tuple[int, int] | None:
    """A byte range as [start, end): "bytes=5-9", "bytes=5-", or "bytes=-9" for the last nine; None if not valid."""
    match = _RANGE.fullmatch(header)
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    return int(first), min(size, int(last) + 1) if last else size

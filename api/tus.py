"""The headers of tus 1.0.0, the protocol of resumable uploads: https://tus.io/protocols/resumable-upload."""

from __future__ import annotations

import base64
import binascii
import hashlib
from email.utils import formatdate
from typing import TYPE_CHECKING

from fastapi import Request
from fastapi.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs.errors import ChecksumError, JobsError
from jobs.tables import Upload

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,creation-defer-length,checksum,expiration,termination"
ALGORITHMS = ("sha256", "sha1")
CONTENT_TYPE = "application/offset+octet-stream"
_MAX_METADATA = 4096
_OVERRIDES = ("DELETE", "HEAD", "PATCH")


class TusVersionError(JobsError):
    """Another version of the protocol, or none."""

    status, code = 412, "tus_version"


def version(request: Request) -> None:
    """For the calls of the protocol. Raises: TusVersionError."""
    if request.headers.get("tus-resumable") != VERSION:
        raise TusVersionError(f"this is tus {VERSION}", f"send the header Tus-Resumable: {VERSION}")


class Tus:
    """Middleware: the protocol's version on every answer below ``path``, also on errors."""

    def __init__(self, app: ASGIApp, path: str) -> None:
        self._app, self._path = app, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on."""
        if scope["type"] != "http" or not (scope["path"] == self._path or scope["path"].startswith(f"{self._path}/")):
            await self._app(scope, receive, send)
            return
        override = Headers(scope=scope).get("x-http-method-override", "").upper()
        if scope["method"] == "POST" and override in _OVERRIDES:  # of clients that cannot say it
            scope["method"] = override

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(b"tus-resumable", VERSION.encode())]
                if message["status"] == TusVersionError.status:
                    headers.append((b"tus-version", VERSION.encode()))
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        await self._app(scope, receive, tell)


def number(request: Request, name: str) -> int:
    """A header that counts bytes. Raises: HTTPException 400."""
    value = request.headers.get(name, "")
    if not (value.isascii() and value.isdigit() and len(value) <= 15):
        raise HTTPException(400, f"the header {name} is missing, or no number of bytes")
    return int(value)


def length(request: Request) -> int | None:
    """Of a new upload; None if it is told later. Raises: HTTPException 400."""
    if "upload-defer-length" in request.headers:
        if request.headers["upload-defer-length"] != "1" or "upload-length" in request.headers:
            raise HTTPException(400, "send either Upload-Length, or Upload-Defer-Length: 1")
        return None
    return number(request, "Upload-Length")


def metadata(request: Request) -> tuple[str, dict[str, str]]:
    """As it came, and as text. Raises: HTTPException 400."""
    raw = request.headers.get("upload-metadata", "")
    if len(raw) > _MAX_METADATA:
        raise HTTPException(400, f"the header Upload-Metadata has more than {_MAX_METADATA} characters")
    found: dict[str, str] = {}
    try:
        for pair in filter(None, (pair.strip() for pair in raw.split(","))):
            key, _, value = pair.partition(" ")
            if key in found:
                raise ValueError(key)
            found[key] = base64.b64decode(value, validate=True).decode()
    except (ValueError, binascii.Error) as error:
        raise HTTPException(400, "the header Upload-Metadata is not: NAME BASE64, NAME BASE64, ...") from error
    return raw, found


class Checksum:
    """What the header Upload-Checksum promises of a body."""

    def __init__(self, header: str) -> None:
        """Raises: HTTPException 400."""
        algorithm, _, value = header.partition(" ")
        if algorithm not in ALGORITHMS:
            raise HTTPException(400, f"the checksum of a body is one of {', '.join(ALGORITHMS)}")
        self._state: Hash = hashlib.new(algorithm, usedforsecurity=False)
        try:
            self._wanted = base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise HTTPException(400, f"the header Upload-Checksum is not: {algorithm} BASE64") from error

    def update(self, chunk: bytes) -> None:
        """Some of the body."""
        self._state.update(chunk)

    def check(self) -> None:
        """At its end. Raises: ChecksumError."""
        if self._state.digest() != self._wanted:
            raise ChecksumError("the body does not have the checksum of its header: send it again")


def checksum(request: Request) -> Checksum | None:
    """Of the body, if it has one. Raises: HTTPException 400."""
    header = request.headers.get("upload-checksum")
    return Checksum(header) if header is not None else None


def describe(upload: Upload) -> dict[str, str]:
    """An upload in headers."""
    headers = {"Upload-Offset": str(upload.received)}
    if upload.size is None:
        headers["Upload-Defer-Length"] = "1"
    else:
        headers["Upload-Length"] = str(upload.size)
    if upload.tus_metadata:
        headers["Upload-Metadata"] = upload.tus_metadata
    if upload.expires_at is not None:
        headers["Upload-Expires"] = formatdate(upload.expires_at, usegmt=True)
    return headers

"""The form of POST /jobs: its files go straight to where they stay, as uploads of their own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from api.errors import SpecInvalidError
from api.forms import Begin, Data, events
from api.receive import Receiver
from api.services import Services
from jobs.database import AWAY
from jobs.errors import JobsError
from jobs.tables import Upload
from jobs.uploads import NewUpload, UploadRepository

FILES = ("checkpoint", "data")
MAX_FIELD_BYTES = 1 << 16
_NAME_LENGTH = 200


@asynccontextmanager
async def receive(
    request: Request, uploads: UploadRepository, services: Services, names: Collection[str]
) -> AsyncIterator[tuple[dict[str, str], dict[str, Upload]]]:
    """Its text fields, of these ``names``, and its files; if what is done with them fails, they are removed.

    Raises: SpecInvalidError; UploadTooLargeError, StorageFullError and others of Intake.
    """
    form = _Form(uploads, services, names)
    with services.transfers.place(uploads.tenant_id):
        try:
            await form.read(request)
            yield form.fields, form.files
        except AWAY:
            raise  # the job may be there, before the answer was lost: what came for none expires
        except BaseException:
            await run_in_threadpool(discard, form.begun, uploads, services)
            raise


@contextmanager
def discarding(begun: Iterable[Upload], uploads: UploadRepository, services: Services) -> Iterator[None]:
    """Remove uploads if what is done with them fails."""
    try:
        yield
    except AWAY:
        raise  # as above
    except BaseException:
        discard(begun, uploads, services)
        raise


def discard(begun: Iterable[Upload], uploads: UploadRepository, services: Services) -> None:
    """Remove uploads that nobody will use."""
    for upload in begun:
        with contextlib.suppress(JobsError, *AWAY):  # then it expires, and is swept
            services.storage.delete([file.key for file in uploads.delete(upload.id)])


class _Form:
    """``begun`` are its uploads, finished or not."""

    def __init__(self, uploads: UploadRepository, services: Services, names: Collection[str]) -> None:
        self._uploads, self._services, self._names = uploads, services, names
        self.fields: dict[str, str] = {}
        self.files: dict[str, Upload] = {}
        self.begun: list[Upload] = []

    async def read(self, request: Request) -> None:
        """All of it, part by part."""
        parts = events(request, request.stream())
        async for event in parts:
            if not isinstance(event, Begin):
                continue  # what some clients write before the first part
            if event.name in FILES and event.filename == "":
                continue  # a file field of a page, left empty
            self._check(event)
            if event.name in FILES:
                await self._file(event, parts)
            else:
                await self._text(event, parts)

    def _check(self, part: Begin) -> None:
        allowed = [*self._names, *FILES]
        if part.name not in allowed:
            detail = f"no such form field; allowed: {', '.join(allowed)}"
            raise SpecInvalidError.field(part.name, detail, allowed=allowed)
        if part.name in self.fields or part.name in self.files:
            raise SpecInvalidError.field(part.name, "it is there twice")
        if part.name in FILES and part.filename is None:
            raise SpecInvalidError.field(part.name, f"send a file: -F {part.name}=@FILE")
        if part.name not in FILES and part.filename is not None:
            raise SpecInvalidError.field(part.name, "send text, not a file")

    async def _text(self, part: Begin, parts: AsyncIterator[object]) -> None:
        content = bytearray()
        async for event in parts:
            if not isinstance(event, Data):
                break
            content += event.content
            if len(content) > MAX_FIELD_BYTES:
                raise HTTPException(413, f"the form field {part.name} has more than {MAX_FIELD_BYTES} bytes")
        if 0 in content:
            raise SpecInvalidError.field(part.name, "it holds the character NUL")
        self.fields[part.name] = content.decode(errors="replace")

    async def _file(self, part: Begin, parts: AsyncIterator[object]) -> None:
        new = NewUpload(shown_name(part.filename or part.name), size=None, standalone=False)
        upload = await run_in_threadpool(self._uploads.begin, new)
        self.begun.append(upload)
        async with self._services.transfers.receiver(upload, self._uploads) as receiver:
            await self._fill(receiver, parts)
        self.files[part.name] = await run_in_threadpool(self._uploads.finished, upload.id)

    async def _fill(self, receiver: Receiver, parts: AsyncIterator[object]) -> None:
        async for event in parts:
            if not isinstance(event, Data):
                break
            await receiver.write(event.content)
        await receiver.finish()


def shown_name(filename: str) -> str:
    """Only the last part: browsers may send paths, and the name is only ever shown."""
    last = filename.replace("\\", "/").rpartition("/")[2][:_NAME_LENGTH]
    return printable(last)


def printable(text: str) -> str:
    """Without what a terminal, a log or a database would stumble over; another blank is a blank."""
    return "".join(letter if letter.isprintable() else " " * letter.isspace() for letter in text).strip()

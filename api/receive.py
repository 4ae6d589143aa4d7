"""From a request's body to where its bytes stay: never more of it in memory than two parts."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from api.refusals import TooManyAtOnceError
from jobs.errors import JobsError
from jobs.intake import PART_BYTES, Hashes, Intake
from jobs.storage import Storage
from jobs.tables import Upload
from jobs.uploads import UploadRepository

MEASURED = 1 << 62  # a route's max_body_size, where the door has the limit of who asks


class Transfers:
    """The bodies that this process receives now, at most ``most``; what it knows of those that are to go on.

    ``shared``: by tenants, of whom each has at most half: bodies may come slowly.
    """

    def __init__(self, storage: Storage, most: int, *, shared: bool = False) -> None:
        self._storage, self._most, self._share = storage, most, max(1, most // 2) if shared else most
        self._now: Counter[str] = Counter()
        self._hashes = Hashes()

    @contextmanager
    def place(self, tenant_id: str) -> Iterator[None]:
        """For one body. Raises: HTTPException 503 if there is none; TooManyAtOnceError if the tenant has its share."""
        if self._now.total() >= self._most:
            raise HTTPException(503, f"{self._most} bodies are being received already", {"Retry-After": "5"})
        if self._now[tenant_id] >= self._share:
            raise TooManyAtOnceError(f"{self._share} bodies of this tenant are being received already")
        self._now[tenant_id] += 1
        try:
            yield
        finally:
            self._now[tenant_id] -= 1
            self._now += Counter()  # forgets those at zero

    @asynccontextmanager
    async def receiver(
        self, upload: Upload, uploads: UploadRepository, *, held: bool = False
    ) -> AsyncIterator[Receiver]:
        """Takes bytes for an upload; what does not count at the end is removed. ``held``: see Intake."""
        receiver = Receiver(Intake(upload, uploads, self._storage, self._hashes, held=held))
        try:
            yield receiver
        finally:
            await receiver.close()


class Receiver:
    """Stores one part in a thread while the next one comes, in two buffers that take turns."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._buffers = [memoryview(bytearray(PART_BYTES)), memoryview(bytearray(PART_BYTES))]
        self._filled = 0
        self._storing: asyncio.Task[None] | None = None

    async def write(self, chunk: bytes | memoryview) -> None:
        """Some bytes. Raises: what storing those before them met."""
        rest = memoryview(chunk)
        while rest:
            fits = min(len(rest), PART_BYTES - self._filled)
            self._buffers[0][self._filled : self._filled + fits] = rest[:fits]
            self._filled += fits
            rest = rest[fits:]
            if self._filled == PART_BYTES:
                await self._store()

    async def flush(self) -> None:
        """All bytes are stored after this, and count unless they are held. Raises: as Intake.add."""
        await self._store()
        await self._stored()

    async def settle(self) -> None:
        """What was held counts. Raises: as Intake.settle."""
        await run_in_threadpool(self._intake.settle)

    async def finish(self) -> None:
        """It was the whole file. Raises: as Intake.finish."""
        await self.flush()
        await run_in_threadpool(self._intake.finish)

    async def close(self) -> None:
        """The request has ended, in whatever way."""
        with contextlib.suppress(JobsError):
            await self._stored()
        with contextlib.suppress(JobsError):  # what could not be removed is swept
            await run_in_threadpool(self._intake.leave)

    async def _store(self) -> None:
        await self._stored()  # the other buffer is free after that
        content, self._filled = self._buffers[0][: self._filled], 0
        self._buffers.reverse()
        self._storing = asyncio.create_task(run_in_threadpool(self._intake.add, content))

    async def _stored(self) -> None:
        storing, self._storing = self._storing, None
        if storing is not None:
            await storing


def check_length(request: Request, most: int, too_long: Exception) -> None:
    """Before a byte of it is read. Raises: ``too_long``."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise too_long


async def body(request: Request, most: int, too_long: Exception) -> AsyncIterator[bytes]:
    """The body in pieces. Raises: ``too_long`` where it is; ClientDisconnect."""
    check_length(request, most, too_long)
    async for chunk in request.stream():
        most -= len(chunk)
        if most < 0:
            raise too_long
        yield chunk

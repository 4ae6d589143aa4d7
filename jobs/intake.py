"""Puts the bytes of an upload where they stay, as they come, and hashes them on the way."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from jobs.database import AWAY
from jobs.errors import StorageCorruptError, UploadLengthError
from jobs.storage import Storage
from jobs.tables import Part, Upload
from jobs.uploads import HASHING_SECONDS, NewPart, NewUpload, UploadRepository

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

    from typing_extensions import Buffer

PART_BYTES = 4 << 20
_SETTLE_PARTS, _SETTLE_SECONDS = 4, 0.1


class Hashes:
    """SHA-256 of what has come so far, by upload and offset, for the requests that go on with them.

    Nothing more than a saving: where one is not here, the bytes are read again once, when all are there.
    """

    def __init__(self, most: int = 256) -> None:
        self._most, self._lock = most, threading.Lock()
        self._states: OrderedDict[tuple[str, int], Hash] = OrderedDict()

    def take(self, upload: Upload) -> Hash | None:
        """The state at its end, for one that goes on with it."""
        if upload.received == 0:
            return hashlib.sha256()
        with self._lock:
            return self._states.pop((upload.id, upload.received), None)

    def keep(self, upload_id: str, offset: int, state: Hash) -> None:
        """For who comes next."""
        with self._lock:
            self._states[upload_id, offset] = state
            while len(self._states) > self._most:
                self._states.popitem(last=False)


class Intake:
    """Bytes for one upload, from its end on. Blocking: one thread at a time calls it.

    ``held``: nothing counts before ``settle``, which comes once their checksum was compared; else a few parts at a
    time, and at the latest with one that is smaller than ``PART_BYTES``, be it empty.
    """

    def __init__(
        self, upload: Upload, uploads: UploadRepository, storage: Storage, hashes: Hashes, *, held: bool = False
    ) -> None:
        self._upload, self._uploads, self._storage, self._hashes = upload, uploads, storage, hashes
        self._held = held
        self._committed = self.offset = upload.received
        self._state = hashes.take(upload)
        self._before = self._state.copy() if self._state else None
        self._pending: list[NewPart] = []
        self._settled_at = 0.0
        self.finished = False

    def add(self, content: bytes | bytearray | memoryview) -> None:
        """Store some bytes, in one part. If it fails they are not there, nor those before them that do not count yet.

        Raises: UploadLengthError, UploadLockedError, StorageQuotaError, StorageFullError, StorageError.
        """
        upload = self._upload
        if upload.size is not None and self.offset + len(content) > upload.size:
            raise UploadLengthError(f"upload {upload.id} was announced with {upload.size} bytes")
        if content:
            # two that race, and one that begins again after a crash, write to keys of their own
            part = NewPart(
                offset=self.offset,
                size=len(content),
                key=f"uploads/{upload.id}/{self.offset:014}-{secrets.token_hex(4)}",
                crc32=zlib.crc32(content),
            )
            self._pending.append(part)
            with ThreadPoolExecutor(1) as beside:  # both take their time, and neither holds the interpreter
                hashed = beside.submit(self._state.update, content) if self._state else None
                self._storage.put_part(part.key, content)
            if hashed is not None:
                hashed.result()
            self.offset += part.size
        if not self._held and self._is_due(len(content)):
            self.settle()

    def _is_due(self, size: int) -> bool:
        """A commit waits for the disk: of a fast sender a few parts count at a time, of a slow one each."""
        waited = time.monotonic() - self._settled_at > _SETTLE_SECONDS
        return size < PART_BYTES or len(self._pending) >= _SETTLE_PARTS or waited

    def settle(self) -> None:
        """What was stored counts now; if all bytes are there, the upload is finished by that. Raises: as ``add``."""
        self._commit(finish=self.offset == self._upload.size)

    def finish(self) -> None:
        """Nothing follows, of an upload whose size nobody knew. Raises: as ``add``."""
        self._commit(finish=True)

    def drop(self) -> None:
        """Forget what does not count yet."""
        keys = [part.key for part in self._pending]
        self._pending.clear()
        self.offset, self._state = self._committed, self._before
        self._storage.delete(keys)

    def leave(self) -> None:
        """This request has ended; the next one may go on."""
        self.drop()
        if self._state and not self.finished:
            self._hashes.keep(self._upload.id, self._committed, self._state)

    def _commit(self, *, finish: bool) -> None:
        if self.finished or not (self._pending or finish):
            return
        try:
            sha256 = self._digest() if finish else None
            freed = self._uploads.append(self._upload.id, self._pending, self._committed, sha256)
        except AWAY:
            self._pending.clear()  # it may have happened before its answer was lost: they are swept if not
            self._before = None
            raise
        self._pending.clear()
        self._settled_at = time.monotonic()
        self._committed, self._before = self.offset, self._state.copy() if self._state else None
        self.finished = finish
        self._storage.delete([file.key for file in freed])

    def _digest(self) -> str:
        if self._state is None:
            self._state = self._read_again()
        return self._state.hexdigest()

    def _read_again(self) -> Hash:
        """Everything once more, by one at a time. Raises: UploadLockedError; StorageCorruptError."""
        who, state = secrets.token_hex(8), hashlib.sha256()
        self._uploads.claim_hashing(self._upload.id, self._committed, who)
        said = time.monotonic()
        parts: list[Part | NewPart] = [*self._uploads.parts(self._upload), *self._pending]
        for part in parts:
            crc32 = size = 0
            for chunk in self._storage.read(part.key):
                state.update(chunk)
                crc32, size = zlib.crc32(chunk, crc32), size + len(memoryview(chunk))
            if (size, crc32) != (part.size, part.crc32):
                raise StorageCorruptError(
                    f"bytes of upload {self._upload.id} were damaged in the store", "send the file again"
                )
            if time.monotonic() - said > HASHING_SECONDS / 3:
                self._uploads.claim_hashing(self._upload.id, self._committed, who)
                said = time.monotonic()
        return state


def take_in(new: NewUpload, chunks: Iterable[Buffer], uploads: UploadRepository, storage: Storage) -> Upload:
    """A whole file that is at hand, as a finished upload; ``new.size`` is None. Raises: as ``Intake.add``."""
    upload = uploads.begin(new)
    intake = Intake(upload, uploads, storage, Hashes())
    try:
        content = bytearray()
        for chunk in chunks:
            content += chunk
            if len(content) >= PART_BYTES:
                intake.add(content)
                content = bytearray()
        intake.add(content)
        intake.finish()
    except BaseException:
        intake.drop()
        storage.delete([file.key for file in uploads.delete(upload.id)])
        raise
    return uploads.finished(upload.id)

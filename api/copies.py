"""Verified copies of stored files, kept for a while: a download in ranges reads and hashes the file once."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakValueDictionary

from jobs.errors import JobsError
from jobs.storage import Storage
from jobs.tables import Artifact

_MOST_BYTES = 4 << 30
_KEEP_SECONDS = 60.0


class TooManyDownloadsError(JobsError):
    """No room for one more copy."""

    status, code = 503, "too_many_downloads"
    retry_after = 10.0

    def __init__(self) -> None:
        super().__init__("too much is being downloaded already", "try again soon")


@dataclass
class Copy:
    """An open file without a name, gone when nobody has it any more; ``version`` is the store's."""

    descriptor: int
    size: int
    version: str
    used_at: float = field(default_factory=time.monotonic)

    def read(self, start: int, length: int) -> bytes:
        """Some of it, from any thread."""
        return os.pread(self.descriptor, length, start)

    def __del__(self) -> None:
        os.close(self.descriptor)


class Copies:
    """Nothing leaves it that was not hashed: what the store damaged is never served.

    A stored file is written once. Should anybody write to it nevertheless, its version changes and it is verified anew.
    """

    def __init__(self, storage: Storage, folder: Path, most_bytes: int = _MOST_BYTES) -> None:
        self._storage, self._folder, self._most_bytes = storage, folder, most_bytes
        self._lock = threading.Lock()
        self._copies: OrderedDict[str, Copy] = OrderedDict()  # that are kept
        self._open: WeakValueDictionary[tuple[str, str], Copy] = WeakValueDictionary()  # that are kept or being read
        self._coming = 0  # bytes that are being copied
        self._making: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        self._timer: threading.Timer | None = None

    def get(self, artifact: Artifact) -> Copy:
        """The newest copy, or a new one.

        Raises: StorageCorruptError, StorageError, StorageFullError, TooManyDownloadsError.
        """
        version = self._storage.version(artifact.key)
        with self._lock:
            making = self._making.setdefault(artifact.key, threading.Lock())
        with making:  # of those that come at once, one copies
            with self._lock:
                copy = self._open.get((artifact.key, version))
                if copy is None:
                    self._check_room(artifact.size)
            if copy is None:
                try:
                    copy = self._make(artifact, version)
                finally:
                    with self._lock:
                        self._coming -= artifact.size
            copy.used_at = time.monotonic()
            with self._lock:
                self._open[artifact.key, version] = copy
                self._copies[artifact.key] = copy
                self._copies.move_to_end(artifact.key)
                self._forget()
        return copy

    def _check_room(self, size: int) -> None:
        """Copies that were forgotten last as long as somebody reads them, however slowly."""
        self._forget(size)
        taken = self._coming + sum(copy.size for copy in self._open.values())
        if taken and taken + size > 2 * self._most_bytes:
            raise TooManyDownloadsError
        self._coming += size

    def _make(self, artifact: Artifact, version: str) -> Copy:
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".download-") as folder:
            path = Path(folder) / "file"
            self._storage.fetch([artifact.key], artifact.sha256, path)
            return Copy(os.open(path, os.O_RDONLY), artifact.size, version)  # it lives on without a name

    def _forget(self, coming: int = 0) -> None:
        """Those that nobody asked for lately, and the oldest where they take too much room; again after a while."""
        oldest = time.monotonic() - _KEEP_SECONDS
        room = coming + sum(copy.size for copy in self._copies.values())
        while self._copies:
            key, copy = next(iter(self._copies.items()))
            if copy.used_at >= oldest and room <= self._most_bytes:
                break
            room -= copy.size
            del self._copies[key], copy
        if self._copies and self._timer is None:
            self._timer = threading.Timer(_KEEP_SECONDS, self._forget_later)
            self._timer.daemon = True
            self._timer.start()

    def _forget_later(self) -> None:
        with self._lock:
            self._timer = None
            self._forget()

"""Files under immutable keys, by obstore: a folder, S3, GCS or Azure. Written whole, hashed, hashed when read back."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import AzureStore, GCSStore, LocalStore, ObjectStore, S3Store, from_url

from jobs.errors import IrregularFileError, StorageCorruptError, StorageError, StorageFullError, StorageMissingError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig
    from typing_extensions import Buffer

_CHUNK = 1 << 20
_CLOCK, _OWNER = "temper-clock", "temper-owner"
_OURS = ("jobs", "uploads")
_FULL = ("No space left on device", "File too large", "Disk quota exceeded")
_CLIENT: ClientConfig = {
    "connect_timeout": timedelta(seconds=5),
    "read_timeout": timedelta(seconds=10),  # a store that is frozen, and not gone, ends nothing by itself
    "timeout": timedelta(seconds=300),
    "allow_http": True,  # an endpoint without TLS is the operator's choice
}
_RETRY: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}


@dataclass(frozen=True)
class Stored:
    """A file that was put: only a row in the database makes it exist for anybody else."""

    key: str
    sha256: str
    size: int


class Storage:
    """A store by its URL; credentials of a cloud come from its usual environment variables (AWS_..., ...)."""

    def __init__(self, url: str) -> None:
        if url.startswith("file://"):
            root = Path(url.removeprefix("file://"))
            root.mkdir(parents=True, exist_ok=True)
            self._store: ObjectStore = LocalStore(root, automatic_cleanup=True)
            self._root: Path | None = root
        else:
            self._root = None
            self._store = from_url(url, client_options=_CLIENT, retry_config=_RETRY)

    def put(self, key: str, path: Path) -> Stored:
        """Store a file. It is written under a temporary name and renamed, so no reader sees a part of it.

        Raises: StorageFullError, StorageError; FileNotFoundError if there is no such file; IrregularFileError.
        """
        with _open_plain(path) as file:  # one handle: the path may be renamed over meanwhile
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
            file.seek(0)
            with _translated(key):
                obstore.put(self._store, key, file)
        return Stored(key, sha256, size)

    def put_part(self, key: str, content: bytes | bytearray | memoryview) -> None:
        """Store what is in memory, whole or not at all. Raises: StorageFullError, StorageError."""
        with _translated(key):
            obstore.put(self._store, key, content)

    def fetch(self, keys: Sequence[str], sha256: str, target: Path) -> None:
        """Copy a stored file to ``target``; of several keys, one after the other.

        Raises: StorageCorruptError if its bytes are not those that were put; StorageFullError, StorageError.
        """
        digest = hashlib.sha256()
        with target.open("wb") as file:
            for key in keys:
                for chunk in self.read(key):
                    digest.update(chunk)
                    with _translated(key):
                        file.write(chunk)
        if digest.hexdigest() != sha256:
            target.unlink()
            raise StorageCorruptError(f"stored file {keys[0]} was damaged")

    def read(self, key: str) -> Iterator[Buffer]:
        """The bytes of a stored file, unverified. Raises: StorageMissingError, StorageError."""
        with _translated(key):
            yield from obstore.get(self._store, key).stream(min_chunk_size=_CHUNK)

    def version(self, key: str) -> str:
        """What changes whenever anybody writes to a stored file. Raises: StorageMissingError, StorageError."""
        with _translated(key):
            meta = obstore.head(self._store, key)
            return f"{meta['e_tag']} {meta['last_modified']} {meta['size']}"

    def delete(self, keys: list[str]) -> None:
        """Remove files; one that is gone already is no error. Raises: StorageError."""
        for key in keys:
            with suppress(StorageMissingError), _translated(key):
                obstore.delete(self._store, key)

    def owner(self, identity: str) -> str:
        """Whose files these are: this service's, from the first time on that one asks."""
        with _translated(_OWNER):
            with suppress(AlreadyExistsError):
                obstore.put(self._store, _OWNER, identity.encode(), mode="create")
            return bytes(obstore.get(self._store, _OWNER).bytes()).decode()

    def older_than(self, seconds: float) -> Iterator[list[str]]:
        """Keys of our files that were put at least so long ago by the store's clock, in batches."""
        with _translated(""):
            oldest = self._clock() - timedelta(seconds=seconds)
            for prefix in _OURS:
                for batch in obstore.list(self._store, prefix):
                    yield [meta["path"] for meta in batch if meta["last_modified"] < oldest]

    def drop_staged(self, seconds: float) -> int:
        """Remove what a killed process left of files it was writing, in a folder; other stores have rules for that."""
        if self._root is None:
            return 0
        oldest = self._clock().timestamp() - seconds
        dropped = 0
        for prefix in _OURS:
            for path in (self._root / prefix).rglob("*#*"):  # as obstore names them until they are whole
                with suppress(FileNotFoundError):  # it has become whole in this moment
                    if path.stat().st_mtime < oldest:
                        path.unlink()
                        dropped += 1
        return dropped

    def _clock(self) -> datetime:
        """The store's: the clock of this machine may be off by hours."""
        obstore.put(self._store, _CLOCK, b"")
        return obstore.head(self._store, _CLOCK)["last_modified"]

    def signed_url(self, key: str, seconds: float) -> str | None:
        """An address from which anybody can download the file for so long; None where the store has none."""
        if not isinstance(self._store, S3Store | GCSStore | AzureStore):
            return None
        return obstore.sign(self._store, "GET", key, timedelta(seconds=seconds))

    def check(self) -> None:
        """Raises: StorageError if the store does not answer."""
        with _translated(""):
            next(iter(obstore.list(self._store, chunk_size=1)), None)


def _open_plain(path: Path) -> BufferedReader:
    """A file that who wrote it may exchange for a link, to have another one read, or for a pipe, to have us wait."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise IrregularFileError(f"{path.name} is no plain file") from error
        raise
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise IrregularFileError(f"{path.name} is no plain file")
    return os.fdopen(number, "rb")


@contextmanager
def _translated(key: str) -> Iterator[None]:
    """What stores raise, as ours."""
    try:
        yield
    except (FileNotFoundError, NotFoundError) as error:
        raise StorageMissingError(f"stored file {key} is gone") from error
    except (BaseError, OSError) as error:
        if any(words in str(error) for words in _FULL):
            raise StorageFullError("there is no room left for a file", "free some space, then try again") from error
        raise StorageError(f"the store failed at {key or 'listing'}: {type(error).__name__}") from error

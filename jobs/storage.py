"""Files under immutable keys, by obstore: written whole, hashed, and hashed again when read back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import obstore
from obstore.store import LocalStore

from jobs.errors import StorageCorruptError

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Stored:
    """A file that was put: only a row in the database makes it exist for anybody else."""

    key: str
    sha256: str
    size: int


class Storage:
    """A local folder."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._store = LocalStore(root)

    def put(self, key: str, path: Path) -> Stored:
        """Store a file. The store writes to a temporary name and renames, so no reader sees a part of it."""
        with path.open("rb") as file:  # one handle: the path may be renamed over meanwhile
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
            file.seek(0)
            obstore.put(self._store, key, file)
        return Stored(key, sha256, size)

    def fetch(self, key: str, sha256: str, target: Path) -> None:
        """Copy a stored file to ``target``.

        Raises: StorageCorruptError if its bytes are not those that were put.
        """
        digest = hashlib.sha256()
        with target.open("wb") as file:
            for chunk in obstore.get(self._store, key).stream(min_chunk_size=_CHUNK):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != sha256:
            target.unlink()
            raise StorageCorruptError(f"stored file {key} was damaged")

    def read(self, key: str, start: int, end: int) -> Iterator[bytes]:
        """Bytes ``start`` to ``end`` (exclusive), in chunks."""
        for position in range(start, end, _CHUNK):
            yield bytes(obstore.get_range(self._store, key, start=position, end=min(end, position + _CHUNK)))

    def delete(self, keys: list[str]) -> None:
        """Remove files; one that is gone already is no error."""
        for key in keys:
            try:
                obstore.delete(self._store, key)
            except FileNotFoundError:
                continue

"""Files on this side: their hashes, and their bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

_PIECE_BYTES = 1 << 16
_READ_BYTES = 1 << 20

Report = Callable[[int], None]
"""Told how many bytes are done."""


def hash_file(path: Path) -> Hash:
    """The SHA-256 of a file as it is now, which may be gone on with. Raises: OSError."""
    state = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            state.update(chunk)
    return state


def read_at(path: Path, offset: int, length: int) -> bytes:
    """Some of a file. Raises: OSError."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


@dataclass(frozen=True)
class Pieces:
    """A body in pieces that are small enough to show how far it is; ``offset``: of its first byte in the file."""

    content: bytes
    offset: int
    report: Report

    def __iter__(self) -> Iterator[bytes]:
        """Each is reported once the next one is asked for."""
        for start in range(0, len(self.content), _PIECE_BYTES):
            yield self.content[start : start + _PIECE_BYTES]
            self.report(self.offset + min(start + _PIECE_BYTES, len(self.content)))

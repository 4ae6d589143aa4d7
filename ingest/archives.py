"""Reading archives: whatever is wrong with one is one kind of error, and nothing grows without bound."""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from ingest.errors import IngestError, UploadTooLargeError

# what readers raise on truncated, encrypted, oddly compressed or misnamed archives, as fuzzing found
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    UnicodeError,
    NotImplementedError,
    RuntimeError,
    OSError,
)
RATIO = 100
FREE_BYTES = 64 * 2**20


class DamagedError(EOFError):
    """An archive that ends early or contradicts itself."""


class Budget:
    """Bytes that may come out of an upload: ``RATIO`` times its size, and ``FREE_BYTES`` in any case."""

    def __init__(self, name: str, size: int) -> None:
        self._name, self._limit = name, max(FREE_BYTES, RATIO * size)
        self._left = self._limit

    def spend(self, count: int) -> None:
        """Raises: UploadTooLargeError once more came out than may."""
        self._left -= count
        if self._left < 0:
            raise UploadTooLargeError(
                f"{self._name} unpacks to more than {self._limit} bytes, which is over {RATIO} times its size",
                "no images compress so well; send them as they are",
            )


@contextmanager
def reading(filename: str, error: type[IngestError], hint: str) -> Iterator[None]:
    """Turn damage of an archive into ``error``; RecursionError, MemoryError and a full disk are not damage."""
    try:
        yield
    except RecursionError:
        raise
    except _DAMAGE as damage:
        if isinstance(damage, OSError) and damage.errno is not None:
            raise  # of this machine, not of the file
        raise error(f"{filename} cannot be read: {damage or type(damage).__name__}", hint) from damage


def check_name(name: str, what: str, error: type[IngestError]) -> None:
    """Refuse a name that is not valid text: it could be stored and shown nowhere."""
    try:
        name.encode()
    except UnicodeEncodeError as fault:
        raise error(f"{what} {name!r} is not valid UTF-8", "rename it") from fault

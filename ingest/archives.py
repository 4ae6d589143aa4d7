"""Reading zip and tar archives: whatever is wrong with one is one kind of error."""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from ingest.errors import IngestError

# what zipfile and tarfile raise on truncated, encrypted, oddly compressed or misnamed archives, as fuzzing found
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


@contextmanager
def reading(filename: str, error: type[IngestError], hint: str) -> Iterator[None]:
    """Turn damage of an archive into ``error``; RecursionError and MemoryError are not damage."""
    try:
        yield
    except RecursionError:
        raise
    except _DAMAGE as damage:
        raise error(f"{filename} cannot be read: {damage or type(damage).__name__}", hint) from damage


def check_name(name: str, what: str, error: type[IngestError]) -> None:
    """Refuse a name that is not valid text: it could be stored and shown nowhere."""
    try:
        name.encode()
    except UnicodeEncodeError as fault:
        raise error(f"{what} {name!r} is not valid UTF-8", "rename it") from fault

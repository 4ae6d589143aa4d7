"""Tar archives, plain or compressed, read as a stream: memory does not grow with members or headers.

tarfile keeps an object for each member, reads extended headers of any size into memory, and follows sparse maps.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from ingest.archives import Budget, DamagedError
from ingest.errors import ArchiveUnsafeError

Entry = tuple[str, int, Callable[[], Iterator[bytes]]]
_HEADER = 512
_BLOCK = 1 << 20
_MAX_EXTENSION = 1 << 20  # a long name, or what macOS keeps about a file
_MAX_DICTIONARY = 512 * 2**20
SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_REGULAR, _FOLDER = b"0\x007", b"5"
_HINT = "archives hold regular files only: tar --dereference --format=ustar"
_GZIP, _BZIP2, _XZ, _ZSTD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"


def is_tar(path: Path) -> bool:
    """Whether the file, or what it unpacks to, begins with a tar's header."""
    try:
        with _opened(path) as (stream, _):
            return _is_header(stream.read(_HEADER))
    except (OSError, EOFError, lzma.LZMAError, ValueError):
        return False


def tar_entries(path: Path, budget: Budget) -> Iterator[Entry]:
    """Name as stored, size (-1 for folders) and content of each member, in order."""
    with _opened(path) as (stream, compressed):
        yield from _Tar(stream, budget if compressed else None).entries()


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], bool]]:
    """The tar's own bytes, and whether they come out of a decompressor: then they may be endless."""
    with path.open("rb") as file, ExitStack() as stack:
        magic = file.peek(6)[:6]
        stream: Any
        if magic.startswith(_GZIP):
            stream = gzip.GzipFile(fileobj=file)
        elif magic.startswith(_BZIP2):
            stream = bz2.BZ2File(file)
        elif magic.startswith(_XZ):
            # its header may ask for 4 GiB; this reads no more than the header
            lzma.LZMADecompressor(memlimit=_MAX_DICTIONARY).decompress(file.peek(_HEADER)[:_HEADER], max_length=1)
            stream = stack.enter_context(lzma.LZMAFile(file))
        elif magic.startswith(_ZSTD):
            import pyarrow  # slow to load, and seldom needed

            stream = _Zstd(pyarrow.CompressedInputStream(pyarrow.PythonFile(file, "r"), "zstd"))
        else:
            yield file, False
            return
        yield stack.enter_context(io.BufferedReader(stream, _BLOCK)), True


class _Zstd(io.RawIOBase):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._stream.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


class _Tar:
    def __init__(self, stream: IO[bytes], budget: Budget | None) -> None:
        self._stream, self._budget = stream, budget
        self._end = os.fstat(stream.fileno()).st_size if budget is None else None
        self._left = 0  # of the present member's content
        self._padding = 0

    def entries(self) -> Iterator[Entry]:
        long_name = ""
        extended: dict[str, str] = {}
        first = True
        while (header := self._read(_HEADER)) and header.strip(b"\0"):
            if not _is_header(header):
                raise DamagedError("it is no tar" if first else "a header is damaged")
            first = False
            kind, size = header[156:157], _number(header[124:136])
            if kind in b"LKxXg":
                if size > _MAX_EXTENSION:
                    raise ArchiveUnsafeError(f"an extended header has {size} bytes", _HINT)
                content = self._extension(size)
                if kind == b"L":
                    long_name = _text(content)
                elif kind == b"x" or kind == b"X":
                    extended = _records(content)
                continue
            if "size" in extended:
                size = _decimal(extended["size"])
            name = extended.get("path") or long_name or _short_name(header)
            if kind == b"S" or any(key.startswith("GNU.sparse") for key in extended):
                raise ArchiveUnsafeError(f"{name[:200]!r} is a sparse file", _HINT)
            long_name, extended = "", {}
            if kind == _FOLDER or (kind in b"\x000" and name.endswith("/")):
                size = 0 if kind == _FOLDER else size
                self._begin(size)
                yield name, -1, lambda: iter(())
            elif kind in _REGULAR:
                self._begin(size)
                yield name, size, self._content
            else:
                raise ArchiveUnsafeError(f"{name[:200]!r} is a link or a device", _HINT)
            self._skip()
        if first:
            raise DamagedError("it is empty")

    def _read(self, count: int) -> bytes:
        content = self._stream.read(count)
        if self._budget is not None:
            self._budget.spend(len(content))
        if 0 < len(content) < count:
            raise DamagedError("it is cut off")
        return content

    def _begin(self, size: int) -> None:
        if self._end is not None and size > self._end - self._stream.tell():
            raise DamagedError("it is cut off")
        self._left, self._padding = size, -size % _HEADER

    def _content(self) -> Iterator[bytes]:
        while self._left:
            block = self._read(min(_BLOCK, self._left))
            if not block:
                raise DamagedError("it is cut off")
            self._left -= len(block)
            yield block

    def _skip(self) -> None:
        """To the next header."""
        if self._budget is None and self._left > _BLOCK:
            self._stream.seek(self._left, os.SEEK_CUR)
            self._left = 0
        for _ in self._content():
            pass
        if self._padding and len(self._read(self._padding)) != self._padding:
            raise DamagedError("it is cut off")

    def _extension(self, size: int) -> bytes:
        self._begin(size)
        content = b"".join(self._content())
        self._skip()
        return content


def _is_header(header: bytes) -> bool:
    """Whether the checksum, the sum of all bytes with spaces in its own place, is right."""
    if len(header) != _HEADER or not header.strip(b"\0"):
        return False
    try:
        return _number(header[148:156]) == sum(header) - sum(header[148:156]) + 8 * 32
    except DamagedError:
        return False


def _number(field: bytes) -> int:
    if field[0] == 0x80:  # base 256
        value = int.from_bytes(field[1:], "big")
        if value >= 2**62:
            raise DamagedError("a header is damaged")
        return value
    try:
        return int(field.split(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        raise DamagedError("a header is damaged") from None


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise DamagedError("an extended header is damaged")
    return int(text)


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode(errors="surrogateescape")


def _short_name(header: bytes) -> str:
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    name = _text(header[:100])
    return f"{prefix}/{name}" if prefix else name


def _records(content: bytes) -> dict[str, str]:
    """Extended headers: "LENGTH KEY=VALUE\\n", each."""
    records, at = {}, 0
    while at < len(content) and content[at]:
        length, space, _ = content[at : at + 20].partition(b" ")
        count = _decimal(length.decode("ascii", "replace")) if space else 0
        record = content[at + len(length) + 1 : at + count]
        key, equals, value = record.partition(b"=")
        if count <= len(length) or not equals or not record.endswith(b"\n"):
            raise DamagedError("an extended header is damaged")
        records[key.decode(errors="replace")] = value[:-1].decode(errors="surrogateescape")
        at += count
    return records

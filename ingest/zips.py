"""Zip archives, read entry by entry from their directory: memory does not grow with the number of entries.

zipfile keeps an object of a kilobyte for each entry, believes the sizes of entries that overlap, and takes longer to
open a small member than it takes to decode it.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from ingest.archives import Budget, DamagedError
from ingest.errors import ArchiveUnsafeError

Entry = tuple[str, int, Callable[[], Iterator[bytes]]]
_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s22x2H")
_BLOCK = 1 << 20
_SMALL = 1 << 18
_AGAIN = "zip it again with an ordinary tool, without a password"


def is_zip(path: Path) -> bool:
    """Whether the file begins as zips do; those behind something else do not."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def zip_entries(path: Path, budget: Budget) -> Iterator[Entry]:
    """Name as stored, size (-1 for folders) and content of each entry, in the directory's order."""
    with path.open("rb") as file:
        descriptor = file.fileno()
        start, size, count = _directory(descriptor, path.stat().st_size)
        file.seek(start)
        stored = 0
        for _ in range(count):
            if file.tell() + _ENTRY.size > start + size:
                raise DamagedError("its directory is shorter than it says")
            (magic, made_by, _, flags, method, _, _, crc, packed, unpacked, name_length, extra_length, comment_length,
             _, _, attributes, offset) = _ENTRY.unpack(file.read(_ENTRY.size))  # fmt: skip
            if magic != b"PK\x01\x02":
                raise DamagedError("its directory is damaged")
            raw = file.read(name_length)
            extra = file.read(extra_length)
            if comment_length:
                file.seek(comment_length, os.SEEK_CUR)
            if 0xFFFFFFFF in (packed, unpacked, offset):
                unpacked, packed, offset = _zip64(extra, unpacked, packed, offset)
            name = _text(raw)
            if made_by >> 8 == 3 and not _plain(attributes >> 16):
                raise ArchiveUnsafeError(f"{name[:200]!r} is a link or a device", "archives hold regular files only")
            if name.endswith(("/", "\\")):
                yield name, -1, lambda: iter(())
                continue
            if flags & 1:
                raise ArchiveUnsafeError(f"{name[:200]!r} is encrypted", _AGAIN)
            if method not in (0, 8):
                raise DamagedError(f"{name[:200]!r} is compressed by method {method}; stored and deflated are taken")
            stored += _LOCAL.size + name_length + packed
            if stored > start:
                raise ArchiveUnsafeError("entries of the zip overlap: they take more room than it has", _AGAIN)
            content = partial(
                _content, descriptor, offset, start, method, packed, unpacked, crc, name_length + extra_length, budget
            )
            yield name, unpacked, content


def _plain(mode: int) -> bool:
    """Whether this is the Unix mode of a regular file or a folder, or none at all."""
    return stat.S_IFMT(mode) in (0, stat.S_IFREG, stat.S_IFDIR)


def _text(raw: bytes) -> str:
    """macOS writes UTF-8 and does not say so; what is none is taken for what DOS wrote."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("cp437")


def _directory(descriptor: int, length: int) -> tuple[int, int, int]:
    """Offset and size of the directory, and the count of its entries."""
    reach = min(length, _END.size + 0xFFFF)
    tail = os.pread(descriptor, reach, length - reach)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise DamagedError("it has no directory at its end; it is cut off")
    _, disk, _, _, count, size, start, comment = _END.unpack_from(tail, at)
    end = length - reach + at
    if end + _END.size + comment != length or disk not in (0, 0xFFFF):
        raise DamagedError("something lies behind its directory, or it is one of several parts")
    if 0xFFFF in (count, disk) or 0xFFFFFFFF in (size, start):
        locator = os.pread(descriptor, _LOCATOR.size, max(0, end - _LOCATOR.size))
        if locator[:4] == b"PK\x06\x07":
            where = _LOCATOR.unpack(locator)[2]
            record = os.pread(descriptor, _END64.size, min(where, length))
            if len(record) < _END64.size or record[:4] != b"PK\x06\x06":
                raise DamagedError("its zip64 directory is damaged")
            *_, count, size, start = _END64.unpack(record)
            end = where
    if start + size != end:
        raise DamagedError("its directory is not where it says")
    if count * _ENTRY.size > size:
        raise DamagedError("its directory is shorter than it says")
    return start, size, count


def _zip64(extra: bytes, *fields: int) -> list[int]:
    """The fields, those that do not fit 32 bits taken from the extra field."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            wide = fields.count(0xFFFFFFFF)
            if length < 8 * wide or at + 4 + 8 * wide > len(extra):
                break
            values = iter(struct.unpack_from(f"<{wide}Q", extra, at + 4))
            return [next(values) if field == 0xFFFFFFFF else field for field in fields]
        at += 4 + length
    return list(fields)


def _content(
    descriptor: int,
    offset: int,
    end: int,
    method: int,
    packed: int,
    unpacked: int,
    crc: int,
    guess: int,
    budget: Budget,
) -> Iterator[bytes]:
    """The entry's bytes: as many as the directory says, with its checksum."""
    budget.spend(unpacked)
    if offset > end:
        raise DamagedError("an entry lies outside")
    # header and content of a small entry in one read; the header's extra field may be longer than the directory's
    head = os.pread(descriptor, _LOCAL.size + (guess + 64 + packed if packed < _SMALL else 0), offset)
    if len(head) < _LOCAL.size or head[:4] != b"PK\x03\x04":
        raise DamagedError("an entry is not where the directory says")
    _, name_length, extra_length = _LOCAL.unpack_from(head)
    begin = _LOCAL.size + name_length + extra_length
    if offset + begin + packed > end:
        raise DamagedError("an entry reaches into the directory")
    whole = head[begin : begin + packed]
    pieces = iter((whole,)) if len(whole) == packed else _pieces(descriptor, offset + begin, packed)
    found, total = 0, 0
    for block in pieces if method == 0 else _inflate(pieces, unpacked):
        found = zlib.crc32(block, found)
        total += len(block)
        yield block
    if total != unpacked:
        raise DamagedError(f"an entry has {total} bytes, or more, where the directory says {unpacked}")
    if found != crc:
        raise DamagedError("an entry's checksum is wrong")


def _pieces(descriptor: int, start: int, size: int) -> Iterator[bytes]:
    for offset in range(start, start + size, _BLOCK):
        yield os.pread(descriptor, min(_BLOCK, start + size - offset), offset)


def _inflate(pieces: Iterator[bytes], unpacked: int) -> Iterator[bytes]:
    """Inflated, but never more than one byte past what was promised."""
    inflating, left = zlib.decompressobj(-15), unpacked + 1
    for piece in pieces:
        while piece and left:
            block = inflating.decompress(piece, min(left, _BLOCK))
            left -= len(block)
            if block:
                yield block
            piece = inflating.unconsumed_tail
            if not block:
                break
    while left and not inflating.eof and (block := inflating.decompress(b"", min(left, _BLOCK))):
        left -= len(block)
        yield block
    if not inflating.eof:
        raise DamagedError("an entry is cut off, or longer than the directory says")

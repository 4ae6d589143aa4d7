"""Reads zip files in which every byte is accounted for and every reader sees the same.

Zip says everything twice: in a header before each record and in a directory at the end. Readers differ in which they
believe, and in what they skip between; a file can so be harmless for one and code for another. Here both must agree,
records follow each other without a gap from the first byte to the directory, and the directory ends the file.
Compressed records are refused: torch.save stores them, so what is in memory is never more than what was sent.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ingest.checkpoint_errors import (
    CheckpointArchiveError,
    CheckpointChecksumError,
    CheckpointRecordsCompressedError,
    CheckpointTooLargeError,
    CheckpointTruncatedError,
)

_MAX_RECORDS = 100_000
_MAX_DIRECTORY = 16 * 2**20
_ENCRYPTED, _DESCRIPTOR = 1, 8
_FLAGS = _DESCRIPTOR | 0x800  # 0x800: names are UTF-8
_NARROW = 0xFFFFFFFF  # the real number is in the zip64 field

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")


@dataclass(frozen=True)
class Record:
    """One member, as the directory has it; ``data`` is where its bytes begin, once the headers were checked."""

    name: bytes
    flags: int
    method: int
    checksum: int
    size: int
    stored: int
    header: int
    data: int = -1

    @property
    def encrypted(self) -> bool:
        """Whether it wants a password."""
        return bool(self.flags & _ENCRYPTED)


def read_directory(path: Path) -> tuple[list[Record], int]:
    """The members as the directory at the end lists them, and where the directory begins.

    Raises: CheckpointTruncatedError, CheckpointArchiveError, CheckpointTooLargeError.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 2**16))
        tail = file.read()
        count, length, start = _read_end(tail, size)
        if count > _MAX_RECORDS or length > _MAX_DIRECTORY:
            raise CheckpointTooLargeError(f"the archive lists {count} records in {length} bytes, more than is taken")
        file.seek(start)
        directory = file.read(length)
    records, at = [], 0
    for _ in range(count):
        record, at = _central(directory, at)
        records.append(record)
    if at != length:
        raise CheckpointArchiveError("the archive's directory does not have the size that it states")
    return records, start


def locate(path: Path, records: list[Record], end: int) -> list[Record]:
    """The records with ``data`` set, after comparing each one's own header with the directory.

    Raises: CheckpointArchiveError, CheckpointRecordsCompressedError.
    """
    if len({record.name for record in records}) != len(records):
        raise CheckpointArchiveError("two records of the archive have the same name")
    if any(record.method != 0 for record in records):
        raise CheckpointRecordsCompressedError("records of the archive are compressed")
    located, expected = [], 0
    with path.open("rb") as file:
        for record in sorted(records, key=lambda record: record.header):
            if record.header != expected:
                raise CheckpointArchiveError(f"records of the archive overlap or leave a gap at byte {expected}")
            file.seek(record.header)
            fixed = file.read(_LOCAL.size)
            if len(fixed) != _LOCAL.size:
                raise CheckpointArchiveError(f"record {_shown(record)} has no header of its own")
            signature, _, flags, method, _, _, checksum, stored, size, name, extra = _LOCAL.unpack(fixed)
            data = record.header + _LOCAL.size + name + extra
            if signature != b"PK\x03\x04" or file.read(name) != record.name:
                raise CheckpointArchiveError(f"record {_shown(record)} has another name in its own header")
            if flags != record.flags or method != record.method or flags & ~_FLAGS or record.size != record.stored:
                raise CheckpointArchiveError(f"record {_shown(record)} is described in two ways")
            if not _sizes_agree(record, (checksum, stored, size), file.read(extra)):
                raise CheckpointArchiveError(f"record {_shown(record)} has another size or checksum in its own header")
            if data + record.size > end:
                raise CheckpointArchiveError(f"record {_shown(record)} reaches beyond the archive's records")
            file.seek(data + record.size)
            expected = data + record.size + _descriptor(file.read(24), record)
            located.append(replace(record, data=data))
    if expected != end:
        raise CheckpointArchiveError("the archive has bytes between its last record and its directory")
    return located


def blocks(path: Path, record: Record, block: int) -> Iterator[bytes]:
    """The record's bytes, ``block`` at a time; the checksum is compared at the end.

    Raises: CheckpointChecksumError.
    """
    checksum = 0
    with path.open("rb") as file:
        file.seek(record.data)
        for done in range(0, record.size, block):
            content = file.read(min(block, record.size - done))
            checksum = zlib.crc32(content, checksum)
            yield content
    if checksum != record.checksum:
        raise CheckpointChecksumError(f"record {_shown(record)} does not have its checksum")


def _shown(record: Record) -> str:
    return ascii(record.name[:100].decode("utf-8", "replace"))


def _read_end(tail: bytes, size: int) -> tuple[int, int, int]:
    """Number of records, length and start of the directory, from what ends the file."""
    at = tail.rfind(b"PK\x05\x06")
    if at < 0:
        raise CheckpointTruncatedError("a zip file whose end is missing")
    if len(tail) - at < _END.size:
        raise CheckpointTruncatedError("a zip file whose end is cut off")
    _, disk, first_disk, here, count, length, start, comment = _END.unpack_from(tail, at)
    if len(tail) - at != _END.size or comment:
        raise CheckpointArchiveError("bytes follow the end of the archive")
    end = size - _END.size
    narrow = (disk, first_disk, here, count, length, start)
    if tail[:at][-_LOCATOR.size :].startswith(b"PK\x06\x07"):
        end -= _LOCATOR.size + _END64.size
        before = tail[: at - _LOCATOR.size][-_END64.size :]
        _, locator_disk, where, disks = _LOCATOR.unpack(tail[at - _LOCATOR.size : at])
        if where != end or locator_disk or disks > 1 or not before.startswith(b"PK\x06\x06"):
            raise CheckpointArchiveError("the archive's two ends do not agree")
        _, own, _, _, disk, first_disk, here, count, length, start = _END64.unpack(before)
        wide = (disk, first_disk, here, count, length, start)
        limits = (0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, _NARROW, _NARROW)
        if own != _END64.size - 12 or any(
            a not in (b, limit) for a, b, limit in zip(narrow, wide, limits, strict=True)
        ):
            raise CheckpointArchiveError("the archive's two ends do not agree")
    if disk or first_disk or here != count or start + length != end:
        raise CheckpointArchiveError("the archive's directory is not where its end says")
    return count, length, start


def _central(directory: bytes, at: int) -> tuple[Record, int]:
    """One entry of the directory, and where the next one begins."""
    if at + _CENTRAL.size > len(directory):
        raise CheckpointArchiveError("the archive's directory is cut off")
    fields = _CENTRAL.unpack_from(directory, at)
    signature, _, _, flags, method, _, _, checksum, stored, size, name, extra, comment, disk, _, _, header = fields
    begin = at + _CENTRAL.size
    end = begin + name + extra + comment
    if signature != b"PK\x01\x02" or end > len(directory) or disk:
        raise CheckpointArchiveError("the archive's directory is damaged")
    numbers = _widen([size, stored, header], directory[begin + name : begin + name + extra])
    return Record(directory[begin : begin + name], flags, method, checksum, *numbers), end


def _widen(numbers: list[int], extra: bytes) -> list[int]:
    """Numbers that do not fit in 32 bits stand in the zip64 field, in order."""
    field = _zip64(extra)
    for index, number in enumerate(numbers):
        if number == _NARROW and field is not None:
            if len(field) < 8:
                raise CheckpointArchiveError("the archive's zip64 field is too short")
            numbers[index], field = int.from_bytes(field[:8], "little"), field[8:]
    return numbers


def _zip64(extra: bytes) -> bytes | None:
    found, at = None, 0
    while at < len(extra):
        kind, length = int.from_bytes(extra[at : at + 2], "little"), int.from_bytes(extra[at + 2 : at + 4], "little")
        if at + 4 + length > len(extra) or (kind == 1 and found is not None):
            raise CheckpointArchiveError("the archive's extra fields are damaged")
        if kind == 1:
            found = extra[at + 4 : at + 4 + length]
        at += 4 + length
    return found


def _sizes_agree(record: Record, local: tuple[int, int, int], extra: bytes) -> bool:
    checksum, stored, size = local
    size, stored = _widen([size, stored], extra)
    if record.flags & _DESCRIPTOR and (checksum, stored, size) == (0, 0, 0):
        return True  # they follow the record
    return (checksum, stored, size) == (record.checksum, record.stored, record.size)


def _descriptor(following: bytes, record: Record) -> int:
    """Bytes of the description that follows the record, if its flags say that one does."""
    if not record.flags & _DESCRIPTOR:
        return 0
    for numbers in ("<4s3I", "<4sI2Q"):
        length = struct.calcsize(numbers)
        if len(following) >= length:
            found = struct.unpack_from(numbers, following)
            if found == (b"PK\x07\x08", record.checksum, record.stored, record.size):
                return length
    raise CheckpointArchiveError(f"what follows record {_shown(record)} does not describe it")

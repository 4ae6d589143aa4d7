"""The sizes that Parquet pages say they unpack to, read before anything is unpacked.

The footer says how large columns are, and may lie; page headers lie as well, but a page that unpacks to something else
than its header says is an error, and what they say is what gets allocated. The footer is read here too: pyarrow, asked
for a column's place, ends the whole process over some that are damaged.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

from ingest.archives import DamagedError
from ingest.errors import UploadTooLargeError

MAX_PAGE = 96 << 20
_MAX_FOOTER = 16 << 20
_HEADER = 16 << 10
_MAX_DEPTH = 12
# numbers of the fields that are looked at, by struct
_GROUPS, _COLUMNS, _OTHER_FILE, _META = 4, 1, 1, 3
_PATH, _PACKED_SIZE, _DATA_OFFSET, _DICTIONARY_OFFSET = 3, 7, 9, 11
_UNPACKED, _PACKED = 2, 3


def largest_page(path: Path, columns: Set[str], name: str) -> int:
    """Bytes of the largest page of these columns, unpacked.

    Raises: UploadTooLargeError, DamagedError.
    """
    largest, length = 0, path.stat().st_size
    with path.open("rb") as file:
        descriptor = file.fileno()
        for start, end in _chunks(_footer(descriptor, length), columns):
            if not 0 < start <= end <= length:
                raise DamagedError("a column lies outside of it")
            while start < end:
                reader = _Compact(os.pread(descriptor, _HEADER, start))
                header = reader.struct()
                unpacked, packed = _whole(header.get(_UNPACKED)), _whole(header.get(_PACKED))
                if unpacked > MAX_PAGE:
                    raise UploadTooLargeError(
                        f"a page of {name} unpacks to {unpacked} bytes; at most {MAX_PAGE} are taken",
                        "write it with smaller row groups or pages",
                    )
                largest = max(largest, unpacked)
                start += reader.at + packed
    return largest


def _footer(descriptor: int, length: int) -> dict[int, Any]:
    tail = os.pread(descriptor, 8, max(0, length - 8))
    size = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or size + 12 > length:
        raise DamagedError("its footer is damaged")
    if size > _MAX_FOOTER:
        raise UploadTooLargeError(f"its footer has {size} bytes; at most {_MAX_FOOTER} are taken")
    return _Compact(os.pread(descriptor, size, length - 8 - size)).struct()


def _chunks(footer: dict[int, Any], columns: Set[str]) -> Iterator[tuple[int, int]]:
    """Where the columns' chunks begin and end."""
    try:
        for group in footer[_GROUPS]:
            for column in group[_COLUMNS]:
                meta = column[_META]
                if _OTHER_FILE in column:
                    raise DamagedError("its columns lie in other files")
                if b".".join(meta[_PATH]).decode() not in columns:
                    continue
                start = _whole(meta[_DATA_OFFSET])
                start = min(start, _whole(meta.get(_DICTIONARY_OFFSET, start)) or start)
                yield start, start + _whole(meta[_PACKED_SIZE])
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise DamagedError("its footer is damaged") from error


def _whole(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise DamagedError("a page's header is damaged")
    return value


class _Compact:
    """Thrift's compact protocol, as far as Parquet uses it. ``at``: how far it was read."""

    def __init__(self, content: bytes) -> None:
        self._content, self.at = content, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Values by number of field: integers, bytes, lists, structs; None for what is none of them."""
        fields: dict[int, Any] = {}
        number = 0
        while (byte := self._byte()) != 0:
            number = number + (byte >> 4) if byte >> 4 else self._zigzag()
            fields[number] = None if byte & 15 in (1, 2) else self._value(byte & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise DamagedError("its footer is too deep")
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind == 8:
            return self._take(self._varint())
        if kind in (9, 10):
            byte = self._byte()
            count = byte >> 4 if byte >> 4 < 15 else self._varint()
            if count > len(self._content):
                raise DamagedError("its footer is damaged")
            return [self._value(byte & 15, depth + 1) for _ in range(count)]
        if kind == 12:
            return self.struct(depth + 1)
        if kind not in (1, 2, 3, 7):
            raise DamagedError("its footer is damaged")
        self._take(8 if kind == 7 else 1)
        return None

    def _byte(self) -> int:
        return self._take(1)[0]

    def _take(self, count: int) -> bytes:
        self.at += count
        if self.at > len(self._content):
            raise DamagedError("its footer is damaged")
        return self._content[self.at - count : self.at]

    def _varint(self) -> int:
        value = shift = 0
        while shift < 70:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
        raise DamagedError("its footer is damaged")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

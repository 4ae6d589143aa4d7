"""Writes zip files as torch.save does, or with any field of them saying something else."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Member:
    """One record; a field that is None says the truth, ``local_*`` is the header before the record."""

    name: bytes
    content: bytes
    flags: int = 0
    method: int = 0
    checksum: int | None = None
    size: int | None = None
    header: int | None = None
    extra: bytes = b""
    local_name: bytes | None = None
    local_flags: int | None = None
    local_method: int | None = None
    local_size: int | None = None
    local_extra: bytes = b""
    following: bytes = b""


def pack(members: Sequence[Member], *, before: bytes = b"", comment: bytes = b"", after: bytes = b"") -> bytes:
    """The archive: ``before`` moves the offsets along, ``after`` follows the end."""
    out, directory = bytearray(before), bytearray()
    for member in members:
        at = len(out)
        true = zlib.crc32(member.content)
        checksum = true if member.checksum is None else member.checksum
        size = len(member.content) if member.size is None else member.size
        local_size = size if member.local_size is None else member.local_size
        local_name = member.name if member.local_name is None else member.local_name
        local_flags = member.flags if member.local_flags is None else member.local_flags
        local_method = member.method if member.local_method is None else member.local_method
        out += struct.pack(
            "<4s5H3I2H", b"PK\x03\x04", 20, local_flags, local_method, 0, 0, checksum, local_size, local_size,
            len(local_name), len(member.local_extra),
        )  # fmt: skip
        out += local_name + member.local_extra + member.content + member.following
        directory += struct.pack(
            "<4s6H3I5H2I", b"PK\x01\x02", 20, 20, member.flags, member.method, 0, 0, checksum, size, size,
            len(member.name), len(member.extra), 0, 0, 0, 0, at if member.header is None else member.header,
        )  # fmt: skip
        directory += member.name + member.extra
    end = struct.pack(
        "<4s4H2IH", b"PK\x05\x06", 0, 0, len(members), len(members), len(directory), len(out), len(comment)
    )
    return bytes(out + directory + end + comment + after)


def torch_members(pickle: bytes, storages: Mapping[str, bytes] | None = None, root: bytes = b"archive") -> list[Member]:
    """The records that torch.save writes."""
    records = {b"data.pkl": pickle, b"byteorder": b"little", b"version": b"3\n"}
    records |= {b"data/" + key.encode(): content for key, content in (storages or {}).items()}
    return [Member(root + b"/" + name, content) for name, content in records.items()]


def torch_zip(pickle: bytes, storages: Mapping[str, bytes] | None = None) -> bytes:
    """A .pt file around a pickle."""
    return pack(torch_members(pickle, storages))

"""Archives by their bytes: what tools refuse to make is made here."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping

Members = Mapping[str, bytes] | Iterable[tuple[str, bytes]]


def zipped(members: Members, method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip as tools make it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items() if isinstance(members, Mapping) else members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return file.getvalue()


def entry(
    name: bytes,
    packed: bytes,
    *,
    size: int | None = None,
    crc: int | None = None,
    method: int = 0,
    flags: int = 0,
    mode: int = 0,
    offset: int | None = None,
    quoted: bool = False,
) -> dict[str, object]:
    """What ``bare_zip`` writes for one member: any field may lie. ``quoted``: it has no content of its own."""
    return {
        "name": name, "packed": packed, "size": len(packed) if size is None else size,
        "crc": zlib.crc32(packed) if crc is None else crc, "method": method, "flags": flags, "mode": mode,
        "offset": offset, "quoted": quoted,
    }  # fmt: skip


def bare_zip(*entries: dict[str, object]) -> bytes:
    """A zip of entries whose fields are taken as they are."""
    body, directory = bytearray(), bytearray()
    for e in entries:
        name, packed, size = e["name"], e["packed"], e["size"]
        offset = len(body) if e["offset"] is None else e["offset"]
        if not e["quoted"]:
            body += struct.pack("<4s5H3L2H", b"PK\3\4", 20, e["flags"], e["method"], 0, 33, e["crc"], len(packed), size,
                                len(name), 0) + name + packed  # fmt: skip
        directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", 3 << 8 | 20, 20, e["flags"], e["method"], 0, 33, e["crc"],
                                 len(packed), size, len(name), 0, 0, 0, 0, e["mode"] << 16, offset) + name  # fmt: skip
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(entries), len(entries), len(directory), len(body), 0)
    return bytes(body + directory + end)


def tarred(members: Members, mode: str = "w", form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar as tools make it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=form) as archive:
        for name, content in members.items() if isinstance(members, Mapping) else members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def tar_header(name: bytes, size: int | bytes, kind: bytes = b"0", link: bytes = b"") -> bytes:
    """A header with a right checksum; ``size`` in bytes is taken as it is."""
    field = size if isinstance(size, bytes) else b"%011o\0" % size
    head = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + field + b"00000000000\0" + b" " * 8
    head += kind + link.ljust(100, b"\0") + b"ustar\00000" + bytes(32) + bytes(32) + b"0000000\0" * 2
    head = head.ljust(512, b"\0")
    return head[:148] + b"%06o\0 " % sum(head) + head[156:]


def padded(content: bytes) -> bytes:
    """Filled up to whole blocks."""
    return content + bytes(-len(content) % 512)


def gzip_of_zeros(size: int, before: bytes = b"") -> bytes:
    """A gzip of ``before`` and so many zeros."""
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as packer:
        packer.write(before)
        block = bytes(1 << 20)
        for _ in range(size >> 20):
            packer.write(block)
    return file.getvalue()


def deflated(content: bytes) -> bytes:
    """As zips deflate."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush()

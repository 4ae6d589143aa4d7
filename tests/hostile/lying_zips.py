"""Archives that two readers would read differently, and archives that are damaged."""

from __future__ import annotations

import dataclasses
import struct
import zlib

from tests.hostile.code_pickles import SHELL
from tests.hostile.entry import Hostile, having
from tests.hostile.pickles import call, named, state_dict, text, whole
from tests.hostile.zips import Member, pack, torch_members

_EVIL = whole(call(named("os", "system"), text(SHELL)))
_GOOD = torch_members(state_dict(), {"0": bytes(16)})
_ARCHIVE = pack(_GOOD)


def _changed(at: int, **fields: object) -> list[Member]:
    """The good records, one of them saying something else."""
    return [dataclasses.replace(m, **fields) if i == at else m for i, m in enumerate(_GOOD)]  # type: ignore[arg-type]


def _more(*members: Member) -> list[Member]:
    return [*_GOOD, *members]


def _deflated() -> list[Member]:
    squeezed = zlib.compress(bytes(10**6), 9)[2:-4]
    return [*_GOOD[:3], Member(b"archive/data/0", squeezed, method=8, size=len(squeezed), checksum=0)]


def _two_ends() -> bytes:
    """The end of an archive with a payload stands before the real end, which has it as a comment."""
    evil = pack(torch_members(_EVIL))
    return _ARCHIVE[:-2] + struct.pack("<H", len(evil)) + evil


def _wide_end(**changes: int) -> bytes:
    """With a zip64 end that may say something else."""
    directory = _ARCHIVE[:-22]
    _, _, _, count, _, length, start, _ = struct.unpack("<4s4H2IH", _ARCHIVE[-22:])
    said = {"count": count, "length": length, "start": start, "where": len(directory), **changes}
    wide = struct.pack(
        "<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, said["count"], said["count"], said["length"], said["start"]
    )
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, said["where"], 1)
    return directory + wide + locator + _ARCHIVE[-22:]


_WIDE = struct.pack("<2H2Q", 1, 16, 16, 16)

_FILES: list[tuple[str, bytes, str]] = [
    ("cut-in-half", _ARCHIVE[: len(_ARCHIVE) // 2], "checkpoint_truncated"),
    ("cut-at-the-end", _ARCHIVE[:-1], "checkpoint_truncated"),
    ("two-indexes", pack(_more(Member(b"archive/data.pkl", _EVIL))), "checkpoint_archive"),
    ("second-folder", pack(_more(Member(b"other/data.pkl", _EVIL))), "checkpoint_archive"),
    ("index-in-other-case", pack(_more(Member(b"archive/DATA.PKL", _EVIL))), "checkpoint_record"),
    ("index-with-a-backslash", pack(_more(Member(b"archive\\data.pkl", _EVIL))), "checkpoint_record"),
    ("index-with-a-nul", pack(_more(Member(b"archive/data.pkl\0.txt", _EVIL))), "checkpoint_record"),
    ("another-pickle", pack(_more(Member(b"archive/extra.pkl", _EVIL))), "checkpoint_record"),
    ("record-above-the-folder", pack(_more(Member(b"../evil.pkl", _EVIL))), "checkpoint_record"),
    ("absolute-record", pack(_more(Member(b"/etc/cron.d/evil", _EVIL))), "checkpoint_record"),
    ("large-version", pack(_more(Member(b"archive/.format_version", bytes(5000)))), "checkpoint_record"),
    ("index-of-another-name-inside", pack(_changed(0, local_name=b"archive/evil.pkl")), "checkpoint_archive"),
    ("payload-in-the-hidden-name", pack(_changed(1, local_name=b"archive/data.pkl")), "checkpoint_archive"),
    ("local-method", pack(_changed(0, local_method=8)), "checkpoint_archive"),
    ("local-flags", pack(_changed(0, local_flags=1)), "checkpoint_archive"),
    ("flipped-encryption-flag", pack(_changed(0, flags=1, local_flags=0)), "checkpoint_encrypted"),
    ("patched-data-flag", pack(_changed(0, flags=0x20)), "checkpoint_archive"),
    ("local-size", pack(_changed(3, local_size=8)), "checkpoint_archive"),
    ("size-beyond-the-file", pack(_changed(3, size=0x7FFFFFFF)), "checkpoint_archive"),
    (
        "zip64-size-beyond-the-file",
        pack(
            _changed(
                3,
                size=0xFFFFFFFF,
                extra=struct.pack("<2H2Q", 1, 16, 2**63, 2**63),
                local_extra=struct.pack("<2H2Q", 1, 16, 2**63, 2**63),
            )
        ),
        "checkpoint_archive",
    ),
    (
        "zip64-sizes-differ",
        pack(_changed(3, size=0xFFFFFFFF, extra=_WIDE, local_extra=struct.pack("<2H2Q", 1, 16, 8, 8))),
        "checkpoint_archive",
    ),
    ("zip64-twice", pack(_changed(3, size=0xFFFFFFFF, extra=_WIDE * 2, local_extra=_WIDE)), "checkpoint_archive"),
    ("overlapping-records", pack(_changed(3, header=0)), "checkpoint_archive"),
    ("gap-between-records", pack(_changed(1, following=_EVIL)), "checkpoint_archive"),
    (
        "descriptor-of-another-size",
        pack(_changed(3, flags=8, local_size=0, following=struct.pack("<4s3I", b"PK\x07\x08", 0, 4, 4))),
        "checkpoint_archive",
    ),
    ("gap-before-the-directory", pack(_changed(3, following=b"hidden")), "checkpoint_archive"),
    ("something-before", b"#!/bin/sh\n" + _ARCHIVE, "checkpoint_format"),
    ("records-before", pack(_GOOD, before=b"PK\x03\x04" + bytes(60)), "checkpoint_archive"),
    ("comment", pack(_GOOD, comment=b"hello"), "checkpoint_archive"),
    ("something-after", pack(_GOOD, after=b"\0" * 10), "checkpoint_archive"),
    ("two-ends", _two_ends(), "checkpoint_archive"),
    ("zip64-end-elsewhere", _wide_end(where=0), "checkpoint_archive"),
    ("zip64-end-of-another-count", _wide_end(count=3), "checkpoint_archive"),
    ("zip64-end-of-another-place", _wide_end(start=2**62), "checkpoint_archive"),
    ("deflated", pack(_deflated()), "checkpoint_records_compressed"),
    ("unknown-method", pack(_changed(0, method=99)), "checkpoint_records_compressed"),
    ("checksum-of-the-index", pack(_changed(0, checksum=1)), "checkpoint_checksum"),
    ("checksum-of-a-tensor", pack(_changed(3, checksum=1)), "checkpoint_checksum"),
    ("big-endian", pack(_changed(1, content=b"big")), "checkpoint_big_endian"),
    ("no-records", pack([]), "checkpoint_format"),
    ("directory-only", b"PK\x05\x06" + bytes(18), "checkpoint_format"),
]


def entries() -> list[Hostile]:
    """The corpus."""
    return [
        Hostile(
            f"zip-{name}",
            "model.pt",
            having(content),
            code,
            "checkpoint",
        )
        for name, content, code in _FILES
    ]

"""Checkpoints that would take for ever, or all memory."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from ingest.state_dict import WRAPPERS
from tests.hostile.entry import Hostile, having
from tests.hostile.pickles import BEGIN, MARK, STOP, call, mapping, named, number, tensor, text, whole
from tests.hostile.zips import Member, pack, torch_members, torch_zip

_LAUGHS = b")q\x00" + b"h\x00\x86q\x00" * 5000  # a tuple of two tuples of two tuples ...
_TOWER = b")" + b"\x85" * 900_000
_ORDERED = named("collections", "OrderedDict")
_FLOOD = 2**61 - 1  # multiples of it all have the hash 0
_LONG = b"]" + MARK + (b"K\x01K\x02\x86") * 200_000 + b"eq\x00"


def _long_list_again_and_again() -> bytes:
    return whole(_LONG + MARK + (_ORDERED + b"h\x00\x85R") * 20_000 + b"t\x86")


def _long_state_again_and_again() -> bytes:
    big = mapping({f"k{n}": b"N" for n in range(100_000)}) + b"q\x00"
    return whole(big + MARK + (_ORDERED + b")Rh\x00b") * 50_000 + b"t\x86")


def _flood() -> bytes:
    return whole(b"}" + MARK + b"".join(number(n * _FLOOD) + b"N" for n in range(1, 60_000)) + b"u")


def _dicts_of_themselves() -> bytes:
    names = [text(name) + b"h\x00" for name in WRAPPERS]
    rest = [text(f"k{n}") + b"N" for n in range(100_000)]
    return whole(b"}q\x00" + MARK + b"".join(names + rest) + b"u")


def _tensors(count: int) -> bytes:
    """Items of a dict: one tensor under many names."""
    return MARK + text("a") + tensor() + b"q\x01" + b"".join(text(f"a{n}") + b"h\x01" for n in range(count)) + b"u"


def _one_dict_a_thousand_times() -> bytes:
    big = (
        b"}q\x00"
        + MARK
        + text("a0")
        + tensor()
        + b"q\x01"
        + b"".join(text(f"a{n}") + b"h\x01" for n in range(1, 50_000))
        + b"u"
    )
    return whole(b"}" + MARK + text("x") + big + b"".join(text(f"x{n}") + b"h\x00" for n in range(900)) + b"u")


_PICKLES: list[tuple[str, Callable[[], bytes], str]] = [
    ("laughs", lambda: whole(_LAUGHS), "checkpoint_no_state_dict"),
    ("laughs-as-a-key", lambda: whole(b"}" + _LAUGHS + b"Ns"), "checkpoint_index"),
    (
        "laughs-as-a-shape",
        lambda: whole(mapping({"a": tensor().replace(MARK + number(4) + b"t", _LAUGHS, 1)})),
        "checkpoint_index",
    ),
    (
        "laughs-in-a-set",
        lambda: whole(call(named("builtins", "set"), b"]" + _LAUGHS + b"a")),
        "checkpoint_no_state_dict",
    ),
    ("laughs-as-a-name", lambda: whole(_LAUGHS + text("system") + b"\x93"), "checkpoint_not_plain"),
    ("tower", lambda: whole(_TOWER), "checkpoint_no_state_dict"),
    ("tower-as-a-key", lambda: whole(b"}" + _TOWER + b"Ns"), "checkpoint_index"),
    ("tower-of-lists", lambda: whole(b"]" * 450_000 + b"a" * 449_999), "checkpoint_no_state_dict"),
    ("tower-of-marks", lambda: whole(MARK * 999_000), "checkpoint_index"),
    ("nested-a-million-deep", lambda: whole(b")" + b"\x85" * 2_000_000), "checkpoint_too_complex"),
    ("ten-million-opcodes", lambda: whole(b"N" * 10_000_000), "checkpoint_too_complex"),
    ("memo-of-millions", lambda: whole(b"N" + b"\x94" * 2_000_000), "checkpoint_too_complex"),
    ("memo-at-four-billion", lambda: whole(b"Nr\xff\xff\xff\xff"), "checkpoint_index"),
    (
        "number-of-a-megabyte",
        lambda: whole(b"\x8b" + struct.pack("<i", 10**6) + b"\x7f" * 10**6),
        "checkpoint_not_plain",
    ),
    ("number-of-a-million-digits", lambda: whole(b"I" + b"9" * 10**6 + b"\n"), "checkpoint_not_plain"),
    ("long-of-a-million-digits", lambda: whole(b"L" + b"9" * 10**6 + b"L\n"), "checkpoint_not_plain"),
    ("bytes-of-exabytes", lambda: whole(b"\x8e" + struct.pack("<Q", 2**62)), "checkpoint_index"),
    ("text-of-exabytes", lambda: whole(b"\x8d" + struct.pack("<Q", 2**62)), "checkpoint_index"),
    ("text-of-negative-length", lambda: whole(b"T" + struct.pack("<i", -5)), "checkpoint_index"),
    ("frame-of-exabytes", lambda: b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.", "checkpoint_index"),
    ("name-without-an-end", lambda: whole(b"c" + b"a" * 10**6), "checkpoint_index"),
    ("long-list-again-and-again", _long_list_again_and_again, "checkpoint_no_state_dict"),
    ("long-state-again-and-again", _long_state_again_and_again, "checkpoint_not_plain"),
    ("keys-of-one-hash", _flood, "checkpoint_index"),
    ("dicts-of-themselves", _dicts_of_themselves, "checkpoint_no_state_dict"),
    ("one-dict-a-thousand-times", _one_dict_a_thousand_times, "checkpoint_no_state_dict"),
    ("index-of-forty-megabytes", lambda: BEGIN + bytes(40 * 2**20) + STOP, "upload_too_large"),
    ("30-000-tensors", lambda: whole(b"}" + _tensors(30_000)), "upload_too_large"),
]


def _many_records() -> bytes:
    return pack([*torch_members(whole(b"N")), *(Member(b"archive/data/x%d" % n, b"") for n in range(60_000))])


def _more_records() -> Iterator[Member]:
    for n in range(65_000):
        yield Member(b"archive/data/%d" % n + b"x" * 250, b"")


_ZIPS: list[tuple[str, Callable[[], bytes], str]] = [
    ("60-000-records", _many_records, "checkpoint_no_state_dict"),
    (
        "directory-of-twenty-megabytes",
        lambda: pack([*torch_members(whole(b"N")), *_more_records()]),
        "upload_too_large",
    ),
]


def entries() -> list[Hostile]:
    """The corpus."""
    pickles = [(name, lambda make=make: torch_zip(make(), {"0": bytes(16)}), code) for name, make, code in _PICKLES]
    return [
        Hostile(f"bomb-{name}", "model.pt", having(make), code, "checkpoint") for name, make, code in [*pickles, *_ZIPS]
    ]

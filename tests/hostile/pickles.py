"""Puts pickles together opcode by opcode, those too that no pickler writes."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

BEGIN = b"\x80\x02"
MARK, STOP = b"(", b"."


def text(value: str) -> bytes:
    """BINUNICODE."""
    encoded = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def number(value: int) -> bytes:
    """BININT, or LONG1."""
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    encoded = value.to_bytes((value.bit_length() // 8) + 1, "little", signed=True)
    return b"\x8a" + bytes([len(encoded)]) + encoded


def named(module: str, name: str) -> bytes:
    """GLOBAL."""
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def stack_named(module: str, name: str) -> bytes:
    """STACK_GLOBAL."""
    return text(module) + text(name) + b"\x93"


def many(*items: bytes) -> bytes:
    """TUPLE."""
    return MARK + b"".join(items) + b"t"


def call(function: bytes, *arguments: bytes) -> bytes:
    """REDUCE."""
    return function + many(*arguments) + b"R"


def mapping(items: Mapping[str, bytes]) -> bytes:
    """A dict."""
    return b"}" + MARK + b"".join(text(key) + value for key, value in items.items()) + b"u"


def whole(value: bytes) -> bytes:
    """A pickle of protocol 2."""
    return BEGIN + value + STOP


def stored(key: str = "0", numel: int = 4, kind: str = "FloatStorage") -> bytes:
    """A storage, by its persistent id."""
    return many(text("storage"), named("torch", kind), text(key), text("cpu"), number(numel)) + b"Q"


def tensor(
    shape: Sequence[int] = (4,), stride: Sequence[int] = (1,), offset: int = 0, storage: bytes | None = None
) -> bytes:
    """A tensor as torch.save writes it."""
    return call(
        named("torch._utils", "_rebuild_tensor_v2"),
        stored() if storage is None else storage,
        number(offset),
        many(*map(number, shape)),
        many(*map(number, stride)),
        b"\x89",
        call(named("collections", "OrderedDict")),
    )


def state_dict(**values: bytes) -> bytes:
    """A pickle of a dict; ``a`` is a tensor of four floats unless it is given."""
    return whole(mapping({"a": tensor(), **values}))

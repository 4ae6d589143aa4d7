"""safetensors files whose header lies."""

from __future__ import annotations

import json
import struct
from typing import Any

from tests.hostile.entry import Hostile, having


def packed(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header; ``length`` is what it says of it."""
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def _file(data: bytes = bytes(16), **entries: Any) -> bytes:
    return packed(json.dumps(entries).encode(), data)


def _entry(begin: int = 0, end: int = 16, shape: Any = (4,), dtype: Any = "F32", **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end], **more}


_HALF = {"begin": 0, "end": 8, "shape": [2]}
_TEXT = json.dumps({"a": _entry()})

_FILES: list[tuple[str, bytes, str]] = [
    ("header-beyond-the-file", packed(b"{}", length=10**9), "checkpoint_truncated"),
    ("header-of-petabytes", packed(b"{}", length=2**55), "checkpoint_truncated"),
    ("header-of-hundred-megabytes", packed(b"{" + b" " * 10**8), "upload_too_large"),
    ("header-no-json", packed(b"{nothing of the kind"), "checkpoint_header"),
    ("header-no-text", packed(b'{"\xff\xfe": 1}'), "checkpoint_header"),
    ("header-cut", packed(_TEXT[:-3].encode()), "checkpoint_header"),
    ("header-and-more", packed((_TEXT + "{}").encode(), bytes(16)), "checkpoint_header"),
    ("nested-deeply", packed(b'{"a":' * 10**5 + b"1" + b"}" * 10**5), "checkpoint_header"),
    ("number-of-a-million-digits", packed(b'{"a": ' + b"9" * 10**6 + b"}"), "checkpoint_header"),
    ("a-name-twice", packed(f"{_TEXT[:-1]}, {_TEXT[1:]}".encode(), bytes(16)), "checkpoint_header"),
    (
        "a-field-twice",
        packed(_TEXT.replace('"dtype": "F32"', '"dtype": "F32", "dtype": "I32"').encode(), bytes(16)),
        "checkpoint_header",
    ),
    ("an-unknown-field", _file(a=_entry(code="x")), "checkpoint_header"),
    ("a-field-missing", _file(a={"dtype": "F32", "shape": [4]}), "checkpoint_header"),
    ("an-entry-that-is-a-list", _file(a=[1, 2]), "checkpoint_header"),
    ("shape-of-floats", _file(a=_entry(shape=[4.0])), "checkpoint_header"),
    ("shape-of-truths", _file(a=_entry(shape=[True])), "checkpoint_header"),
    ("shape-negative", _file(a=_entry(shape=[-4])), "checkpoint_header"),
    ("shape-a-number", _file(a=_entry(shape=4)), "checkpoint_header"),
    ("shape-not-a-number", packed(_TEXT.replace("[4]", "[NaN]").encode(), bytes(16)), "checkpoint_header"),
    ("dtype-a-number", _file(a=_entry(dtype=4)), "checkpoint_header"),
    ("offsets-negative", _file(a=_entry(begin=-16, end=0)), "checkpoint_header"),
    ("offsets-three", _file(a={"dtype": "F32", "shape": [4], "data_offsets": [0, 8, 16]}), "checkpoint_header"),
    ("offsets-backwards", _file(a=_entry(begin=16, end=0)), "checkpoint_offsets"),
    ("offsets-with-a-gap", _file(a=_entry(**_HALF), b=_entry(12, 16, [1])), "checkpoint_offsets"),
    ("offsets-that-overlap", _file(a=_entry(0, 12, [3]), b=_entry(4, 16, [3])), "checkpoint_offsets"),
    ("offsets-of-another", _file(a=_entry(), b=_entry()), "checkpoint_offsets"),
    ("offsets-late", _file(a=_entry(4, 16, [3])), "checkpoint_offsets"),
    ("size-of-another-shape", _file(a=_entry(shape=[5])), "checkpoint_offsets"),
    ("data-missing", _file(bytes(12), a=_entry()), "checkpoint_truncated"),
    ("data-too-long", _file(bytes(20), a=_entry()), "checkpoint_offsets"),
    ("shape-huge", _file(a=_entry(shape=[2**62, 4])), "checkpoint_bounds"),
    ("shape-overflowing", _file(a=_entry(shape=[2**32, 2**32, 2**32])), "checkpoint_bounds"),
    ("shape-empty-but-huge", _file(b"", a=_entry(0, 0, [0, 2**62])), "checkpoint_bounds"),
    ("nine-dimensions", _file(bytes(4), a=_entry(0, 4, [1] * 9)), "checkpoint_bounds"),
    ("float8", _file(a=_entry(dtype="F8_E4M3", shape=[16])), "checkpoint_dtype"),
    ("unknown-dtype", _file(a=_entry(dtype="OBJECT")), "checkpoint_dtype"),
    ("nan", _file(struct.pack("<4f", 1, float("nan"), 3, 4), a=_entry()), "checkpoint_not_finite"),
    ("bfloat-infinite", _file(b"\x80\x7f" + bytes(6), a=_entry(0, 8, [4], "BF16")), "checkpoint_not_finite"),
    ("truth-of-seven", _file(b"\0\1\7\0", a=_entry(0, 4, [4], "BOOL")), "checkpoint_record"),
    ("no-tensors", _file(b""), "checkpoint_no_state_dict"),
    ("only-metadata", _file(b"", __metadata__={"format": "pt"}), "checkpoint_no_state_dict"),
    ("metadata-of-numbers", _file(a=_entry(), __metadata__={"epoch": 5}), "checkpoint_header"),
    ("metadata-a-list", _file(a=_entry(), __metadata__=["pt"]), "checkpoint_header"),
    ("metadata-half-a-surrogate", _file(a=_entry(), __metadata__={"x": "\ud800"}), "checkpoint_header"),
    ("name-with-a-nul", _file(**{"a\0b": _entry()}), "checkpoint_key"),
    ("name-empty", _file(**{"": _entry()}), "checkpoint_key"),
    ("200-000-empty-tensors", _file(b"", **{f"t{n}": _entry(0, 0, [0]) for n in range(200_000)}), "upload_too_large"),
    ("30-000-empty-tensors", _file(b"", **{f"t{n}": _entry(0, 0, [0]) for n in range(30_000)}), "upload_too_large"),
]


def entries() -> list[Hostile]:
    """The corpus."""
    return [
        Hostile(f"safetensors-{name}", "model.safetensors", having(content), code, "checkpoint")
        for name, content, code in _FILES
    ]

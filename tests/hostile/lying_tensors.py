"""Tensors whose sizes lie, that share what they should not, or that no classifier has."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.entry import Hostile, having
from tests.hostile.pickles import (
    BEGIN,
    STOP,
    call,
    many,
    mapping,
    named,
    number,
    state_dict,
    stored,
    tensor,
    text,
    whole,
)
from tests.hostile.zips import torch_zip

_FOUR = {"0": struct.pack("<4f", 1, 2, 3, 4)}
_NAN = {"0": struct.pack("<4f", 1, 2, float("nan"), 4)}
_INF = {"0": struct.pack("<4f", 1, 2, float("-inf"), 4)}
_HOOKS = call(named("collections", "OrderedDict"))


def _v2(*arguments: bytes) -> bytes:
    return whole(mapping({"a": call(named("torch._utils", "_rebuild_tensor_v2"), *arguments)}))


def _only(value: bytes) -> bytes:
    return whole(mapping({"a": value}))


_ONE = many(number(1))

_CRAFTED: list[tuple[str, bytes, dict[str, bytes], str]] = [
    ("nan", state_dict(), _NAN, "checkpoint_not_finite"),
    ("infinite", state_dict(), _INF, "checkpoint_not_finite"),
    ("record-missing", state_dict(), {}, "checkpoint_record"),
    ("record-too-short", state_dict(), {"0": bytes(12)}, "checkpoint_record"),
    ("record-too-long", state_dict(), {"0": bytes(20)}, "checkpoint_record"),
    ("truth-of-seven", _only(tensor(storage=stored(kind="BoolStorage"))), {"0": b"\0\1\7\0"}, "checkpoint_record"),
    ("storage-of-gigabytes", _only(tensor((2**33,), (1,), storage=stored(numel=2**33))), _FOUR, "checkpoint_record"),
    ("storage-above-the-folder", _only(tensor(storage=stored("../data.pkl"))), _FOUR, "checkpoint_record"),
    ("beyond-by-shape", _only(tensor((5,))), _FOUR, "checkpoint_bounds"),
    ("beyond-by-stride", _only(tensor((4,), (2,))), _FOUR, "checkpoint_bounds"),
    ("beyond-by-offset", _only(tensor((4,), (1,), 1)), _FOUR, "checkpoint_bounds"),
    ("negative-offset", _only(tensor((4,), (1,), -1)), _FOUR, "checkpoint_index"),
    ("negative-shape", _only(tensor((-1,))), _FOUR, "checkpoint_index"),
    ("negative-stride", _only(tensor((4,), (-1,))), _FOUR, "checkpoint_index"),
    ("huge-shape", _only(tensor((2**62, 4), (4, 1))), _FOUR, "checkpoint_bounds"),
    ("overflowing-shape", _only(tensor((2**32, 2**32, 2**32), (0, 0, 0))), _FOUR, "checkpoint_bounds"),
    ("empty-but-huge", _only(tensor((0, 2**62), (1, 1))), _FOUR, "checkpoint_bounds"),
    ("shape-of-long-numbers", _only(tensor((2**2000,))), _FOUR, "checkpoint_index"),
    ("nine-dimensions", _only(tensor((1,) * 9, (1,) * 9)), _FOUR, "checkpoint_bounds"),
    ("shape-without-strides", _only(tensor((4,), ())), _FOUR, "checkpoint_index"),
    (
        "shape-of-floats",
        _v2(stored(), number(0), many(b"G" + struct.pack(">d", 4)), _ONE, b"\x89", _HOOKS),
        _FOUR,
        "checkpoint_index",
    ),
    ("shape-of-truths", _v2(stored(), number(0), many(b"\x88"), _ONE, b"\x89", _HOOKS), _FOUR, "checkpoint_index"),
    (
        "negated-view",
        _v2(stored(), number(0), many(number(4)), _ONE, b"\x89", _HOOKS, mapping({"neg": b"\x88"})),
        _FOUR,
        "checkpoint_tensor_kind",
    ),
    (
        "parameter-of-a-number",
        _only(call(named("torch._utils", "_rebuild_parameter"), number(1), b"\x88", _HOOKS)),
        _FOUR,
        "checkpoint_index",
    ),
    ("overlapping-parts", whole(mapping({"a": tensor((3,)), "b": tensor((3,), (1,), 1)})), _FOUR, "checkpoint_overlap"),
    ("one-value-shared", whole(mapping({"a": tensor((2,)), "b": tensor((2,), (1,), 1)})), _FOUR, "checkpoint_overlap"),
    ("part-of-another", whole(mapping({"a": tensor(), "b": tensor((2,), (1,), 1)})), _FOUR, "checkpoint_overlap"),
    ("same-ends-other-cells", whole(mapping({"a": tensor((2,), (3,)), "b": tensor()})), _FOUR, "checkpoint_overlap"),
    ("expanded", _only(tensor((10**9,), (0,))), _FOUR, "checkpoint_overlap"),
    ("windows", _only(tensor((3, 2), (1, 1))), _FOUR, "checkpoint_overlap"),
    (
        "many-ties-of-one-record",
        whole(mapping({f"w{n}": tensor((25_000,), storage=stored(numel=25_000)) for n in range(50)})),
        {"0": bytes(100_000)},
        "upload_too_large",
    ),
    (
        "storage-of-two-types",
        whole(mapping({"a": tensor(), "b": tensor(storage=stored(kind="IntStorage"))})),
        _FOUR,
        "checkpoint_index",
    ),
    ("quantised-storage", _only(tensor(storage=stored(kind="QInt8Storage"))), _FOUR, "checkpoint_quantized"),
    ("complex-storage", _only(tensor(storage=stored(kind="ComplexFloatStorage"))), _FOUR, "checkpoint_dtype"),
    ("storage-that-is-none", _only(tensor(storage=b"N")), _FOUR, "checkpoint_index"),
    ("persistent-number", _only(number(7) + b"Q"), _FOUR, "checkpoint_index"),
    ("no-tensors", whole(b"}"), {}, "checkpoint_no_state_dict"),
    ("only-numbers", whole(mapping({"epoch": number(5)})), {}, "checkpoint_no_state_dict"),
    ("a-list-of-tensors", whole(b"]" + tensor() + b"a"), _FOUR, "checkpoint_no_state_dict"),
    ("numbers-as-names", whole(b"}" + number(1) + tensor() + b"s"), _FOUR, "checkpoint_no_state_dict"),
    ("a-tuple-as-a-name", whole(b"}" + many(number(1)) + tensor() + b"s"), _FOUR, "checkpoint_index"),
    ("name-with-a-nul", whole(mapping({"a\0b": tensor()})), _FOUR, "checkpoint_key"),
    ("name-that-clears-the-screen", whole(mapping({"a\x1b[2J": tensor()})), _FOUR, "checkpoint_key"),
    ("name-half-a-surrogate", whole(mapping({"a\ud800": tensor()})), _FOUR, "checkpoint_key"),
    ("name-of-a-megabyte", whole(mapping({"a" * 10**6: tensor()})), _FOUR, "checkpoint_key"),
    ("name-that-safetensors-keeps", whole(mapping({"__metadata__": tensor()})), _FOUR, "checkpoint_key"),
    (
        "a-name-twice",
        whole(b"}" + text("a") + tensor() + b"s" + text("a") + tensor() + b"s"),
        _FOUR,
        "checkpoint_index",
    ),
    ("something-after-the-index", state_dict() + BEGIN + b"N" + STOP, _FOUR, "checkpoint_index"),
    ("index-without-an-end", state_dict()[:-1], _FOUR, "checkpoint_index"),
    ("index-is-empty", b"", _FOUR, "checkpoint_index"),
    ("protocol-nine", b"\x80\x09" + state_dict()[2:], _FOUR, "checkpoint_index"),
    ("index-is-text", b"(dp0\nVa\nI1\ns.", _FOUR, "checkpoint_index"),
    ("values-left-over", whole(b"N" + mapping({"a": tensor()})), _FOUR, "checkpoint_index"),
]


def _sparse(torch: Any) -> Any:
    return torch.eye(3).to_sparse()


def _sparse_rows(torch: Any) -> Any:
    return torch.eye(3).to_sparse_csr()


def _quantized(torch: Any) -> Any:
    return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)


def _nested(torch: Any) -> Any:
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])


# kinds of tensors that torch itself writes
_TORCH: list[tuple[str, Callable[[Any], Any], str]] = [
    ("sparse", _sparse, "checkpoint_sparse"),
    ("sparse-rows", _sparse_rows, "checkpoint_sparse"),
    ("quantised", _quantized, "checkpoint_quantized"),
    ("complex", lambda torch: torch.ones(3, dtype=torch.complex64), "checkpoint_dtype"),
    ("float8", lambda torch: torch.ones(3).to(torch.float8_e4m3fn), "checkpoint_dtype"),
    ("uint16", lambda torch: torch.ones(3, dtype=torch.uint16), "checkpoint_dtype"),
    ("meta", lambda torch: torch.ones(3, device="meta"), "checkpoint_tensor_kind"),
    ("nested", _nested, "checkpoint_tensor_kind"),
    ("expanded-by-torch", lambda torch: torch.ones(1).expand(10**9), "checkpoint_overlap"),
]


def _save(make: Callable[[Any], Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save({"a": torch.ones(4), "b": make(torch)}, path)

    return write


def entries() -> list[Hostile]:
    """The corpus."""
    return [
        Hostile(f"tensor-{name}", "model.pt", having(torch_zip(pickle, storages)), code, "checkpoint")
        for name, pickle, storages, code in _CRAFTED
    ] + [Hostile(f"tensor-{name}", "model.pt", _save(make), code, "checkpoint") for name, make, code in _TORCH]

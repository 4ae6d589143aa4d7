"""Named tensors on their way to the prepared checkpoint: what is taken of them, and the file they end up in.

A tensor is never in memory as a whole: its bytes come in blocks, are looked at, and are written.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ingest.checkpoint_errors import (
    CheckpointBoundsError,
    CheckpointDtypeError,
    CheckpointKeyError,
    CheckpointNoStateDictError,
    CheckpointRecordError,
    CheckpointTooLargeError,
)
from ingest.errors import CheckpointNotFiniteError, DiskFullError
from ingest.pickle_values import MAX_DIMENSIONS

# BF16 has no numpy type: its bits travel as uint16
NUMPY_DTYPES: Mapping[str, str] = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U8": "|u1", "BOOL": "|u1",
}  # fmt: skip
BLOCK = 2**20  # bytes, a multiple of every item's size
MAX_TENSORS = 20_000
_MAX_BYTES = 32 * 2**30
_MAX_VALUES = 2**40
_MAX_NAME = 1000


@dataclass(frozen=True)
class NamedTensor:
    """One tensor; ``blocks`` yields its values in row-major, little-endian order, BLOCK bytes or fewer at a time."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    blocks: Callable[[], Iterator[bytes]]

    @property
    def size(self) -> int:
        """Bytes."""
        return tensor_size(self.dtype, self.shape)


def tensor_size(dtype: str, shape: Sequence[int]) -> int:
    """Bytes of a tensor."""
    return math.prod(shape) * np.dtype(NUMPY_DTYPES[dtype]).itemsize


def check_text(text: str, what: str) -> None:
    """Refuse a name that could be stored or shown nowhere.

    Raises: CheckpointKeyError.
    """
    shown = ascii(text[:100])
    if not text or len(text) > _MAX_NAME:
        raise CheckpointKeyError(f"{what} {shown} has {len(text)} characters")
    if not text.isprintable():  # control characters, and surrogates, which are no valid UTF-8
        raise CheckpointKeyError(f"{what} {shown} has characters that cannot be shown")


def check_count(count: int) -> None:
    """Refuse no tensors at all, and too many."""
    if count == 0:
        raise CheckpointNoStateDictError("the checkpoint holds no tensors")
    if count > MAX_TENSORS:
        raise CheckpointTooLargeError(f"the checkpoint holds {count} tensors; at most {MAX_TENSORS} are taken")


def check_tensor(key: str, dtype: str, shape: Sequence[int]) -> None:
    """Refuse a tensor by its name, type or dimensions.

    Raises: CheckpointKeyError, CheckpointDtypeError, CheckpointBoundsError.
    """
    check_text(key, "the tensor's name")
    if key == "__metadata__":  # safetensors keeps it for itself
        raise CheckpointKeyError("a tensor is named __metadata__")
    if dtype not in NUMPY_DTYPES:
        raise CheckpointDtypeError(f"tensor {key!r} has dtype {dtype[:30]!r}; taken are {', '.join(NUMPY_DTYPES)}")
    if len(shape) > MAX_DIMENSIONS:
        raise CheckpointBoundsError(f"tensor {key!r} has {len(shape)} dimensions; at most {MAX_DIMENSIONS} are taken")
    if math.prod(max(length, 1) for length in shape) > _MAX_VALUES:  # of empty tensors too: their shapes overflow later
        raise CheckpointBoundsError(f"tensor {key!r} has the shape {list(shape)}")


def write_tensors(target: Path, tensors: Sequence[NamedTensor]) -> list[dict[str, Any]]:
    """Write them as ``checkpoint.safetensors`` in ``target``; returns key, dtype and shape of each.

    Raises: CheckpointTooLargeError, DiskFullError before anything is written; CheckpointNotFiniteError, naming it.
    """
    total = sum(tensor.size for tensor in tensors)
    if total > _MAX_BYTES:
        raise CheckpointTooLargeError(f"the tensors have {total} bytes; at most {_MAX_BYTES} are taken")
    if total > shutil.disk_usage(target).free:
        raise DiskFullError(f"the checkpoint's {total} bytes do not fit on the worker's disk", "free some space there")
    entries, header, offset = [], {}, 0
    for tensor in tensors:
        entry = {"dtype": tensor.dtype, "shape": list(tensor.shape)}
        entries.append({"key": tensor.key, **entry})
        header[tensor.key] = {**entry, "data_offsets": [offset, offset + tensor.size]}
        offset += tensor.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    # written here, block by block: the library's writer wants all of them in memory
    with (target / "checkpoint.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            for block in tensor.blocks():
                _check_values(tensor.key, tensor.dtype, block)
                file.write(block)
    return entries


def _check_values(key: str, dtype: str, block: bytes) -> None:
    values = np.frombuffer(block, NUMPY_DTYPES[dtype])
    if dtype == "BOOL":
        if (values > 1).any():
            raise CheckpointRecordError(f"tensor {key!r} holds truth values that are neither 0 nor 1")
        return
    if dtype == "BF16":
        finite = ((values & 0x7F80) != 0x7F80).all()  # an exponent of all ones is NaN or infinity
    elif dtype in ("F64", "F32", "F16"):
        finite = np.isfinite(values).all()
    else:
        return
    if not finite:
        raise CheckpointNotFiniteError(f"tensor {key!r} holds NaN or infinite values", "train or export it again")

"""Reads zip-format .pt files without torch: the index by walking its opcodes, the tensors as plain bytes."""

from __future__ import annotations

import math
import mmap
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ingest.checkpoint_errors import (
    CheckpointArchiveError,
    CheckpointBigEndianError,
    CheckpointBoundsError,
    CheckpointIndexError,
    CheckpointOverlapError,
    CheckpointRecordError,
    CheckpointTooLargeError,
)
from ingest.foreign import refuse_foreign_zip
from ingest.pickle_values import StorageRef, TensorRef
from ingest.pickle_walk import walk
from ingest.stored_zip import Record, blocks, locate, read_directory
from ingest.tensors import BLOCK, NUMPY_DTYPES, NamedTensor, check_tensor, tensor_size

_MAX_INDEX = 32 * 2**20
# beside data.pkl and data/KEY; what each torch since 1.4 has added
_SMALL = {"version", "byteorder", ".format_version", ".storage_alignment", ".data/serialization_id"}
_MAX_SMALL = 100
_STORAGE = re.compile(r"data/[0-9A-Za-z_]{1,40}")
_MAX_SHARING = 2  # the tensors' bytes over the file's


class TorchZip:
    """An archive whose parts agree, and the value that its index describes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        records, end = read_directory(path)
        refuse_foreign_zip(records)
        self._records = _by_name(locate(path, records, end))
        if self._records["data.pkl"].size > _MAX_INDEX:
            raise CheckpointTooLargeError("the checkpoint's index is too large")
        if "byteorder" in self._records and self._read("byteorder") != b"little":
            raise CheckpointBigEndianError("the checkpoint is big-endian")
        self.root = walk(self._read("data.pkl"))

    def tensors(self, state: Mapping[str, TensorRef]) -> list[NamedTensor]:
        """The tensors of a state dict, after checking that each lies inside its record and how they share it.

        Raises: the errors of check_tensor; CheckpointRecordError, CheckpointBoundsError, CheckpointOverlapError.
        """
        for key, tensor in state.items():
            check_tensor(key, tensor.storage.dtype, tensor.shape)
            self._check_storage(key, tensor.storage)
            _check_view(key, tensor)
        _check_sharing(state)
        total = sum(tensor_size(tensor.storage.dtype, tensor.shape) for tensor in state.values())
        if total > _MAX_SHARING * self._path.stat().st_size:
            raise CheckpointTooLargeError("the tensors are more than twice the file: many share one storage")
        return [
            NamedTensor(key, tensor.storage.dtype, tensor.shape, partial(self._blocks, tensor))
            for key, tensor in state.items()
        ]

    def _read(self, name: str) -> bytes:
        return b"".join(blocks(self._path, self._records[name], BLOCK))

    def _check_storage(self, key: str, storage: StorageRef) -> None:
        record = self._records.get(f"data/{storage.key}")
        if record is None or record.size != tensor_size(storage.dtype, (storage.numel,)):
            raise CheckpointRecordError(f"tensor {key!r}: its record is missing or has the wrong size")

    def _blocks(self, tensor: TensorRef) -> Iterator[bytes]:
        record = self._records[f"data/{tensor.storage.key}"]
        if tensor.stride == _row_major(tensor.shape) and math.prod(tensor.shape) == tensor.storage.numel:
            yield from blocks(self._path, record, BLOCK)
            return
        for _ in blocks(self._path, record, BLOCK):
            pass  # compares the checksum
        yield from _gather(self._path, record, tensor)


def _by_name(records: list[Record]) -> dict[str, Record]:
    """Records by their names under the one folder that all lie in, whose name is free."""
    found: dict[str, Record] = {}
    roots = set()
    for record in records:
        root, _, name = record.name.partition(b"/")
        roots.add(root)
        known = name.decode("ascii", "replace")
        if record.name.endswith(b"/") and record.size == 0:
            continue  # a folder, from a file that was unpacked and packed again
        small = known in _SMALL and record.size <= _MAX_SMALL
        if known != "data.pkl" and not small and not _STORAGE.fullmatch(known):
            shown = ascii(record.name[:100].decode("utf-8", "replace"))
            raise CheckpointRecordError(f"the archive holds {shown}, which torch.save does not write")
        found[known] = record
    if len(roots) != 1 or "data.pkl" not in found:
        raise CheckpointArchiveError("the archive's records do not lie in one folder")
    return found


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _last(tensor: TensorRef) -> int:
    """Position in the storage of the view's last value."""
    return tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride, strict=True))


_Cells = tuple[tuple[int, int], ...] | None


def _cells(tensor: TensorRef) -> _Cells:
    """Which values between its first and last a view takes: None for all, or its strides and lengths."""
    if math.prod(tensor.shape) == _last(tensor) - tensor.offset + 1:
        return None
    return tuple(sorted((s, n) for n, s in zip(tensor.shape, tensor.stride, strict=True) if n > 1))


def _check_view(key: str, tensor: TensorRef) -> None:
    """The view lies inside its storage, and none of its values is another one too."""
    if math.prod(tensor.shape) == 0:
        return
    reach = 0
    for stride, length in sorted((s, n) for n, s in zip(tensor.shape, tensor.stride, strict=True) if n > 1):
        if stride <= reach:
            raise CheckpointOverlapError(f"tensor {key!r} is an expanded view: its values share memory")
        reach += stride * (length - 1)
    if _last(tensor) >= tensor.storage.numel:
        raise CheckpointBoundsError(f"tensor {key!r} reaches beyond its record")


def _check_sharing(state: Mapping[str, TensorRef]) -> None:
    """Tensors of one storage are tied (the same values, in any layout) or apart (one ends before the other begins)."""
    storages: dict[str, tuple[StorageRef, dict[tuple[int, int], tuple[str, _Cells]]]] = {}
    for key, tensor in state.items():
        storage, spans = storages.setdefault(tensor.storage.key, (tensor.storage, {}))
        if storage != tensor.storage:
            raise CheckpointIndexError(f"tensor {key!r}: its storage has two types or sizes")
        if math.prod(tensor.shape) == 0:
            continue
        other, cells = spans.setdefault((tensor.offset, _last(tensor)), (key, _cells(tensor)))
        if cells != _cells(tensor):
            raise CheckpointOverlapError(f"tensors {other!r} and {key!r} share a part of their values")
    for _, spans in storages.values():
        reach, before = -1, ""
        for (first, last), (key, _) in sorted(spans.items()):
            if first <= reach:
                raise CheckpointOverlapError(f"tensors {before!r} and {key!r} share a part of their values")
            reach, before = last, key


def _gather(path: Path, record: Record, tensor: TensorRef) -> Iterator[bytes]:
    """The values of a strided view in row-major order; the file is mapped only while they are collected."""
    count = math.prod(tensor.shape)
    if count == 0:
        return
    dtype = np.dtype(NUMPY_DTYPES[tensor.storage.dtype])
    start = record.data + tensor.offset * dtype.itemsize
    page = start - start % mmap.ALLOCATIONGRANULARITY
    length = start - page + (_last(tensor) - tensor.offset + 1) * dtype.itemsize
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ, offset=page)
    values = np.frombuffer(mapped, dtype, offset=start - page)
    view: Any = np.lib.stride_tricks.as_strided(
        values, tensor.shape, tuple(stride * dtype.itemsize for stride in tensor.stride), writeable=False
    )
    flat = view.flat
    step = BLOCK // dtype.itemsize
    for begin in range(0, count, step):
        yield flat[begin : begin + step].tobytes()

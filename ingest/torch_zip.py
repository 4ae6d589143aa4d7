"""Reads zip-format .pt files without torch: the index by walking its opcodes, the tensors as plain bytes."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.archives import reading
from ingest.errors import CheckpointFormatError, CheckpointNotPlainError, UploadTooLargeError
from ingest.pickle_walk import SAVE_HINT, TensorRef, walk

# BF16 has no numpy type: its bits travel as uint16
NUMPY_DTYPES: Mapping[str, str] = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
_MAX_INDEX_BYTES = 64 * 2**20
_MAX_RECORDS = 100_000


class TorchZip:
    """An open archive and the value its index describes."""

    def __init__(self, path: Path) -> None:
        with reading("the checkpoint", CheckpointFormatError, SAVE_HINT):
            self._zip = zipfile.ZipFile(path)
            self._records = self._check_records(path.stat().st_size)
            index = self._zip.read(self._records["data.pkl"])
        self.root = walk(index)

    def _check_records(self, file_size: int) -> dict[str, zipfile.ZipInfo]:
        infos = self._zip.infolist()
        if len(infos) > _MAX_RECORDS:
            raise UploadTooLargeError(f"the checkpoint has {len(infos)} records; at most {_MAX_RECORDS} are taken")
        # records lie under one folder, whose name is free
        records = {info.filename.partition("/")[2]: info for info in infos}
        if "constants.pkl" in records or any(name.startswith("code/") for name in records):
            raise CheckpointNotPlainError("a TorchScript archive, which is code", SAVE_HINT)
        if "data.pkl" not in records:
            raise CheckpointFormatError("a zip file, but not one that torch.save wrote (no data.pkl)", SAVE_HINT)
        if len(records) != len(infos):
            raise CheckpointFormatError("two records of the checkpoint have the same name")
        if any(info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 for info in infos):
            raise CheckpointFormatError("records of the checkpoint are compressed or encrypted", SAVE_HINT)
        if sum(info.file_size for info in infos) > file_size:
            raise CheckpointFormatError("records of the checkpoint overlap")
        if records["data.pkl"].file_size > _MAX_INDEX_BYTES:
            raise UploadTooLargeError("the checkpoint's index is too large")
        if "byteorder" in records and self._zip.read(records["byteorder"]) != b"little":
            raise CheckpointFormatError("the checkpoint is big-endian", SAVE_HINT)
        return records

    def read(self, key: str, tensor: TensorRef) -> npt.NDArray[Any]:
        """The tensor's values, contiguous, after checking that it lies inside its record."""
        storage = tensor.storage
        dtype = np.dtype(NUMPY_DTYPES[storage.dtype])
        record = self._records.get(f"data/{storage.key}")
        if record is None or record.file_size != storage.numel * dtype.itemsize:
            raise CheckpointFormatError(f"tensor {key!r}: its record is missing or has the wrong size")
        if math.prod(tensor.shape) == 0:
            return np.empty(tensor.shape, dtype)
        last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride, strict=True))
        if last >= storage.numel:
            raise CheckpointFormatError(f"tensor {key!r} reaches beyond its record")
        if math.prod(tensor.shape) > storage.numel:
            raise CheckpointFormatError(f"tensor {key!r} is larger than its record (an expanded view)", SAVE_HINT)
        with reading(f"tensor {key!r}", CheckpointFormatError, SAVE_HINT):
            values = np.frombuffer(self._zip.read(record), dtype)
        strides = tuple(stride * dtype.itemsize for stride in tensor.stride)
        view = np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, strides, writeable=False)
        return np.ascontiguousarray(view)

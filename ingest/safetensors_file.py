"""Reads safetensors files: the header is checked here, whole, before any tensor is looked at.

The format: eight bytes of length, a JSON header of that length, the tensors' bytes without a gap.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ingest.checkpoint_errors import (
    CheckpointHeaderError,
    CheckpointOffsetsError,
    CheckpointTooLargeError,
    CheckpointTruncatedError,
)
from ingest.tensors import BLOCK, NamedTensor, check_count, check_tensor, tensor_size

# JSON in memory is up to forty times its text; 20,000 tensors of 400 characters each fit
_MAX_HEADER = 8 * 2**20
_FIELDS = {"dtype", "shape", "data_offsets"}


def read_safetensors(path: Path) -> tuple[list[NamedTensor], dict[str, str]]:
    """The tensors, in the header's order, and the metadata.

    Raises: CheckpointHeaderError, CheckpointOffsetsError, CheckpointTruncatedError, CheckpointTooLargeError, and the
    errors of check_tensor.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            raise CheckpointTruncatedError("a safetensors file that ends before its header does")
        if length > _MAX_HEADER:
            raise CheckpointTooLargeError(f"the header has {length} bytes; at most {_MAX_HEADER} are taken")
        header = _parse(file.read(length))
    metadata = header.pop("__metadata__", {})
    _check_metadata(metadata)
    check_count(len(header))
    start, tensors, spans = 8 + length, [], []
    for key, entry in header.items():
        dtype, shape, begin, end = _entry(key, entry)
        spans.append((begin, end))
        tensors.append(NamedTensor(key, dtype, shape, partial(_blocks, path, start + begin, end - begin)))
    _check_spans(spans, size - start)
    return tensors, metadata


def _parse(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise CheckpointHeaderError(f"the header is no valid JSON: {str(error)[:200]}") from error
    if not isinstance(header, dict):
        raise CheckpointHeaderError("the header is no JSON object")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name occurs twice")
    return made


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointHeaderError("__metadata__ is no object of texts")
    for text in (*metadata, *metadata.values()):
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise CheckpointHeaderError("__metadata__ holds characters that are no text")


def _entry(key: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """dtype, shape, begin and end of one tensor."""
    if not isinstance(entry, dict) or entry.keys() != _FIELDS:
        raise CheckpointHeaderError(f"the entry {key[:100]!r} has not exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise CheckpointHeaderError(f"the entry {key[:100]!r} has a malformed dtype, shape or data_offsets")
    check_tensor(key, dtype, shape)
    begin, end = offsets
    if end - begin != tensor_size(dtype, shape):
        raise CheckpointOffsetsError(f"tensor {key!r} has {end - begin} bytes for the shape {shape} of {dtype}")
    return dtype, tuple(shape), begin, end


def _naturals(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _check_spans(spans: list[tuple[int, int]], size: int) -> None:
    """Every byte after the header belongs to one tensor."""
    expected = 0
    for begin, end in sorted(spans):
        if begin != expected:
            raise CheckpointOffsetsError(f"the tensors {'overlap' if begin < expected else 'leave a gap'} at {begin}")
        expected = end
    if expected > size:
        raise CheckpointTruncatedError(f"the tensors have {expected} bytes, the file {size}")
    if expected < size:
        raise CheckpointOffsetsError(f"{size - expected} bytes follow the last tensor")


def _blocks(path: Path, start: int, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        for done in range(0, size, BLOCK):
            yield file.read(min(BLOCK, size - done))

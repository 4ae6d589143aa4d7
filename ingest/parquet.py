"""Parquet as Hugging Face lays it out: a column image {bytes, path} or bytes, a column label; one file, or shards."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ingest.archives import Budget, reading
from ingest.arrays import MAX_IMAGES
from ingest.collect import Collector, Tell, silent
from ingest.decoding import Record
from ingest.errors import DataFormatError, LabelsInvalidError, UploadTooLargeError
from ingest.images import MAX_IMAGE_BYTES
from ingest.members import budget_for, members
from ingest.parquet_pages import largest_page
from ingest.splits import split_of_shard

# pyarrow's own allocator takes a gigabyte of address space at once, which a limit on memory counts
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
LAYOUT = "a column image (bytes, or a struct with the field bytes) and a column label (integers, or names as text)"
_IMAGES = ("image", "img", "images", "picture")
_LABELS = ("label", "labels", "fine_label", "class", "target", "cls")
_SPOOL = ".shard"
_BATCH_BYTES = 8 << 20
_BATCH = 1024


def is_parquet(path: Path) -> bool:
    """Whether the file begins as Parquet does, plain or with an encrypted footer."""
    with path.open("rb") as file:
        return file.read(4) in (b"PAR1", b"PARE")


def prepare_parquet(
    source: Mapping[str, Any], path: Path, target: Path, options: Mapping[str, Any], tell: Tell = silent
) -> None:
    """Write prepared arrays from the rows; arguments as for image folders.

    Raises: IngestError naming file and column.
    """
    name = source["filename"]
    collector = Collector(source, target, options, kind="parquet", layout=LAYOUT, tell=tell)
    names = _ClassNames()
    with reading(name, DataFormatError, LAYOUT):
        try:
            collector.collect(lambda: _records(path, target, name, names), class_names=lambda: names.names)
        finally:
            (target / _SPOOL).unlink(missing_ok=True)


class _ClassNames:
    """What the shards' schemas call the classes."""

    def __init__(self) -> None:
        self.names: list[str] | None = None
        self._file = ""

    def add(self, names: list[str] | None, file: str) -> None:
        """Raises: LabelsInvalidError where two files disagree."""
        if self._file and names != self.names:
            raise LabelsInvalidError(f"{file} and {self._file} name different classes", "write them from one dataset")
        self.names, self._file = names, file


def _records(path: Path, target: Path, name: str, names: _ClassNames) -> Iterator[Record]:
    budget = budget_for(path, name)
    if path.is_file() and is_parquet(path):
        yield from _rows(path, name, "all", names, budget)
        return
    for member in members(path, budget):
        if not member.name.lower().endswith(".parquet"):
            continue
        spool = target / _SPOOL
        member.copy(spool)
        yield from _rows(spool, member.name, split_of_shard(member.name), names, budget)


class _Columns(NamedTuple):
    image: str
    nested: bool
    label: str


def _rows(path: Path, name: str, split: str, names: _ClassNames, budget: Budget) -> Iterator[Record]:
    import pyarrow  # slow to load, and seldom needed
    from pyarrow import parquet

    try:
        # a page at a time: neither whole columns nor whole row groups are read ahead
        file = parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
        with file:
            if file.metadata.num_rows > MAX_IMAGES:
                raise UploadTooLargeError(f"{name} has {file.metadata.num_rows} rows; at most {MAX_IMAGES} are taken")
            columns = _columns(file.schema_arrow, name)
            names.add(_class_names(file.schema_arrow, columns.label), name)
            leaf = f"{columns.image}.bytes" if columns.nested else columns.image
            page = largest_page(path, {leaf, columns.label}, name)
            # a row may be as large as the dictionary that it points into
            size = max(1, min(_BATCH, _BATCH_BYTES // max(1, page)))
            row = 0
            for batch in file.iter_batches(size, columns=[leaf, columns.label], use_threads=False):
                images, labels = batch.column(0), batch.column(1)
                images = images.field("bytes") if columns.nested else images
                budget.spend(images.get_total_buffer_size())
                for image, label in zip(images, labels, strict=True):
                    where = f"row {row} of {name}"
                    yield Record(split, _label(label.as_py(), where), where, _bytes(image, where))
                    row += 1
    except (pyarrow.ArrowException, KeyError, IndexError) as error:
        if isinstance(error, MemoryError):
            detail = f"{name} asks for more memory than there is"
            raise UploadTooLargeError(detail, "write it with smaller pages") from error
        if "encrypt" in str(error).lower():
            raise DataFormatError(f"{name} is encrypted", "write it without encryption") from error
        raise DataFormatError(f"{name} cannot be read: {str(error)[:200]}", LAYOUT) from error


def _columns(schema: Any, name: str) -> _Columns:
    """Where images and labels are."""
    from pyarrow import types

    def is_bytes(kind: Any) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    def holds_bytes(kind: Any) -> bool:
        return bool(types.is_struct(kind)) and any(field.name == "bytes" and is_bytes(field.type) for field in kind)

    images = {
        field.name: holds_bytes(field.type) for field in schema if is_bytes(field.type) or holds_bytes(field.type)
    }

    def is_label(kind: Any) -> bool:
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return bool(types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind))

    labels = [field.name for field in schema if is_label(field.type)]
    image = next((column for column in _IMAGES if column in images), None) or (
        next(iter(images)) if len(images) == 1 else None
    )
    label = next((column for column in _LABELS if column in schema.names), None) or (
        labels[0] if len(labels) == 1 else None
    )
    if image is None or label is None:
        missing = "images" if image is None else "labels"
        kinds = ", ".join(f"{field.name}: {str(field.type)[:60]}" for field in list(schema)[:20])
        raise DataFormatError(f"{name} has no column of {missing} ({kinds})", LAYOUT)
    kind = schema.field(label).type
    if label not in labels:
        raise LabelsInvalidError(f"the column {label} of {name} is {str(kind)[:60]}", LAYOUT)
    return _Columns(image, images[image], label)


def _class_names(schema: Any, label: str) -> list[str] | None:
    """Names of a ClassLabel, from the metadata that the library datasets writes."""
    try:
        info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = info["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if isinstance(names, list) and len(set(map(str, names))) == len(names) and all(isinstance(n, str) for n in names):
        return names
    return None


def _label(value: object, where: str) -> int | str:
    if value is None or value == -1:
        raise LabelsInvalidError(f"{where} has no label", "leave such rows out")
    if not isinstance(value, int | str):
        raise LabelsInvalidError(f"the label of {where} is {value!r}", LAYOUT)
    return value


def _bytes(value: Any, where: str) -> bytes:
    buffer = value.as_buffer()
    if buffer is None or buffer.size == 0:
        raise DataFormatError(
            f"{where} has no image bytes", "the file must hold the images, not their paths: dataset.to_parquet()"
        )
    if buffer.size > MAX_IMAGE_BYTES:
        raise UploadTooLargeError(f"{where} has {buffer.size} bytes; an image may have {MAX_IMAGE_BYTES}")
    return bytes(buffer)

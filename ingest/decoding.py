"""One pass over encoded images: decoded on all cores, written where they belong."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ingest import errors
from ingest.arrays import DIGEST, MAX_CLASSES, MAX_IMAGES, Pixels, Split, check_room
from ingest.decoder import Decoder, Encoded, pack
from ingest.errors import DataFormatError, IngestError, LabelsInvalidError, UploadTooLargeError
from ingest.images import ColourFoundError, is_grey
from ingest.splits import SPLITS

_CHUNK, _CHUNK_BYTES = 128, 1 << 20
_DISK_STEP = 64 << 20
_REFUSALS = {
    kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, IngestError)
}


class Record(NamedTuple):
    """An encoded image. ``split`` is one of SPLITS; ``label`` a class's name or number."""

    split: str
    label: str | int
    name: str
    content: bytes


class Pass:
    """One pass over all records. ``work`` runs where the cores are; all else here."""

    def __init__(self, filename: str, target: Path, options: Mapping[str, Any], layout: str, *, grey: bool) -> None:
        self._digests: dict[str, bytearray] = {}
        self._by_name = False
        self._count = 0
        self._filename, self._target, self._layout = filename, target, layout
        self._pixels = {split: Pixels(target, split) for split in SPLITS}
        self.work = Decoder(list(self._pixels.values()), options, grey=grey)
        self._labels: dict[str, array[int]] = {}
        self._numbers: dict[str, int] = {}
        self._room = 0

    def jobs(self, records: Iterator[Record]) -> Iterator[bytes]:
        """Records as jobs of some hundred images or a megabyte."""
        chunk: list[Encoded] = []
        size = 0
        for record in records:
            if self._count == 0:
                self.work.grey = self.work.grey and is_grey(record.content, record.name)
            labels = self._labels_of(record)
            chunk.append((SPLITS.index(record.split), len(labels), record.name, record.content))
            labels.append(self._number(record))
            self._count += 1
            size += len(record.content)
            if len(chunk) >= _CHUNK or size >= _CHUNK_BYTES:
                self._check_room(len(chunk))
                yield pack(chunk)
                chunk, size = [], 0
        if chunk:
            yield pack(chunk)

    def _labels_of(self, record: Record) -> array[int]:
        labels = self._labels.get(record.split)
        if labels is None:
            labels = self._labels[record.split] = array("i")
            self._digests[record.split] = bytearray()
            if "all" in self._labels and len(self._labels) > 1:
                raise DataFormatError(
                    f"{self._filename} mixes images with and without a split; one of them is {record.name}",
                    self._layout,
                )
        if self._count >= MAX_IMAGES:
            raise UploadTooLargeError(f"{self._filename} has more than {MAX_IMAGES} images")
        return labels

    def _number(self, record: Record) -> int:
        """The label as a number; names are numbered as they come."""
        label = record.label
        if self._count and self._by_name != isinstance(label, str):
            raise LabelsInvalidError(
                f"the label of {record.name} is {label!r}, others are of another kind",
                "all labels are numbers, or all are names",
            )
        if isinstance(label, str):
            self._by_name = True
            if len(self._numbers) >= MAX_CLASSES:
                raise UploadTooLargeError(f"{self._filename} has more than {MAX_CLASSES} classes or folders")
            return self._numbers.setdefault(label, len(self._numbers))
        if not 0 <= label < MAX_CLASSES:
            raise LabelsInvalidError(f"the label of {record.name} is {label}", "labels are 0 to classes - 1")
        return label

    def _check_room(self, count: int) -> None:
        if self.image is not None:
            self._room -= count * math.prod(self.image)
            if self._room < 0:
                check_room(self._target, self._filename, _DISK_STEP)
                self._room = _DISK_STEP

    @property
    def image(self) -> tuple[int, int, int] | None:
        """The shape (c, h, w) of all images, once one is decoded."""
        return self.work.image

    @property
    def done(self) -> int:
        """Images that are written."""
        return sum(map(len, self._digests.values())) // DIGEST

    def take(self, answer: bytes) -> None:
        """Note a job's result, in the order of the jobs.

        Raises: what the job raised.
        """
        if answer[:1] == b"c":
            raise ColourFoundError
        if answer[:1] == b"!":
            kind, detail, hint = json.loads(answer[1:])
            raise _REFUSALS[kind](detail, hint)
        for at in range(1, len(answer), 1 + DIGEST):
            self._digests[SPLITS[answer[at]]] += answer[at + 1 : at + 1 + DIGEST]

    def splits(self, rename: Callable[[list[str]], list[str]] | None) -> tuple[dict[str, Split], list[str] | None]:
        """The splits that have images, and the classes' names in the order of their numbers, if they have any.

        The splits' pixels are the caller's then.
        """
        names, table = None, None
        if self._by_name:
            given = list(self._numbers)
            if rename is not None and "all" in self._labels:
                given = rename(given)
            names = sorted(set(given))
            places = {name: number for number, name in enumerate(names)}
            table = np.array([places[name] for name in given], np.int64)
        found = {}
        for split, values in self._labels.items():
            labels = np.frombuffer(values, np.int32).astype(np.int64) if table is None else table[values]
            found[split] = Split(self._pixels.pop(split), labels, self._digests[split])
        self.close()
        return found, names

    def close(self) -> None:
        """Drop the pixels that nobody took."""
        while self._pixels:
            self._pixels.popitem()[1].drop()

    def __enter__(self) -> Pass:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

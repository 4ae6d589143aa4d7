"""The prepared form on disk: ``x_SPLIT.npy``, ``y_SPLIT.npy``, and ``data.json``, which says what they hold."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.errors import LabelsInvalidError, UploadTooLargeError

Array = npt.NDArray[Any]
Labels = npt.NDArray[np.int64]
HEADER = 128
DIGEST = 16
BLOCK = 1 << 20
MAX_CLASSES = 100_000
MAX_IMAGES = 20_000_000
_RESERVE = 64 << 20  # of the disk, left alone


class Pixels:
    """``x_SPLIT.npy`` (n, c, h, w) while it grows; n is not known before the end.

    Written, not mapped: memory stays flat, and a full disk is an error and no crash.
    """

    def __init__(self, target: Path, split: str, dtype: npt.DTypeLike = np.uint8) -> None:
        self.path, self.dtype = target / f"x_{split}.npy", np.dtype(dtype)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_descriptor": -1}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In another process: the same file."""
        vars(self).update(state)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)

    def write(self, row: int, content: bytes | memoryview, row_bytes: int) -> None:
        """Rows from ``row`` on."""
        view, offset = memoryview(content), HEADER + row * row_bytes
        while view:
            written = os.pwrite(self._descriptor, view, offset)
            view, offset = view[written:], offset + written

    def read(self, row: int, count: int, row_bytes: int) -> bytes:
        """``count`` rows from ``row`` on."""
        content = bytearray()
        while len(content) < count * row_bytes:  # one read gives 2 GiB at most
            offset = HEADER + row * row_bytes + len(content)
            content += os.pread(self._descriptor, count * row_bytes - len(content), offset)
        return bytes(content)

    def finish(self, count: int, image: tuple[int, int, int]) -> None:
        """Write the header and close."""
        text = repr({"descr": self.dtype.str, "fortran_order": False, "shape": (count, *image)})
        header = text.ljust(HEADER - 11).encode() + b"\n"
        os.pwrite(self._descriptor, b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header, 0)
        os.ftruncate(self._descriptor, HEADER + count * math.prod(image) * self.dtype.itemsize)
        self._close()

    def rename(self, split: str) -> None:
        """Become another split's pixels."""
        self.path = self.path.replace(self.path.with_name(f"x_{split}.npy"))

    def drop(self) -> None:
        """Close, and remove the file; nothing once it is finished or dropped."""
        if self._close():
            self.path.unlink()

    def _close(self) -> bool:
        """Whether it was open."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        return descriptor >= 0


def digests_of(rows: bytes | memoryview, row_bytes: int) -> bytes:
    """Names images by their pixels, for good: halves of SHA-256s, so that equal digests are equal images."""
    view, sha256 = memoryview(rows), hashlib.sha256
    return b"".join([sha256(view[at : at + row_bytes]).digest()[:DIGEST] for at in range(0, len(view), row_bytes)])


def check_room(target: Path, name: str, count: int) -> None:
    """Refuse what the disk cannot hold before it is full for everybody else."""
    free = shutil.disk_usage(target).free
    if count + _RESERVE > free:
        raise UploadTooLargeError(
            f"the images of {name} do not fit on the server's disk, which has {free / 1e9:.1f} GB left",
            "send fewer images, or bring them to a smaller size (data.resize, data.crop)",
        )


@dataclass
class Split:
    """The images of a split, written; their labels and digests."""

    pixels: Pixels
    labels: Labels
    digests: bytes | bytearray


@contextmanager
def dropping(splits: Mapping[str, Split]) -> Iterator[None]:
    """Drop the pixels of all splits if the body fails."""
    try:
        yield
    except BaseException:
        for split in splits.values():
            split.pixels.drop()
        raise


def finish(
    target: Path,
    source: Mapping[str, Any],
    splits: Mapping[str, Split],
    *,
    kind: str,
    image: tuple[int, int, int],
    class_names: list[str] | None,
    facts: Mapping[str, Any],
) -> None:
    """Check the splits together and write labels, headers and ``data.json``.

    Args:
        facts: what else the manifest says.
    Raises: LabelsInvalidError where there is nothing to tell apart, or a class is missing.
    """
    name = source["filename"]
    num_classes = len(class_names or ()) or 1 + max(int(split.labels.max(initial=0)) for split in splits.values())
    per_class = {key: np.bincount(split.labels, minlength=num_classes) for key, split in splits.items()}
    if class_names:
        _check_classes(per_class, name, class_names)
    for key, split in splits.items():
        if len(split.labels) == 0:
            raise LabelsInvalidError(f"the {key} split of {name} is empty", "each split needs images")
        if np.count_nonzero(per_class[key]) < 2:
            shown = class_names[split.labels[0]] if class_names else split.labels[0]
            raise LabelsInvalidError(
                f"the {key} split of {name} has one class only ({shown})", "a classifier needs at least two"
            )
    if not class_names:
        _check_classes(per_class, name, None)
    for key, split in splits.items():
        np.save(target / f"y_{key}.npy", split.labels)
        split.pixels.finish(len(split.labels), image)
    channels, height, width = image
    manifest = {
        "source": source,
        "format": kind,
        "channels": channels,
        "height": height,
        "width": width,
        "counts": {key: len(split.labels) for key, split in splits.items()},
        "num_classes": num_classes,
        "class_names": class_names,
        "per_class": {key: counts.tolist() for key, counts in per_class.items()},
        **_twins({key: split.digests for key, split in splits.items()}),
        **facts,
    }
    (target / "data.json").write_text(json.dumps(manifest))


def _check_classes(per_class: Mapping[str, Array], name: str, class_names: list[str] | None) -> None:
    """With names, both splits have all classes; without, the test split may lack some."""
    for split in per_class:
        empty = np.flatnonzero(per_class[split] == 0)
        if len(empty) == 0 or (class_names is None and split == "test"):
            continue
        if class_names:
            shown, hint = repr(class_names[empty[0]]), "train and test have the same classes, none of them empty"
        elif empty[0] == 0:
            shown, hint = "0", "labels start at 0: subtract the smallest from those of train and test"
        else:
            shown, hint = str(empty[0]), "labels are 0 to classes - 1, and each occurs in the training split"
        raise LabelsInvalidError(f"the {split} split of {name} has no image of class {shown}", hint)


def _twins(digests: Mapping[str, bytes | bytearray]) -> dict[str, Any]:
    """Images that are there more than once, pixel for pixel."""
    rows = {split: np.frombuffer(bytes(values), f"S{DIGEST}") for split, values in digests.items()}
    unique = {split: np.unique(values) for split, values in rows.items()}
    leaks = int(np.isin(rows["test"], unique["train"]).sum()) if "train" in rows else 0
    return {"duplicates": {split: len(values) - len(unique[split]) for split, values in rows.items()}, "leaks": leaks}

"""npz: x_train, y_train, x_test, y_test as numpy arrays; one of the splits is enough."""

from __future__ import annotations

import math
import os
import tokenize
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ingest.archives import DamagedError, reading
from ingest.arrays import (
    BLOCK,
    MAX_CLASSES,
    MAX_IMAGES,
    Array,
    Labels,
    Pixels,
    Split,
    check_room,
    digests_of,
    dropping,
    finish,
)
from ingest.collect import Tell, silent
from ingest.errors import (
    DataFormatError,
    DataShapeError,
    LabelsInvalidError,
    PixelsOutOfRangeError,
    UploadTooLargeError,
)
from ingest.images import MAX_SIDE, MIN_SIDE
from ingest.members import Member, budget_for, members
from ingest.pool import ahead
from ingest.splits import settle

_HINT = "np.savez_compressed('data.npz', x_train=..., y_train=..., x_test=..., y_test=...) makes one"
_FLOATS = "send uint8, or floats in [0, 1]"
_LABELS = (
    "labels are numbers from 0, in the order of the checkpoint's outputs; if that is the alphabet's: "
    "names, y = np.unique(y, return_inverse=True)"
)
_NAMES = {
    "train": (("x_train", "y_train"), ("train_images", "train_labels")),
    "val": (("x_val", "y_val"), ("val_images", "val_labels"), ("x_valid", "y_valid")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels")),
    "all": (("x", "y"), ("images", "labels")),
}  # as numpy's users and MedMNIST name them, in lower case
_MAX_ARRAYS = 1000
_SPOOL = ".fortran"


class _Header(NamedTuple):
    name: str  # as the user spells it
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    begin: int  # of the content, in the member
    member: str
    path: Path


def prepare_npz(source: Mapping[str, Any], path: Path, target: Path, tell: Tell = silent) -> None:
    """Write prepared arrays, a block of rows at a time.

    Raises: IngestError naming the array.
    """
    name = source["filename"]
    with reading(name, DataFormatError, _HINT):
        found = _splits(_headers(path, name), name)
        first = next(iter(found.values()))[0]
        for x, _ in found.values():
            _check_images(x, name)
            if x.shape[1:] != first.shape[1:]:
                raise DataShapeError(
                    f"the splits of {name} have images of different shapes: "
                    f"{first.name} {first.shape}, {x.name} {x.shape}",
                    "bring all images to one shape",
                )
        height, width, *channels = first.shape[1:]
        image = (channels[0] if channels else 1, height, width)
        labels = {split: _labels(y, x.shape[0], name) for split, (x, y) in found.items()}
        came: dict[str, Split] = {}
        with dropping(came):
            for split, (x, _) in found.items():
                came[split] = Split(Pixels(target, split, _stored(x.dtype)), labels[split], b"")
                came[split].digests = _write(x, came[split].pixels, image, name, tell)
            splits, facts = settle(target, came, image, name, _HINT)
            finish(target, source, splits, kind="npz", image=image, class_names=None, facts=facts)


def _headers(path: Path, name: str) -> dict[str, _Header]:
    """The headers of all arrays by lower-case name; nothing of their size is allocated."""
    headers: dict[str, _Header] = {}
    for member in members(path, budget_for(path, name)):
        if member.is_folder or not member.name.endswith(".npy"):
            raise DataFormatError(f"{name} holds {member.name}, which is no array", _HINT)
        if len(headers) >= _MAX_ARRAYS:
            raise UploadTooLargeError(f"{name} holds more than {_MAX_ARRAYS} arrays", _HINT)
        called, file = member.name.removesuffix(".npy"), _Blocks(member)
        headers[called.lower()] = _Header(called, *_read_header(file, member.name, name), file.taken, member.name, path)
    return headers


def _splits(headers: Mapping[str, _Header], name: str) -> dict[str, tuple[_Header, _Header]]:
    """Images and labels of each split that is there."""
    found = {}
    for split, spellings in _NAMES.items():
        for x, y in spellings:
            if x in headers and y in headers:
                found[split] = (headers[x], headers[y])
            elif x in headers or y in headers:
                raise DataFormatError(f"{name} has no array {y if x in headers else x}", _HINT)
    if len(found) > 1:
        found.pop("all", None)
    if not found:
        raise DataFormatError(f"{name} has no x_test and y_test (it has {', '.join(sorted(headers)[:20])})", _HINT)
    return found


def _check_images(x: _Header, name: str) -> None:
    """Images as (n, h, w) or (n, h, w, c), by the header.

    Raises: DataShapeError, UploadTooLargeError naming the array.
    """
    where, shape = f"{x.name} of {name}", x.shape
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
        channels_first = len(shape) == 4 and shape[1] in (1, 3)
        hint = f"np.transpose({x.name}, (0, 2, 3, 1)) brings the channels to the end"
        raise DataShapeError(
            f"{where} has shape {shape}", hint if channels_first else "images are (n, h, w) or (n, h, w, c), c 1 or 3"
        )
    if shape[0] > MAX_IMAGES:
        raise UploadTooLargeError(f"{where} has shape {shape}; at most {MAX_IMAGES} images are taken", "send fewer")
    if min(shape[1:3]) < MIN_SIDE or max(shape[1:3]) > MAX_SIDE:
        raise DataShapeError(
            f"{where} has images of {shape[1]}x{shape[2]}", f"{MIN_SIDE} to {MAX_SIDE} pixels a side are taken"
        )
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise DataShapeError(f"{where} has dtype {x.dtype}", f"{_FLOATS}: {x.name}.astype(np.uint8) if it is 0 to 255")


def _labels(y: _Header, count: int, name: str) -> Labels:
    """Labels as int64 (n,).

    Raises: LabelsInvalidError naming the array.
    """
    where, integers = f"{y.name} of {name}", "labels are integers from 0 to classes - 1"
    if len(y.shape) == 2 and y.shape[0] == count and y.shape[1] > 1:
        raise LabelsInvalidError(f"{where} has shape {y.shape}: it looks one-hot", f"{y.name}.argmax(axis=1)")
    if y.shape not in ((count,), (count, 1)):
        raise LabelsInvalidError(f"{where} has shape {y.shape} for {count} images", "one label an image, (n,)")
    with closing(_Reader(y)) as file:
        labels = np.frombuffer(file.read(count * y.dtype.itemsize), y.dtype)
        file.end()
    if y.dtype.kind not in "iu":
        holds = ", and holds NaN" if y.dtype.kind == "f" and np.isnan(labels).any() else ""
        raise LabelsInvalidError(f"{where} has dtype {y.dtype}{holds}", f"{integers}: {y.name}.astype(np.int64)")
    for value in (labels.min(initial=0), labels.max(initial=0)):
        if not 0 <= value < MAX_CLASSES:
            raise LabelsInvalidError(f"{where} holds {value}", integers)
    return labels.astype(np.int64)


def _stored(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.uint8) if dtype == np.uint8 else np.dtype(np.float32)


def _write(x: _Header, pixels: Pixels, image: tuple[int, int, int], name: str, tell: Tell) -> bytearray:
    """Write all rows as (n, c, h, w); their digests."""
    channels, height, width = image
    row_bytes = math.prod(image) * pixels.dtype.itemsize
    check_room(pixels.path.parent, name, x.shape[0] * row_bytes)
    digests, done = bytearray(), 0
    # read and hashed in a thread, as the user's bytes are; turned round and written here
    named = ((rows, _digests(rows)) for rows in _rows(x, pixels.path.parent))
    for rows, names in ahead(named):
        digests += names
        block = _in_range(rows, f"{x.name} of {name}").reshape(len(rows), height, width, channels)
        content = block.transpose(0, 3, 1, 2).astype(pixels.dtype, copy=False).tobytes()
        pixels.write(done, content, row_bytes)
        done += len(rows)
        tell(f"{done} of {x.shape[0]} images of {x.name} prepared")
    return digests


def _digests(rows: Array) -> bytes:
    return digests_of(np.ascontiguousarray(rows).data.cast("B"), rows[0].nbytes)


def _rows(x: _Header, target: Path) -> Iterator[Array]:
    """Blocks of images (rows, h, w[, c])."""
    row_bytes = math.prod(x.shape[1:]) * x.dtype.itemsize
    step = max(1, BLOCK // row_bytes)
    with closing(_Reader(x)) as file:
        if x.fortran:
            yield from _fortran_rows(x, file, target / _SPOOL)
            return
        for start in range(0, x.shape[0], step):
            count = min(step, x.shape[0] - start)
            yield np.frombuffer(file.read(count * row_bytes), x.dtype).reshape(count, *x.shape[1:])
        file.end()


def _fortran_rows(x: _Header, file: _Blocks, spool: Path) -> Iterator[Array]:
    """The first axis runs fastest: all images are spread over the whole array, which is laid out on disk."""
    planes, count = math.prod(x.shape[1:]), x.shape[0]
    with spool.open("w+b") as out:
        spool.unlink()  # it lives as long as it is open
        for _ in range(planes):
            out.write(file.read(count * x.dtype.itemsize))
        file.end()
        out.flush()
        step = max(1, 16 * BLOCK // (planes * x.dtype.itemsize))
        for start in range(0, count, step):
            rows = min(step, count - start)
            block = np.empty((planes, rows), x.dtype)
            for plane in range(planes):
                offset = (plane * count + start) * x.dtype.itemsize
                block[plane] = np.frombuffer(os.pread(out.fileno(), rows * x.dtype.itemsize, offset), x.dtype)
            # C order of the axes turned round, the images last
            yield block.reshape(*reversed(x.shape[1:]), rows).transpose()


def _in_range(rows: Array, where: str) -> Array:
    """The rows as they are; floats are in [0, 1].

    Raises: PixelsOutOfRangeError naming the array.
    """
    if rows.dtype == np.uint8:
        return rows
    if np.isnan(rows).any():
        raise PixelsOutOfRangeError(f"{where} holds NaN", _FLOATS)
    low, high = float(rows.min()), float(rows.max())
    if low < 0 or high > 1:
        raise PixelsOutOfRangeError(
            f"{where} has floats from {low:.4g} to {high:.4g}",
            _how_to_scale(where.split()[0], low, high),
        )
    return rows


def _how_to_scale(array: str, low: float, high: float) -> str:
    if low < 0 and high < 100:
        return f"{_FLOATS}; if {array} was normalised: {array} * std + mean, with them as model.mean and model.std"
    return f"{_FLOATS}: {array} / 255" if low >= 0 and high <= 255 else _FLOATS


class _Blocks:
    """A member as a file; ``taken`` bytes were read of it."""

    def __init__(self, member: Member) -> None:
        self._name, self._blocks, self._ready, self.taken = member.name, member.blocks(), b"", 0

    def read(self, count: int = 0, /) -> bytes:
        """Exactly ``count`` bytes."""
        parts, missing = [], count
        while missing:
            self._ready = self._ready or next(self._blocks, b"")
            if not self._ready:
                raise DamagedError(f"{self._name} has less bytes than its shape needs")
            parts.append(self._ready[:missing])
            self._ready = self._ready[missing:]
            missing -= len(parts[-1])
        self.taken += count
        return b"".join(parts)

    def end(self) -> None:
        """Raises: DamagedError if anything is left."""
        if self._ready or next(self._blocks, b""):
            raise DamagedError(f"{self._name} has more bytes than its shape needs")


class _Reader(_Blocks):
    """An array's content."""

    def __init__(self, header: _Header) -> None:
        self._members = members(header.path, budget_for(header.path, header.path.name))
        super().__init__(next(member for member in self._members if member.name == header.member))
        self.read(header.begin)

    def close(self) -> None:
        """Close the archive."""
        self._members.close()


def _read_header(file: _Blocks, member: str, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"npy format {version}")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError) as error:
        raise DataFormatError(f"{member} of {name} is no array", _HINT) from error  # its header is Python
    if dtype.hasobject or dtype.kind not in "iufb":
        raise DataFormatError(
            f"{member} of {name} has dtype {dtype}", _LABELS if dtype.kind in "US" else "plain numbers are taken"
        )
    if len(shape) > 4 or any(length < 0 for length in shape):
        raise DataFormatError(f"{member} of {name} has shape {shape}", _HINT)
    return shape, fortran, dtype

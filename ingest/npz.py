"""npz: x_train, y_train, x_test, y_test as numpy arrays."""

from __future__ import annotations

import math
import tokenize
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from ingest.archives import reading
from ingest.arrays import SPLITS, Array, check_labels, check_pixels, finish, write_pixels
from ingest.errors import DataFormatError, DataShapeError, UploadTooLargeError

MAX_BYTES = 8 * 2**30
_HINT = "np.savez_compressed('data.npz', x_train=..., y_train=..., x_test=..., y_test=...) makes one"


def prepare_npz(source: Mapping[str, Any], path: Path, target: Path) -> None:
    """Write prepared arrays; the train split may be absent if nothing is to be trained.

    Raises: IngestError naming the array.
    """
    name = source["filename"]
    with reading(name, DataFormatError, _HINT), zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        splits = [split for split in SPLITS if f"x_{split}" in members or f"y_{split}" in members]
        if "test" not in splits:
            raise DataFormatError(f"{name} has no x_test and y_test (it has {', '.join(sorted(members))})", _HINT)
        labels, shapes = {}, {}
        for split in splits:
            for array in (f"x_{split}", f"y_{split}"):
                if array not in members:
                    raise DataFormatError(f"{name} has no array {array}", _HINT)
            x = check_pixels(_read(archive, members[f"x_{split}"], name), f"x_{split} of {name}")
            labels[split] = check_labels(_read(archive, members[f"y_{split}"], name), len(x), f"y_{split} of {name}")
            shapes[split] = x.shape[1:]
            write_pixels(target, split, x)
    if len(set(shapes.values())) > 1:
        raise DataShapeError(f"the splits of {name} have images of different shapes: {shapes}")
    height, width, channels = shapes["test"]
    finish(target, source, kind="npz", image=(channels, height, width), labels=labels)


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> Array:
    """One array; its header is judged before anything of its size is allocated."""
    with archive.open(info) as file:
        try:
            shape, fortran, dtype = _read_header(file)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError) as error:
            raise DataFormatError(f"{info.filename} of {name} is no array", _HINT) from error  # its header is Python
        if dtype.hasobject or dtype.kind not in "iufb":
            raise DataFormatError(f"{info.filename} of {name} has dtype {dtype}", "plain numbers are taken")
        if len(shape) > 4 or any(length < 0 for length in shape):
            raise DataFormatError(f"{info.filename} of {name} has shape {shape}", _HINT)
        size = math.prod(shape) * dtype.itemsize
        if size > MAX_BYTES:
            raise UploadTooLargeError(f"{info.filename} of {name} asks for {size} bytes; at most {MAX_BYTES} are taken")
        content = file.read(size + 1)
    if len(content) != size:
        raise DataFormatError(f"{info.filename} of {name} has {len(content)} bytes for shape {shape}", _HINT)
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"npy format {version}")

"""What npz files and image folders have in common: checks of arrays, and the prepared form on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.errors import DataShapeError, LabelsInvalidError, PixelsOutOfRangeError

Array = npt.NDArray[Any]
SPLITS = ("train", "test")
_PIECE = 4096


def check_labels(labels: Array, count: int, where: str) -> npt.NDArray[np.int64]:
    """Labels as int64 (n,).

    Raises: LabelsInvalidError naming the array.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu":
        raise LabelsInvalidError(f"{where} has dtype {labels.dtype}", "labels are integers from 0 to classes - 1")
    if labels.shape != (count,):
        raise LabelsInvalidError(f"{where} has shape {labels.shape} for {count} images", "one label an image, (n,)")
    if count and int(labels.min()) < 0:
        raise LabelsInvalidError(f"{where} holds {labels.min()}", "labels are integers from 0 to classes - 1")
    if count and int(labels.max()) >= 100_000:
        raise LabelsInvalidError(f"{where} holds {labels.max()}", "labels are integers from 0 to classes - 1")
    return labels.astype(np.int64)


def check_pixels(x: Array, where: str) -> Array:
    """Images as (n, h, w, c), uint8 or float32 in [0, 1].

    Raises: DataShapeError, PixelsOutOfRangeError naming the array.
    """
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or x.shape[3] not in (1, 3):
        channels_first = x.ndim == 4 and x.shape[1] in (1, 3)
        hint = f"np.transpose({where.split()[0]}, (0, 2, 3, 1)) brings the channels to the end"
        raise DataShapeError(
            f"{where} has shape {x.shape}",
            hint if channels_first else "images are (n, h, w) or (n, h, w, c), c 1 or 3",
        )
    if min(x.shape[1:3]) < 8 or max(x.shape[1:3]) > 1024:
        raise DataShapeError(f"{where} has images of {x.shape[1]}x{x.shape[2]}", "8 to 1024 pixels a side are taken")
    if x.dtype == np.uint8:
        return x
    if x.dtype.kind != "f":
        raise DataShapeError(f"{where} has dtype {x.dtype}", "send uint8, or floats in [0, 1]")
    for start in range(0, len(x), _PIECE):
        piece = x[start : start + _PIECE]
        if np.isnan(piece).any():
            raise PixelsOutOfRangeError(f"{where} holds NaN", "send uint8, or floats in [0, 1]")
        low, high = float(piece.min()), float(piece.max())
        if low < 0 or high > 1:
            raise PixelsOutOfRangeError(
                f"{where} has floats from {low:.4g} to {high:.4g}", "send uint8, or floats in [0, 1]"
            )
    return x.astype(np.float32, copy=False)


def open_pixels(target: Path, split: str, shape: tuple[int, int, int, int], dtype: Any) -> Array:
    """A memory-mapped ``x_SPLIT.npy`` (n, c, h, w) to be filled."""
    array: Array = np.lib.format.open_memmap(target / f"x_{split}.npy", mode="w+", dtype=dtype, shape=shape)
    return array


def write_pixels(target: Path, split: str, x: Array) -> None:
    """Write images (n, h, w, c) as (n, c, h, w)."""
    n, h, w, c = x.shape
    out = open_pixels(target, split, (n, c, h, w), x.dtype)
    for start in range(0, n, _PIECE):
        out[start : start + _PIECE] = x[start : start + _PIECE].transpose(0, 3, 1, 2)


def finish(
    target: Path,
    source: Mapping[str, Any],
    *,
    kind: str,
    image: tuple[int, int, int],
    labels: Mapping[str, npt.NDArray[np.int64]],
    class_names: list[str] | None = None,
) -> None:
    """Check the labels together and write them with ``data.json``.

    Raises: LabelsInvalidError where there is nothing to tell apart.
    """
    name = source["filename"]
    for split, values in labels.items():
        if len(values) == 0:
            raise LabelsInvalidError(f"the {split} split of {name} is empty")
        if len(np.unique(values)) < 2:
            raise LabelsInvalidError(
                f"the {split} split of {name} has one class only ({values[0]})",
                "a classifier needs at least two",
            )
        np.save(target / f"y_{split}.npy", values)
    num_classes = 1 + max(int(values.max()) for values in labels.values())
    channels, height, width = image
    manifest = {
        "source": source,
        "format": kind,
        "channels": channels,
        "height": height,
        "width": width,
        "counts": {split: len(values) for split, values in labels.items()},
        "num_classes": num_classes,
        "class_names": class_names,
    }
    (target / "data.json").write_text(json.dumps(manifest))

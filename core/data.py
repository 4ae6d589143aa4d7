"""Images of prepared arrays: splits, samples and batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from core.errors import DataMismatchError
from core.prepared import Workdir
from core.rng import derive_seed

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ImageSet:
    """Some images of a split. ``ids`` are their rows in the prepared arrays and name them for good."""

    pixels: npt.NDArray[Any]
    labels: Ids
    ids: Ids

    def __len__(self) -> int:
        return len(self.ids)

    def choose(self, rows: Ids) -> ImageSet:
        """The images at these positions of this set."""
        return ImageSet(self.pixels, self.labels, self.ids[rows])

    def batch(self, rows: Ids, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Images (n, c, h, w) float32 in [0, 1], labels and ids int64, at these positions of this set."""
        ids = self.ids[rows]
        x = torch.from_numpy(self.pixels[ids]).to(device)
        x = x.to(torch.float32).div_(255) if x.dtype == torch.uint8 else x
        y = torch.from_numpy(self.labels[ids])
        return x, y.to(device), torch.from_numpy(ids).to(device)

    def ids_sha256(self) -> str:
        """Digest of the ids, little-endian int64, in order."""
        return hashlib.sha256(self.ids.astype("<i8").tobytes()).hexdigest()


def load_split(workdir: Workdir, split: str) -> ImageSet:
    """One split of the prepared arrays, memory-mapped."""
    path = workdir.input / f"x_{split}.npy"
    if not path.exists():
        raise DataMismatchError(f"the data has no {split} split", f"add x_{split} and y_{split}, or a folder {split}/")
    pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    labels = np.load(workdir.input / f"y_{split}.npy", allow_pickle=False)
    return ImageSet(pixels, labels, np.arange(len(labels), dtype=np.int64))


def sample(images: ImageSet, count: int, seed: int) -> ImageSet:
    """``count`` images drawn by the seed, in the order of their ids; all, if there are no more.

    A larger count draws the same images and more.
    """
    if count >= len(images):
        return images
    drawn = np.random.default_rng(derive_seed(seed, "sample")).permutation(len(images))[:count]
    return images.choose(np.sort(drawn))


FEW = 200
"""Images that curve and diagnosis take."""


def some(images: ImageSet, count: int, seed: int) -> Ids:
    """Positions of at most ``count`` images, drawn by the seed and in random order: the ids may be sorted by class."""
    drawn = np.random.default_rng(derive_seed(seed, "some")).permutation(len(images))
    return drawn[:count]


def hold_out(train: ImageSet, count: int, seed: int) -> tuple[ImageSet, ImageSet]:
    """Split into (training, held-out); at most a tenth is held out, and at least one image."""
    count = max(1, min(count, len(train) // 10))
    order = np.random.default_rng(derive_seed(seed, "held-out")).permutation(len(train))
    return train.choose(np.sort(order[count:])), train.choose(np.sort(order[:count]))


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int) -> list[Ids]:
    """Positions of each batch of one epoch, in an order that depends on (seed, epoch) only.

    A last batch of a single image is left out: BatchNorm cannot train on it.
    """
    order = np.random.default_rng(derive_seed(seed, "order", epoch)).permutation(count)
    batches = [order[start : start + batch_size] for start in range(0, count, batch_size)]
    return batches[:-1] if batch_size > 1 and len(batches) > 1 and len(batches[-1]) == 1 else batches


def chunks(rows: Ids, size: int) -> Iterator[Ids]:
    """Consecutive pieces of at most ``size``."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]

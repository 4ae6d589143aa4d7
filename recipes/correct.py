"""Which images a network gets right, so that two networks can be compared image by image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pyarrow import parquet
from pydantic import BaseModel, ConfigDict

from core.report import AttackResult, Count, PairedChange

Mask = npt.NDArray[np.bool_]


class Correct(BaseModel):
    """Of the evaluated images, in the order of their ids, those that are classified correctly."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    correct: int
    total: int
    images: str
    """One bit an image, the first image the highest bit of the first byte, in hexadecimal."""

    @classmethod
    def of(cls, mask: Mask) -> Correct:
        """From one boolean an image."""
        return cls(correct=int(mask.sum()), total=len(mask), images=np.packbits(mask).tobytes().hex())

    @property
    def mask(self) -> Mask:
        """One boolean an image."""
        packed = np.frombuffer(bytes.fromhex(self.images), dtype=np.uint8)
        return np.unpackbits(packed, count=self.total).astype(bool)

    @property
    def count(self) -> Count:
        """The share with its interval."""
        return Count.of(self.correct, self.total)

    @property
    def accuracy(self) -> float:
        """The share."""
        return self.count.accuracy


def above(first: Correct, second: Correct) -> bool | None:
    """Whether the first gets more of the same images right; None if chance may have drawn the difference (p >= 0.05).

    McNemar's exact test. It knows the chance in the draw of the test images, not that of a training's seed.
    """
    if first.total != second.total:
        raise ValueError(f"{first.total} and {second.total} images cannot be compared image by image")
    ours, theirs = first.mask, second.mask
    change = PairedChange.of(int((ours & ~theirs).sum()), int((theirs & ~ours).sum()), first.total)
    return None if change.p_value >= 0.05 else change.delta > 0


class SideMasks:
    """The answers of one side ("before" or "after") of a job's ``images.parquet``."""

    def __init__(self, path: Path, side: str) -> None:
        self._columns: dict[str, Any] = parquet.read_table(path).to_pydict()
        self._side = side

    @property
    def clean(self) -> Mask:
        """On clean images."""
        predicted = np.array(self._columns[f"{self._side}_clean_prediction"], dtype=np.int64)
        answer: Mask = predicted == np.array(self._columns["label"], dtype=np.int64)
        return answer

    @property
    def robust(self) -> Mask:
        """In the worst case of the suite."""
        return np.array(self._columns[f"{self._side}_robust"], dtype=np.bool_)

    def under(self, number: int, attack: AttackResult) -> Mask:
        """Under one attack of the suite, the first being number 1; ``cumulative`` ones include all before them."""
        numbers = range(1, number + 1) if attack.cumulative else (number,)
        mask = self.clean
        for column, fooled in self._columns.items():
            if column.endswith("_fooled") and any(column.startswith(f"{self._side}_{n}_") for n in numbers):
                mask &= ~np.array(fooled, dtype=np.bool_)
        return mask

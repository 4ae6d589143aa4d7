"""Which images train and which test: as the data says, or a fifth of each class where it says nothing."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.arrays import BLOCK, DIGEST, Labels, Pixels, Split
from ingest.errors import DataFormatError, LabelsInvalidError

SPLITS = ("train", "val", "test", "all")
"""As data may come; "all" where it has no splits. Prepared data has train and test."""
SPLIT_NAMES = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLIT_NAMES |= dict.fromkeys(("val", "valid", "validation"), "val")
_SHARE = 5
_SEED = 0  # never the job's: a job that evaluates another's result must not test on what that one trained on


def split_of_shard(name: str) -> str:
    """The split that a shard's path names: train-00000-of-00005.parquet, data/validation/3.tar; "all" if none."""
    for part in name.lower().split("/"):
        for word in re.split(r"[^a-z]+", part):
            if word in SPLIT_NAMES:
                return SPLIT_NAMES[word]
    return "all"


def settle(
    target: Path, splits: dict[str, Split], image: tuple[int, int, int], filename: str, layout: str
) -> tuple[dict[str, Split], dict[str, Any]]:
    """From the splits as they came to train and test (or test alone); and what was done, for the manifest.

    val is the test split if there is no other, else it is left out. A train split, or one without a name, is divided if
    it is alone.

    Raises: DataFormatError, LabelsInvalidError.
    """
    splits, left_out = dict(splits), {}
    if "val" in splits and "test" in splits:
        val = splits.pop("val")
        val.pixels.drop()
        left_out["val"] = len(val.labels)
    elif "val" in splits:
        splits["test"] = splits.pop("val")
        splits["test"].pixels.rename("test")
    facts = {"stratified": False, "left_out": left_out}
    if "test" in splits:
        return {key: splits[key] for key in ("train", "test") if key in splits}, facts
    if len(splits) != 1:
        raise DataFormatError(f"{filename} has no test images", layout)
    return _divide(target, splits.popitem()[1], image, filename), {**facts, "stratified": True}


def choose_test(labels: Labels, digests: bytes | bytearray, filename: str) -> npt.NDArray[np.bool_]:
    """Which images are for testing: the same ones for the same data. Equal images stay together.

    Raises: LabelsInvalidError naming a class with less than two different images.
    """
    rng = np.random.default_rng(_SEED)
    rows = np.frombuffer(bytes(digests), f"S{DIGEST}")
    chosen = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        _, first, twins = np.unique(rows[members], return_index=True, return_inverse=True)
        if len(first) < 2:
            raise LabelsInvalidError(
                f"class {label} of {filename} has one image only, to train and to test",
                "add images to it, or send train and test splits",
            )
        order = rng.permutation(len(first))[np.argsort(np.argsort(first))]  # drawn in the order of the data
        chosen[members] = (order < max(1, len(first) // _SHARE))[twins]
    return chosen


def _divide(target: Path, whole: Split, image: tuple[int, int, int], filename: str) -> dict[str, Split]:
    """Move the chosen images to a test split; the others close ranks and become the train split."""
    chosen = choose_test(whole.labels, whole.digests, filename)
    whole.pixels.rename("train")
    pixels = {False: whole.pixels, True: Pixels(target, "test", whole.pixels.dtype)}
    row_bytes = math.prod(image) * whole.pixels.dtype.itemsize
    count, done = max(1, BLOCK // row_bytes), {False: 0, True: 0}
    for start in range(0, len(chosen), count):
        mask = chosen[start : start + count]
        rows = np.frombuffer(whole.pixels.read(start, len(mask), row_bytes), np.uint8).reshape(len(mask), row_bytes)
        for part, out in pixels.items():
            picked = rows[mask == part]
            out.write(done[part], picked.tobytes(), row_bytes)
            done[part] += len(picked)
    digests = np.frombuffer(bytes(whole.digests), f"V{DIGEST}")
    return {
        name: Split(pixels[part], whole.labels[chosen == part], digests[chosen == part].tobytes())
        for name, part in (("train", False), ("test", True))
    }

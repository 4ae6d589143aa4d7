"""Fetches named datasets: torchvision's as npz, those of images that vary in size as a zipped image folder."""

from __future__ import annotations

import io
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import typer
from PIL import Image

from ingest.images import FORMATS
from jobs.datasets import DATASETS, Dataset

_SOURCE = "--source"


def fetch_dataset(name: str, folder: Path, source: Path | None) -> Path:
    """Download (or only read, from ``source``), and write the dataset's file in ``folder`` whole or not at all.

    Raises: typer.BadParameter if the name is unknown, or the dataset is not to be had.
    """
    if name not in DATASETS:
        raise typer.BadParameter(f"unknown dataset {name!r}; known: {', '.join(DATASETS)}")
    dataset = DATASETS[name]
    if source is None and dataset.reader is None:
        raise typer.BadParameter(
            f"{name} cannot be downloaded freely: name a folder that has train/CLASS/IMAGE and val/CLASS/IMAGE",
            param_hint=_SOURCE,
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
        whole = Path(scratch) / "whole"
        root = source or Path(scratch)
        try:
            splits = _read(dataset, root, download=source is None)
            if dataset.folder is None:
                _keep_arrays(splits, whole)
            else:
                _keep_files(root / dataset.folder, whole)
        except (RuntimeError, OSError, ValueError, ImportError) as error:  # as torchvision's readers raise them
            how = f"read from {source}" if source else f"downloaded; {_SOURCE} takes a folder that has it"
            raise typer.BadParameter(f"{name} cannot be {how}: {error}", param_hint=_SOURCE) from error
        return whole.replace(folder / f"{name}{'.npz' if dataset.folder is None else '.zip'}")


def _read(dataset: Dataset, root: Path, *, download: bool) -> dict[str, Any]:
    """torchvision's datasets by split; none where it has no reader."""
    if dataset.reader is None:
        return {}
    from torchvision import datasets  # slow, and only needed here

    reader = getattr(datasets, dataset.reader)
    return {
        split: reader(str(root), **arguments, download=download)
        for split, arguments in (("train", dataset.train), ("test", dataset.test))
    }


def _keep_arrays(splits: dict[str, Any], target: Path) -> None:
    arrays: dict[str, Any] = {}
    for split, images in splits.items():
        x, y = zip(*images, strict=True)
        arrays[f"x_{split}"] = np.stack([np.asarray(image, np.uint8) for image in x])
        arrays[f"y_{split}"] = np.asarray(y, np.uint8)
    with target.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _keep_files(root: Path, target: Path) -> None:
    """Zip train/ and val/ as they are, the same files to the same bytes; without train/ it is enough to evaluate."""
    from torchvision.datasets import ImageFolder

    splits = {split: ImageFolder(str(root / split)) for split in ("train", "val") if (root / split).is_dir()}
    if "val" not in splits:
        raise ValueError(f"there is no folder {root / 'val'}")
    classes = splits["val"].classes
    if differing := sorted({name for images in splits.values() for name in {*images.classes} ^ {*classes}}):
        raise ValueError(f"train/ and val/ have different classes; only one of them has {', '.join(differing[:10])}")
    paths = [Path(path) for images in splits.values() for path, _ in images.samples]
    needed, free = sum(path.stat().st_size for path in paths), shutil.disk_usage(target.parent).free
    if needed > free:
        raise OSError(f"it takes {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free where datasets are kept")
    with zipfile.ZipFile(target, "w") as archive:
        for path in paths:
            content = path.read_bytes()
            try:
                Image.open(io.BytesIO(content), formats=FORMATS).close()
            except OSError as error:
                raise ValueError(f"{path} is no image of the formats {', '.join(FORMATS)}") from error
            archive.writestr(zipfile.ZipInfo(path.relative_to(root).as_posix()), content)
    counts = " and ".join(f"{len(images)} {split} images" for split, images in splits.items())
    typer.echo(f"{len(classes)} classes, {counts}")

"""Fetches named datasets by torchvision and keeps them as npz."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import typer

_CLASSES = {"fashion-mnist": "FashionMNIST", "mnist": "MNIST", "cifar10": "CIFAR10"}


def fetch_dataset(name: str, folder: Path, source: Path | None) -> Path:
    """Download (or read from ``source``), and write ``folder/NAME.npz`` whole or not at all."""
    if name not in _CLASSES:
        raise typer.BadParameter(f"unknown dataset {name!r}; known: {', '.join(_CLASSES)}")
    from torchvision import datasets  # slow, and only needed here

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        root = source or Path(scratch)
        arrays: dict[str, Any] = {}
        for split in ("train", "test"):
            data = getattr(datasets, _CLASSES[name])(str(root), train=split == "train", download=True)
            arrays[f"x_{split}"] = np.asarray(data.data, np.uint8)
            arrays[f"y_{split}"] = np.asarray(data.targets, np.uint8)
        temporary = Path(scratch) / "whole.npz"
        np.savez_compressed(temporary, **arrays)
        return temporary.rename(folder / f"{name}.npz")

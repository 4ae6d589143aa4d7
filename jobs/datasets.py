"""Datasets by name that ``temperd datasets fetch`` knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Dataset:
    """How one is got.

    ``reader`` names the class of torchvision.datasets that downloads and reads it, none where it cannot be downloaded
    freely; ``train`` and ``test`` are the reader's arguments for the two splits. ``folder``: where below the source
    lie train/CLASS/IMAGE and val/CLASS/IMAGE, for datasets that are kept as files since their images vary in size.
    """

    title: str
    reader: str | None
    train: Mapping[str, Any] = field(default_factory=lambda: {"train": True})
    test: Mapping[str, Any] = field(default_factory=lambda: {"train": False})
    folder: str | None = None


DATASETS = {
    "cifar10": Dataset("CIFAR-10: 32 px colour, 10 classes", "CIFAR10"),
    "cifar100": Dataset("CIFAR-100: 32 px colour, 100 classes", "CIFAR100"),
    "fashion-mnist": Dataset("Fashion-MNIST: 28 px grey, 10 classes", "FashionMNIST"),
    "imagenet": Dataset(
        "ImageNet from a folder of your own: colour; set data.resize and data.crop", reader=None, folder="."
    ),
    "imagenette": Dataset(
        "Imagenette, full size: colour, 10 classes; set data.resize and data.crop",
        "Imagenette",
        train={"split": "train"},
        test={"split": "val"},
        folder="imagenette2",
    ),
    "mnist": Dataset("MNIST: 28 px grey, 10 classes", "MNIST"),
    "svhn": Dataset("SVHN: 32 px colour, 10 classes", "SVHN", train={"split": "train"}, test={"split": "test"}),
}

"""Shared fixtures: the example's real network and images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from core.models.base import ImageShape
from core.models.classifier import Classifier
from core.models.fmnist_cnn import FMNISTCNN

EXAMPLE = Path(__file__).parents[1] / "examples" / "fashion_mnist"


@pytest.fixture(scope="session")
def example() -> Path:
    """The example's folder: checkpoint.pt and data.npz."""
    return EXAMPLE


@pytest.fixture(scope="session")
def arrays() -> dict[str, np.ndarray]:
    """The example's images and labels."""
    with np.load(EXAMPLE / "data.npz") as data:
        return dict(data)


@pytest.fixture
def network() -> Classifier:
    """The example's network, fresh for each test."""
    net = FMNISTCNN().build(10, ImageShape(1, 28, 28))
    net.load_state_dict(torch.load(EXAMPLE / "checkpoint.pt", weights_only=True))
    return Classifier(net).eval()


@pytest.fixture(scope="session")
def batch(arrays: dict[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The first 200 test images in [0, 1], their labels and ids."""
    x = torch.from_numpy(arrays["x_test"][:200])[:, None] / 255
    return x, torch.from_numpy(arrays["y_test"][:200]).long(), torch.arange(200)

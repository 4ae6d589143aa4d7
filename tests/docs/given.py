"""What a reader has and a page does not show."""

from pathlib import Path

import torch
from torch import nn

from core.models.base import ImageShape
from core.models.fmnist_cnn import FMNISTCNN

EXAMPLE = Path(__file__).parents[2] / "examples" / "fashion_mnist"

model = FMNISTCNN().build(10, ImageShape(1, 28, 28))


def train(net: nn.Module) -> None:
    """As if they had: the example's weights, which are of the same shapes in the same order."""
    trained = torch.load(EXAMPLE / "checkpoint.pt", weights_only=True)
    net.load_state_dict(dict(zip(net.state_dict(), trained.values(), strict=True)))

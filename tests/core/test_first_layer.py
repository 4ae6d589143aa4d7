"""The first layer is found by running the network, and refused where there is none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from core.errors import UnsupportedError
from core.first_layer import check_first_layer
from core.models import ARCHITECTURES, ImageShape
from core.models.classifier import Classifier


class TwoPaths(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(5 * 64, 3)

    def forward(self, x):
        return self.head(torch.cat([self.conv(x), x], 1).flatten(1))


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 1, 3, padding=1), nn.Linear(64, 3)

    def forward(self, x):
        return self.head(self.conv(self.conv(x)).flatten(1))


class NoLayer(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :3]


def first_norm() -> nn.Module:
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 3))
    nn.init.constant_(net[0].bias, 1.0)
    return net


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (TwoPaths(), "without passing the first one"),
        (Shared(), "more than once"),
        (NoLayer(), "no convolution"),
        (first_norm(), "changes the images before"),
    ],
)
def test_refuses_a_network_without_one_first_layer(net, reason):
    with pytest.raises(UnsupportedError, match=reason) as error:
        check_first_layer(Classifier(net), torch.rand(2, 1, 8, 8))
    assert "fast-at" in error.value.hint


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("fmnist-cnn", "conv1"),
        ("resnet18-cifar", "conv1"),
        ("preact-resnet18", "conv1"),
        ("vgg16-cifar", "features.0"),
    ],
)
def test_finds_it(name, key):
    side = 28 if name.startswith("fmnist") else 32
    channels = 1 if side == 28 else 3
    net = ARCHITECTURES[name].model_validate({"name": name}).build(10, ImageShape(channels, side, side))
    model = Classifier(net, mean=[0.4] * channels, std=[0.2] * channels).train()
    layer = check_first_layer(model, torch.rand(2, channels, side, side))
    assert layer is net.get_submodule(key)
    assert model.cost.forwards == 0
    assert all(module.training for module in model.modules())
    assert not layer._forward_hooks, "nothing is left on the layer"


def test_a_dense_layer_behind_flattening_is_one():
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.ReLU(), nn.Linear(3, 2))
    assert check_first_layer(Classifier(net, mean=[0.5], std=[2.0]), torch.rand(2, 1, 4, 4)) is net[1]

"""The first layer is found by running the network, and refused where there is none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from core.errors import UnsupportedError
from core.first_layer import first_layer, output_of, watch
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


@pytest.mark.parametrize(
    ("net", "reason"),
    [(TwoPaths(), "without passing the first one"), (Shared(), "more than once"), (NoLayer(), "no convolution")],
)
def test_refuses_a_network_without_one_first_layer(net, reason):
    with pytest.raises(UnsupportedError, match=reason) as error:
        first_layer(Classifier(net), torch.rand(2, 1, 8, 8))
    assert "fast-at" in error.value.hint


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("fmnist-cnn", "conv1"),
        ("resnet18-cifar", "conv1"),
        ("preact-resnet18", "conv1"),
        ("vgg16-bn-cifar", "features.0"),
    ],
)
def test_finds_it(name, key):
    side = 28 if name.startswith("fmnist") else 32
    channels = 1 if side == 28 else 3
    net = ARCHITECTURES[name].model_validate({"name": name}).build(10, ImageShape(channels, side, side))
    model = Classifier(net, mean=[0.4] * channels, std=[0.2] * channels).train()
    layer = first_layer(model, torch.rand(2, channels, side, side))
    assert layer is net.get_submodule(key)
    assert model.cost.forwards == 0
    assert all(module.training for module in model.modules())


def test_what_comes_before_the_layer_is_part_of_it():
    net = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(16, 3), nn.ReLU(), nn.Linear(3, 2))
    model = Classifier(net, mean=[0.5], std=[2.0])
    x = torch.rand(2, 1, 4, 4, requires_grad=True)
    layer = first_layer(model, x)
    output = output_of(model, layer, x)
    assert torch.allclose(output, net[2](((x - 0.5) / 2).flatten(1).relu()))
    assert torch.autograd.grad(output.sum(), x)[0].shape == x.shape
    assert not layer._forward_hooks, "nothing is left on the layer"


@pytest.mark.parametrize("name", ["vgg16-cifar", "vgg16-bn-cifar", "resnet18-cifar"])
def test_the_hamiltonian_has_the_gradient_of_the_loss(name):
    """<p, f1(x)> differentiated through the first layer alone is minus the loss's own gradient, exactly there.

    VGG's activations work in place, on the very output that is watched.
    """
    torch.manual_seed(0)
    net = ARCHITECTURES[name].model_validate({"name": name}).build(10, ImageShape(3, 32, 32))
    model = Classifier(net).eval()
    x, y = torch.rand(4, 3, 32, 32, requires_grad=True), torch.arange(4)
    layer = first_layer(model, x)
    with watch(layer) as seen:
        loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    expected = x.grad
    (grad,) = torch.autograd.grad((seen.gradient() * output_of(model, layer, x)).sum(), x)
    assert torch.allclose(grad, expected, rtol=1e-3, atol=1e-3 * expected.abs().max())


def test_watches_the_gradient_at_its_output(network, batch):
    x, y, _ = (t[:4] for t in batch)
    layer = first_layer(network, x)
    with watch(layer) as seen:
        loss = nn.functional.cross_entropy(network(x), y)
    loss.backward()
    assert seen.gradient().shape == (4, 32, 28, 28)
    assert seen.gradient().abs().sum() > 0

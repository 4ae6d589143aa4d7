"""The moving average of the weights, and BatchNorm's statistics for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from core.averaging import WeightAverage
from core.data import ImageSet
from core.models.classifier import Classifier


def test_average_by_hand():
    model = Classifier(nn.Linear(1, 1, bias=False))
    average = WeightAverage(model, decay=0.5)
    expected = model.net.weight.item()
    for step in range(1, 12):
        with torch.no_grad():
            model.net.weight.fill_(float(step))
        average.update(model)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        assert average.model.net.weight.item() == pytest.approx(expected, rel=1e-6)
    assert model.net.weight.item() == 11, "the trained weights are not touched"


def test_statistics_are_those_of_the_averaged_network():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 36, 2))
    model = Classifier(net)
    average = WeightAverage(model, decay=0.9)
    with torch.no_grad():
        average.model.net[0].weight.mul_(5)
    pixels = np.random.default_rng(0).integers(0, 256, (500, 1, 8, 8), np.uint8)
    images = ImageSet(pixels, np.zeros(500, np.int64), np.arange(500))
    average.settle(images)
    norm = average.model.net[1]
    output = average.model.net[0](torch.from_numpy(pixels) / 255)
    assert torch.allclose(norm.running_mean, output.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(norm.running_var, output.var((0, 2, 3)), rtol=0.01)
    assert norm.momentum == 0.1
    assert not norm.training
    assert model.cost.forwards == 500, "its passes are booked with the others"
    assert net[1].running_mean.abs().sum() == 0


class Auxiliary(nn.Module):
    """A BatchNorm that sees the images, and one that runs in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head, self.out = nn.BatchNorm2d(1), nn.BatchNorm1d(4), nn.Linear(4, 2)

    def forward(self, x):
        x = self.norm(x).flatten(1)
        return self.out(self.head(x) if self.training else x)


def test_every_image_counts_the_same_and_idle_statistics_stay():
    """252 images are no 250 and then two that weigh as much."""
    net = Auxiliary()
    net.head.running_mean += 7
    average = WeightAverage(Classifier(net), decay=0.9)
    pixels = np.random.default_rng(0).integers(0, 256, (252, 1, 2, 2), np.uint8)
    average.settle(ImageSet(pixels, np.zeros(252, np.int64), np.arange(252)))
    assert torch.allclose(average.model.net.norm.running_mean, torch.tensor(pixels / 255).mean().float(), atol=1e-6)
    assert average.model.net.norm.num_batches_tracked == 2
    assert torch.equal(average.model.net.head.running_mean, torch.full((4,), 7.0))


def test_survives_saving(network):
    average = WeightAverage(network, 0.9)
    with torch.no_grad():
        network.net.fc2.weight.add_(1)
    average.update(network)
    other = WeightAverage(network, 0.9)
    other.load_state_dict(average.state_dict())
    for each in (average, other):
        each.update(network)
    for ours, theirs in zip(average.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)

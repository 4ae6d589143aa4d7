"""DRA against its algorithm, and against the two calibrations that fix what its eps means."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from core.attacks.dra import DRA, dynamically_regulated
from core.attacks.pgd import PGD
from core.models.classifier import Classifier, frozen
from core.models.sequential import Sequential
from core.rng import Rng
from core.threat import ThreatModel

DATA = Path(__file__).parents[1] / "data" / "cifar10"


def block(channels: int) -> list:
    return [
        {"conv2d": {"out_channels": channels, "kernel_size": 3, "padding": 1, "bias": False}},
        "batch_norm2d",
        "relu",
    ]


POOL = {"max_pool2d": {"kernel_size": 2}}
LAYERS = [
    *block(32), *block(32), POOL, *block(64), *block(64), POOL, *block(96), POOL, "flatten",
    {"linear": {"out_features": 10}},
]  # fmt: skip


@pytest.fixture(scope="module")
def cifar():
    """A small network trained on CIFAR-10 (85% clean) and 300 test images."""
    from core.models import ImageShape

    net = Sequential(layers=LAYERS).build(10, ImageShape(3, 32, 32))
    net.load_state_dict(torch.load(DATA / "net.pt", weights_only=True))
    with np.load(DATA / "images.npz") as data:
        x, y = torch.from_numpy(data["x"]).permute(0, 3, 1, 2) / 255, torch.from_numpy(data["y"]).long()
    return Classifier(net.float()).eval(), x, y


def accuracy(cifar, attack, eps=0.0) -> float:
    model, x, y = cifar
    x_adv = attack.perturb(model, x, y, ThreatModel(norm="linf", eps=eps), Rng.for_images(0, torch.arange(len(x))))
    with torch.no_grad():
        return 100 * (model(x_adv).argmax(1) == y).float().mean().item()


def papers_pgd(cifar, eps: float) -> float:
    return accuracy(cifar, PGD(steps=20, step_size="eps/20"), eps / 255)


@pytest.mark.long
def test_eps_1_is_pgd_at_2_55(cifar):
    """Hou et al. 2022: on CIFAR-10 DRA with eps = 1 is as strong as PGD-20 with eps = 2.55 (/255, step eps/20)."""
    dra = accuracy(cifar, DRA(mean_change="1/255", p=1))
    assert abs(dra - papers_pgd(cifar, 2.55)) < 6
    # the other readings are far away: an L1 norm of 1 over the image changes next to nothing
    literal = accuracy(cifar, DRA(mean_change=1 / 3072, p=1))
    assert literal > dra + 20


@pytest.mark.long
def test_eps_2_is_pgd_at_4_to_5(cifar):
    dra = accuracy(cifar, DRA(mean_change="2/255"))
    assert papers_pgd(cifar, 5) - 6 < dra < papers_pgd(cifar, 4) + 6


@pytest.mark.long
def test_a_larger_share_of_pixels_is_stronger_and_saturates(cifar):
    """Fig. 4 and table VI: p = 0 is the clean image; a third of the pixels does most of the work."""
    shares = (0, 0.05, 1 / 6, 1 / 3, 1 / 2, 1)
    accuracies = [accuracy(cifar, DRA(mean_change="1/255", p=p)) for p in shares]
    assert accuracies == sorted(accuracies, reverse=True)
    model, x, y = cifar
    assert accuracies[0] == 100 * (model(x).argmax(1) == y).float().mean().item()
    drops = [a - b for a, b in itertools.pairwise(accuracies)]
    assert drops[0] > 20
    assert drops[-1] < 8


@pytest.mark.parametrize("p", [0.05, 1 / 3, 1.0])
def test_mean_change_is_bounded_and_the_rest_is_clean(cifar, p):
    model, x, y = (cifar[0], cifar[1][:20], cifar[2][:20])
    with frozen(model):
        x_adv = dynamically_regulated(model, x, y, mean_change=2 / 255, p=p, steps=5)
    change = (x_adv - x).abs().flatten(1)
    assert (change.mean(1) <= 2 / 255 * (1 + 1e-5)).all()
    assert ((change > 0).sum(1) <= math.ceil(p * 3072)).all()
    assert change.max() > 4 / 255, "soft-bounded: single pixels change by more than the mean"


def test_one_step_by_hand():
    """On a linear model the gradient is known: the step is along it, scaled to the mean change."""
    layer = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0, 0, 0], [4.0, -2, 1, 1]]))
    model = Classifier(nn.Sequential(nn.Flatten(), layer))
    x = torch.full((1, 1, 2, 2), 0.5)
    with frozen(model):
        whole = dynamically_regulated(model, x, torch.tensor([0]), mean_change=0.1, p=1, steps=1)
        half = dynamically_regulated(model, x, torch.tensor([0]), mean_change=0.1, p=0.5, steps=1)
        clipped = dynamically_regulated(model, x, torch.tensor([0]), mean_change=0.4, p=1, steps=1)
    assert whole.flatten().tolist() == pytest.approx([0.7, 0.4, 0.55, 0.55])
    assert half.flatten().tolist() == pytest.approx([0.7, 0.4, 0.5, 0.5])
    assert clipped.flatten().tolist() == pytest.approx([1.0, 0.1, 0.7, 0.7])


def test_an_image_without_gradient_takes_no_step():
    layer = nn.Linear(4, 2, bias=False)
    nn.init.zeros_(layer.weight)
    model = Classifier(nn.Sequential(nn.Flatten(), layer))
    x = torch.rand(3, 1, 2, 2)
    with frozen(model):
        assert torch.equal(
            dynamically_regulated(model, x, torch.zeros(3, dtype=torch.long), mean_change=0.1, p=0.5, steps=3), x
        )


def test_a_confident_image_stays_a_number():
    """Gradients at the edge of float32: their mean underflows, their direction does not."""
    layer = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[90.0, 80, 1, 1], [-90.0, -10, 1, 1]]))
    model = Classifier(nn.Sequential(nn.Flatten(), layer))
    x = torch.linspace(0.2, 0.9, 200).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    with frozen(model):
        x_adv = dynamically_regulated(model, x, torch.zeros(200, dtype=torch.long), mean_change=0.1, p=0.5, steps=3)
    assert torch.isfinite(x_adv).all()
    assert ((x_adv - x).abs().flatten(1).mean(1) <= 0.1 + 1e-6).all()

"""Attacks can only find what is there: certified <= attacked, image by image, by interval bounds of a small network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from core.attacks import ATTACKS
from core.data import ImageSet
from core.evaluate import Bench, evaluate
from core.models.classifier import Classifier
from core.suites import Entry, Suite
from core.threat import ThreatModel
from tests.core.test_attacks import SHORT


@pytest.fixture(scope="module")
def trained(arrays):
    """A one-layer convolution trained for a minute's fraction on 7 x 7 images of two classes, and its test images."""
    torch.manual_seed(0)
    x = F.avg_pool2d(torch.from_numpy(arrays["x_train"])[:, None] / 255, 4)
    y = torch.from_numpy(arrays["y_train"]).long()
    rows = y < 4
    x, y = x[rows][:1200], y[rows][:1200]
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(100, 4))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=3e-3)
    for _ in range(80):
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Classifier(net).eval(), (x[:150] * 255).round().to(torch.uint8), y[:150]


def certified(model: Classifier, x: torch.Tensor, y: torch.Tensor, eps: float) -> torch.Tensor:
    """Whether interval bounds prove that no point within linf eps is misclassified (Gowal et al. 2018)."""
    low, high = (x - eps).clamp(0, 1).double(), (x + eps).clamp(0, 1).double()
    for layer in model.net.double():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            centre, radius = (low + high) / 2, (high - low) / 2
            middle = layer(centre)
            weight, bias = layer.weight, layer.bias
            layer.weight, layer.bias = nn.Parameter(weight.abs()), None
            spread = layer(radius)
            layer.weight, layer.bias = weight, bias
            low, high = middle - spread, middle + spread
        else:
            low, high = layer(low), layer(high)
    model.net.float()
    true = low.gather(1, y[:, None])[:, 0]
    return true > high.scatter(1, y[:, None], -torch.inf).amax(1)


@pytest.mark.parametrize("eps", [0.005, 0.02])
def test_no_attack_fools_a_certified_image(trained, eps):
    model, pixels, y = trained
    with torch.no_grad():
        proven = certified(model, pixels / 255, y, eps).numpy()
    assert 0.1 < proven.mean() < 0.99, "the case must tell something"
    threat = ThreatModel(norm="linf", eps=eps)
    entries = tuple(
        Entry(ATTACKS[name].model_validate({"name": name, **SHORT.get(name, {})}), threat)
        for name in ATTACKS.names()
        if "linf" in ATTACKS[name].norms and ATTACKS[name].bounded
    )
    images = ImageSet(pixels.numpy(), y.numpy(), np.arange(len(y)))
    ledger = evaluate(model, Bench(images, 4, 0, 64, torch.device("cpu")), Suite(entries))
    for tally, entry in zip(ledger.tallies, entries, strict=True):
        assert not (tally.fooled & proven).any(), entry.attack.name
    fooled = np.any([tally.fooled for tally in ledger.tallies], axis=0)
    assert fooled.any()

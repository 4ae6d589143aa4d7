"""On a two-class linear model the exact robust accuracy is known: margin > eps * dual norm of the weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from core.attacks.apgd import APGD
from core.attacks.apgd_t import TargetedAPGD
from core.attacks.cw import CW
from core.attacks.fab import FAB
from core.attacks.fab_t import TargetedFAB
from core.attacks.fgsm import FGSM
from core.attacks.i_fgsm import IFGSM
from core.attacks.pgd import PGD
from core.gradients import ascent_gradient
from core.models.classifier import Classifier, frozen
from core.rng import Rng
from core.threat import ThreatModel

COUNT, SIDE = 400, 6


@pytest.fixture
def linear():
    """Model, images in the middle of the box (so that it is inactive), labels, weight difference, margins."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(SIDE * SIDE, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(2, SIDE * SIDE, generator=generator))
        layer.bias.zero_()
    x = 0.4 + 0.2 * torch.rand(COUNT, 1, SIDE, SIDE, generator=generator)
    difference = (layer.weight[0] - layer.weight[1]).detach()
    with torch.no_grad():  # centre the classes: half of the images on each side
        layer.bias[0] = 1e-3 - (x.flatten(1) @ difference).median()  # no image lies on the border
    margin = x.flatten(1) @ difference + layer.bias[0].item()
    y = (margin < 0).long()
    return Classifier(nn.Sequential(nn.Flatten(), layer)), x, y, difference, margin.abs()


ATTACKS = [
    FGSM(),
    IFGSM(steps=20),
    PGD(steps=100, step_size="eps/10"),
    PGD(steps=100, step_size="eps/10", loss="margin"),
    PGD(steps=20, step_size="eps/4", restarts=3),
    APGD(name="apgd-ce"),
    APGD(name="apgd-dlr"),
    TargetedAPGD(),
    FAB(),
    TargetedFAB(),
    CW(steps=300, searches=8, lr=0.002),
]
CASES = [
    pytest.param(attack, *case, id=f"{attack.name}-{attack.fb_per_image(2):g}-{case[0]}-{case[1]}")
    for attack in ATTACKS
    for case in (
        ("linf", 0.005, 1), ("linf", 0.015, 1), ("l2", 0.03, 2), ("l2", 0.06, 2),
        ("l1", 0.07, float("inf")), ("l1", 0.14, float("inf")),
    )
    if case[0] in attack.norms
    # a fixed step does not settle on the one best coordinate of l1; Auto-PGD's shrinking step does
    and not (case[0] == "l1" and attack.name in ("i-fgsm", "pgd"))
]  # fmt: skip


@pytest.mark.parametrize(("attack", "norm", "eps", "dual"), CASES)
def test_matches_the_exact_robust_accuracy(attack, norm, eps, dual, linear):
    model, x, y, difference, margin = linear
    threat = ThreatModel(norm=norm, eps=eps)
    x_adv = attack.perturb(model, x, y, threat, Rng.for_images(0, torch.arange(COUNT)))
    survived = model(x_adv).argmax(1) == y
    exact = margin > eps * difference.norm(p=dual)
    assert 0.1 < exact.float().mean() < 0.9, "the case must tell attacks apart"
    # rounding decides images that lie on the border itself; an l2 walk from a random start ends just short of it,
    # and FAB steps over it on purpose
    band = 1e-3 if norm == "linf" and not attack.name.startswith("fab") else 5e-3
    clear = (margin / (eps * difference.norm(p=dual)) - 1).abs() > band
    assert clear.float().mean() > 0.97
    assert torch.equal(survived[clear], exact[clear])


def test_a_step_too_small_to_reach_the_border_is_weaker(linear):
    """10 steps of eps/100 cannot use eps: the very protocol that makes models look robust."""
    model, x, y, difference, margin = linear
    threat = ThreatModel(norm="linf", eps=0.015)
    weak = IFGSM(steps=10, step_size=0.00015)
    survived = model(weak.perturb(model, x, y, threat, Rng.for_images(0, torch.arange(COUNT)))).argmax(1) == y
    exact = margin > 0.015 * difference.norm(p=1)
    assert survived.sum() > exact.sum() + 20


@pytest.mark.parametrize("attack", [FGSM(), IFGSM(steps=20)], ids=lambda attack: attack.name)
@pytest.mark.parametrize(("norm", "eps", "dual"), [("linf", 0.015, 1), ("l2", 0.06, 2)])
@pytest.mark.parametrize("scale", [100, 10_000])
def test_large_logits_do_not_look_robust(attack, norm, eps, dual, scale, linear):
    """The plain cross-entropy gradient is wrong from a logit gap of 17 on and 0 from 100 on; accuracy is as before."""
    model, x, y, difference, margin = linear
    with torch.no_grad():
        model.net[1].weight.mul_(scale)
        model.net[1].bias.mul_(scale)
    threat = ThreatModel(norm=norm, eps=eps)
    survived = model(attack.perturb(model, x, y, threat, Rng.for_images(0, torch.arange(COUNT)))).argmax(1) == y
    exact = margin > eps * difference.norm(p=dual)
    clear = (margin / (eps * difference.norm(p=dual)) - 1).abs() > 5e-3
    assert torch.equal(survived[clear], exact[clear])


def test_the_direction_is_that_of_the_cross_entropy(network, batch):
    x, y, _ = (t[:50] for t in batch)
    x = x.clone().requires_grad_()
    with frozen(network):
        (plain,) = torch.autograd.grad(F.cross_entropy(network(x).double(), y, reduction="sum"), x)
        ours, _ = ascent_gradient(network, x, y)
    cosine = F.cosine_similarity(plain.flatten(1), ours.flatten(1))
    assert cosine.min() > 0.9999


def test_a_gradient_that_is_not_a_number_is_an_error_not_robustness(linear):
    from core.errors import BadLogitsError

    class Root(nn.Module):
        def forward(self, x):
            return x + torch.sqrt(0 * x)  # finite values, NaN gradients

    model, x, y, _, _ = linear
    broken = Classifier(nn.Sequential(Root(), model.net))
    with pytest.raises(BadLogitsError, match="gradient"):
        PGD().perturb(broken, x, y, ThreatModel(norm="linf", eps=0.01), Rng.for_images(0, torch.arange(COUNT)))

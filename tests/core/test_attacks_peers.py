"""Agreement with torchattacks and foolbox on the same weights and images."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from core.attacks.apgd import APGD
from core.attacks.base import Run
from core.attacks.cw import CW
from core.attacks.fab_t import TargetedFAB
from core.attacks.fgsm import FGSM
from core.attacks.i_fgsm import IFGSM
from core.attacks.pgd import PGD
from core.attacks.square import Square
from core.models.classifier import frozen
from core.projections import norm_of
from core.rng import Rng
from core.threat import ThreatModel

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the peers' own, on import
    import foolbox
    import torchattacks

LINF, L2 = ThreatModel(norm="linf", eps=0.05), ThreatModel(norm="l2", eps=0.5)


@pytest.fixture
def correct(network, batch):
    """Images that the network classifies correctly."""
    x, y, ids = batch
    rows = network(x).argmax(1) == y
    return x[rows], y[rows], ids[rows]


def ours(attack, network, correct, threat):
    x, y, ids = correct
    x_adv = attack.perturb(network, x, y, threat, Rng.for_images(0, ids))
    return x_adv, (network(x_adv).argmax(1) == y).numpy()


def test_fgsm_is_torchattacks_fgsm(network, correct):
    x, y, _ = correct
    x_adv, survived = ours(FGSM(), network, correct, LINF)
    theirs = torchattacks.FGSM(network, eps=LINF.eps)(x, y)
    with torch.no_grad():
        top = network(x).topk(2).values
        their_survived = (network(theirs).argmax(1) == y).numpy()
    # on more confident images their cross-entropy has rounded part of the gradient away
    unsure = top[:, 0] - top[:, 1] < 10
    assert unsure.sum() > 50
    assert ((x_adv - theirs)[unsure].abs() > 1e-5).float().mean() < 1e-3
    assert abs(int(survived.sum()) - int(their_survived.sum())) <= 2


def test_i_fgsm_is_torchattacks_bim(network, correct):
    x, y, _ = correct
    _, survived = ours(IFGSM(steps=10, step_size=0.01), network, correct, LINF)
    theirs = torchattacks.BIM(network, eps=LINF.eps, alpha=0.01, steps=10)(x, y)
    their_survived = (network(theirs).argmax(1) == y).numpy()
    # ours keeps the first success, theirs the last iterate: ours may only be the stronger one
    assert not (survived & ~their_survived).any()
    assert np.mean(survived != their_survived) < 0.03


@pytest.mark.parametrize("eps", [0.01, 0.03])
def test_pgd_agrees_with_torchattacks(network, correct, eps):
    x, y, _ = correct
    threat = ThreatModel(norm="linf", eps=eps)
    _, survived = ours(PGD(steps=20, step_size="eps/4"), network, correct, threat)
    torch.manual_seed(0)
    theirs = torchattacks.PGD(network, eps=eps, alpha=eps / 4, steps=20, random_start=True)(x, y)
    their_survived = (network(theirs).argmax(1) == y).numpy()
    assert 0.02 < their_survived.mean() < 0.98, "the case must tell attacks apart"
    assert survived.mean() <= their_survived.mean() + 0.01
    assert survived.mean() >= their_survived.mean() - 0.03


@pytest.mark.parametrize(
    ("threat", "peer"),
    [
        (ThreatModel(norm="linf", eps=0.02), foolbox.attacks.LinfPGD),
        (L2, foolbox.attacks.L2PGD),
    ],
    ids=["linf", "l2"],
)
def test_pgd_agrees_with_foolbox(network, correct, threat, peer):
    x, y, _ = correct
    _, survived = ours(PGD(steps=20, step_size="eps/4"), network, correct, threat)
    torch.manual_seed(0)
    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    _, _, success = peer(rel_stepsize=0.25, steps=20)(model, x, y, epsilons=threat.eps)
    their_survived = ~success.numpy()
    assert 0.02 < their_survived.mean() < 0.98, "the case must tell attacks apart"
    assert survived.mean() <= their_survived.mean() + 0.01
    assert survived.mean() >= their_survived.mean() - 0.03


@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize(("norm", "name", "eps"), [("linf", "Linf", 0.02), ("l2", "L2", 0.5)])
def test_auto_pgd_agrees_with_torchattacks(loss, norm, name, eps, network, correct):
    x, y, _ = correct
    attack = APGD(name=f"apgd-{loss}", steps=20)
    _, survived = ours(attack, network, correct, ThreatModel(norm=norm, eps=eps))
    theirs = torchattacks.APGD(network, norm=name, eps=eps, steps=20, loss=loss, seed=0)(x, y)
    their_survived = (network(theirs).argmax(1) == y).numpy()
    assert 0.02 < their_survived.mean() < 0.98, "the case must tell attacks apart"
    assert abs(survived.mean() - their_survived.mean()) <= 0.03


@pytest.mark.parametrize(("norm", "name", "eps"), [("linf", "Linf", 0.015), ("l2", "L2", 0.4)])
def test_targeted_fab_agrees_with_torchattacks(norm, name, eps, network, correct):
    x, y, ids = (part[:60] for part in correct)
    _, survived = ours(TargetedFAB(steps=20), network, (x, y, ids), ThreatModel(norm=norm, eps=eps))
    peer = torchattacks.FAB(network, norm=name, eps=eps, steps=20, multi_targeted=True, n_classes=10)
    their_survived = (network(peer(x, y)).argmax(1) == y).numpy()
    assert 0.02 < their_survived.mean() < 0.98, "the case must tell attacks apart"
    assert abs(survived.mean() - their_survived.mean()) <= 0.05


@pytest.mark.parametrize(("norm", "name", "eps"), [("linf", "Linf", 0.05), ("l2", "L2", 1.0)])
def test_square_agrees_with_torchattacks(norm, name, eps, network, correct):
    x, y, ids = (part[:80] for part in correct)
    _, survived = ours(Square(queries=300), network, (x, y, ids), ThreatModel(norm=norm, eps=eps))
    theirs = torchattacks.Square(network, norm=name, eps=eps, n_queries=300, p_init=0.8, seed=0)(x, y)
    their_survived = (network(theirs).argmax(1) == y).numpy()
    assert 0.02 < their_survived.mean() < 0.98, "the case must tell attacks apart"
    assert abs(survived.mean() - their_survived.mean()) <= 0.08


@pytest.mark.long
def test_carlini_wagner_finds_norms_as_small_as_foolbox(network, correct):
    x, y, ids = (part[:20] for part in correct)
    tiny = ThreatModel(norm="l2", eps=1e-9)  # never enough: the search runs to its end
    attack = CW(steps=100, searches=5)
    with torch.no_grad(), frozen(network):
        x_adv = attack.craft(network, x, y, tiny, Rng.for_images(0, ids), Run(0, x)).x_adv
    assert (network(x_adv).argmax(1) != y).all()
    peer = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=5, steps=100, stepsize=0.05, initial_const=1.0)
    _, theirs, success = peer(foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu"), x, y, epsilons=None)
    assert success.all()
    assert norm_of(x_adv - x, "l2").median() <= 1.05 * norm_of(theirs - x, "l2").median()

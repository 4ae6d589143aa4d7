"""Conformance: every attack of the registry, whatever it is, keeps these promises."""

from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter

from core.attacks import ATTACKS, AnyAttack, Attack
from core.attacks.base import all_alike
from core.attacks.pgd import PGD
from core.attacks.transfer import Transfer
from core.errors import UnsupportedError
from core.models.base import ImageShape
from core.models.classifier import Classifier
from core.models.fmnist_cnn import FMNISTCNN
from core.projections import norm_of
from core.rng import Rng
from core.threat import ThreatModel

THREATS = [ThreatModel(norm="linf", eps=0.1), ThreatModel(norm="l2", eps=1.5), ThreatModel(norm="l1", eps=15.0)]
SHORT = {  # what they promise does not depend on their length
    "apgd-ce": {"steps": 12, "restarts": 2},
    "apgd-dlr": {"steps": 12},
    "apgd-t": {"steps": 12, "targets": 3},
    "fab": {"steps": 6, "restarts": 2},
    "fab-t": {"steps": 6, "targets": 3},
    "square": {"queries": 120},
    "noise": {"draws": 10},
    "cw": {"steps": 20, "searches": 2},
    "pgd": {"restarts": 2},
}
CASES = [
    pytest.param(cls.model_validate({"name": name, **SHORT.get(name, {})}), threat, id=f"{name}-{threat.norm}")
    for name in ATTACKS.names()
    for cls in [ATTACKS[name]]
    for threat in THREATS
    if threat.norm in cls.norms
]


def perturb(attack: Attack, network: Classifier, batch, threat: ThreatModel, rows=slice(0, 32), seed=1):
    x, y, ids = (t[rows] for t in batch)
    return attack.perturb(network, x, y, threat, Rng.for_images(seed, ids))


@pytest.mark.parametrize(("attack", "threat"), CASES)
def test_stays_in_the_box_and_in_the_ball_and_does_something(attack, threat, network, batch):
    x, y, _ = (t[:32] for t in batch)
    x_adv = perturb(attack, network, batch, threat)
    assert x_adv.shape == x.shape
    assert torch.isfinite(x_adv).all()
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    if attack.bounded:
        assert (norm_of(x_adv - x, threat.norm) <= threat.eps * (1 + 1e-5)).all()
    if attack.name == "noise":
        return  # it may well fool nobody
    before = (network(x).argmax(1) == y).sum()
    assert (network(x_adv).argmax(1) == y).sum() < before


@pytest.mark.parametrize(("attack", "threat"), CASES)
def test_depends_on_seed_and_image_only(attack, threat, network, batch):
    """Not on the batch's size or order: what an image gets, it gets in any company."""
    # in double precision: in single, batches round differently, and long searches amplify that
    network, batch = network.double(), (batch[0][:16].double(), *(rest[:16] for rest in batch[1:]))
    whole = perturb(attack, network, batch, threat)
    assert torch.equal(whole, perturb(attack, network, batch, threat))
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    for rows, expected in ((order, whole[order]), (slice(3, 10), whole[3:10])):
        again = perturb(attack, network, batch, threat, rows)
        # seen by the network: a pixel whose gradient is rounding noise may go either way
        assert (network(again) - network(expected)).abs().max() < 0.05


@pytest.mark.parametrize(("attack", "threat"), CASES)
def test_leaves_the_model_as_it_was(attack, threat, network, batch):
    network.train()
    network.net.conv2.eval()  # frozen on purpose: a blanket train() would undo it
    network.net.conv1.weight.requires_grad_(False)
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    perturb(attack, network, batch, threat, slice(0, 4))
    assert [module.training for module in network.modules()] == modes
    assert not network.net.conv1.weight.requires_grad
    assert network.net.conv3.weight.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(("attack", "threat"), CASES)
def test_survives_json(attack, threat):
    assert TypeAdapter(AnyAttack).validate_json(attack.model_dump_json()) == attack


@pytest.mark.parametrize(("attack", "threat"), CASES)
def test_eps_zero_changes_nothing(attack, threat, network, batch):
    if attack.bounded:
        none = ThreatModel(norm=threat.norm, eps=0)
        assert torch.equal(perturb(attack, network, batch, none, slice(0, 4)), batch[0][:4])


@pytest.mark.parametrize(("attack", "threat"), CASES)
def test_works_on_one_image_and_on_images_that_are_fooled_already(attack, threat, network, batch):
    x, _, ids = (t[:5] for t in batch)
    assert perturb(attack, network, batch, threat, slice(0, 1)).shape == (1, 1, 28, 28)
    wrong = (network(x).argmax(1) + 1) % 10
    x_adv = attack.perturb(network, x, wrong, threat, Rng.for_images(1, ids))
    assert x_adv.shape == x.shape


@pytest.mark.parametrize(("attack", "threat"), CASES)
def test_counts_no_more_passes_than_it_declares(attack, threat, network, batch):
    network.cost.fb = network.cost.forwards = 0
    perturb(attack, network, batch, threat)
    cost = network.cost
    alone = cost.forwards - cost.fb - 32 * (len(attack.work(10)) + 1)  # those between runs are the driver's
    assert attack.uses_gradients == (cost.fb > 0)
    assert cost.forwards > 0
    assert cost.fb + max(alone, 0) / 2 <= 32 * attack.fb_per_image(10)
    assert cost.weight_backwards == 0


def test_an_unknown_norm_is_refused(network, batch):
    class LinfOnly(ATTACKS["fgsm"]):
        norms = frozenset({"linf"})

    with pytest.raises(UnsupportedError, match="does not support norm 'l2'"):
        perturb(LinfOnly(), network, batch, THREATS[1])


def test_the_base_class_does_not_trust_the_attack(network, batch):
    class Cheater(ATTACKS["fgsm"]):
        def craft(self, model, x, y, threat, rng, run):
            return all_alike(x + 10, 1)

    x_adv = perturb(Cheater(), network, batch, THREATS[0])
    assert (norm_of(x_adv - batch[0][:32], "linf") <= 0.1 + 1e-6).all()


def test_a_transfer_attack_crafts_on_its_surrogate(network, batch):
    """Its examples are the inner attack's on the surrogate, and the attacked model's gradients are not asked for."""
    torch.manual_seed(0)
    other = Classifier(FMNISTCNN().build(10, ImageShape(1, 28, 28))).eval()
    attack = Transfer(steps=5, surrogate=other)
    network.cost.fb = 0
    x_adv = perturb(attack, network, batch, THREATS[0])
    assert network.cost.fb == 0
    assert other.cost.fb == 32 * 5
    with torch.no_grad():
        y = batch[1][:32]
        fooled = (other(x_adv).argmax(1) != y).float().mean()
        assert fooled >= (other(perturb(PGD(steps=5), other, batch, THREATS[0])).argmax(1) != y).float().mean() - 0.1
    assert "transfer" not in ATTACKS

"""In which mode defenses craft and update, and the gradient of each loss, which its value does not fix."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from core.attacks.ascent import ascend
from core.augmentation import View
from core.defenses import DEFENSES
from core.defenses.aft import AFT
from core.defenses.atta import ATTA
from core.defenses.base import Batch, Moment
from core.defenses.dra import DRATraining
from core.defenses.fast_at import FastAT
from core.defenses.fgsm_at import FGSMAT
from core.defenses.ifgsm_at import IFGSMAT
from core.defenses.mart import MART
from core.defenses.mixed import Mixed
from core.defenses.natural import Natural
from core.defenses.pgd_at import PGDAT
from core.defenses.rst import RST
from core.defenses.temper import Temper
from core.defenses.trades import TRADES
from core.inner_attacks.dra import InnerDRA
from core.inner_attacks.kl_pgd import KLPGD
from core.inner_attacks.pgd import InnerPGD
from core.models.classifier import Classifier, frozen
from core.projections import project, uniform_in_ball
from core.rng import Rng
from core.threat import ThreatModel
from core.values import resolve_step_size
from tests.core.test_defenses import losses_of, start

THREAT = ThreatModel(norm="linf", eps=0.1)
PGD_3, DRA_3 = {"name": "pgd", "steps": 3}, {"name": "dra", "steps": 3}
FORWARDS = [
    ({"name": "aft", "steps": 3}, 1, 3),
    ({"name": "atta", "steps": 3}, 1, 3),
    ({"name": "dra", "attack": DRA_3}, 2, 3),
    ({"name": "dra", "attack": DRA_3, "replay": "alternate"}, 2, 3),
    ({"name": "dra", "attack": DRA_3, "replay": "dual"}, 2, 3),
    ({"name": "fast-at"}, 1, 1),
    ({"name": "fgsm-at"}, 1, 1),
    ({"name": "free-at", "replays": 3}, 3, 0),
    ({"name": "ifgsm-at", "steps": 3}, 1, 3),
    ({"name": "mart", "attack": PGD_3}, 2, 3),
    ({"name": "mixed", "attack": PGD_3}, 2, 3),
    ({"name": "natural"}, 1, 0),
    ({"name": "patch-augment"}, 1, 0),
    ({"name": "pgd-at", "attack": PGD_3}, 1, 3),
    ({"name": "pgd-at", "attack": DRA_3}, 1, 3),
    ({"name": "rst", "attack": PGD_3}, 2, 3),
    ({"name": "temper", "steps": 3}, 1, 3),
    ({"name": "trades", "attack": {"name": "kl-pgd", "steps": 3}}, 2, 4),
    ({"name": "trades", "attack": DRA_3}, 2, 3),
    ({"name": "yopo", "full_passes": 3}, 3, 0),
]
"""Each defense, its forward passes for the update of one batch, and those for crafting; trades predicts x once more."""
CHOOSES = [row for row in FORWARDS if "craft_in" in DEFENSES[row[0]["name"]].model_fields]


@pytest.fixture
def few(batch) -> Batch:
    x, y, ids = (t[:8] for t in batch)
    rng = Rng.for_images(0, ids)
    return Batch(x, y, rng, torch.arange(8), View.drawn(x, (), rng))


def small(*, dropout: float) -> Classifier:
    """A network with BatchNorm and dropout whose statistics are not those of any batch."""
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(4)
    norm.running_mean.fill_(0.2)
    layers = [nn.Conv2d(1, 4, 5, stride=2), norm, nn.ReLU(), nn.Dropout(dropout), nn.Flatten(), nn.Linear(576, 10)]
    return Classifier(nn.Sequential(*layers)).train()


def forwards(defense, batch: Batch) -> tuple[int, list[bool]]:
    """The batches that BatchNorm has seen in train mode, and of each pass whether dropout was on."""
    model = small(dropout=0.5)
    norm, dropout = model.net[1], model.net[3]
    state, active = start(defense, model, batch), []
    assert norm.num_batches_tracked == 0, "what comes before the first batch leaves the statistics alone"
    dropout.register_forward_pre_hook(lambda layer, _: active.append(layer.training))
    list(losses_of(defense, model, batch, state=state))
    assert all(module.training for module in model.modules()), "the update runs in train mode"
    return int(norm.num_batches_tracked), active


def ident(row) -> str:
    """The defense, and what is not its default."""
    options = row[0]
    parts = [options["name"], options.get("replay"), options.get("attack", {}).get("name")]
    return " ".join(part for part in parts if part)


def test_every_defense_is_counted():
    assert {row[0]["name"] for row in FORWARDS} == {name for name in DEFENSES.names() if DEFENSES[name].trains}
    chosen = {"fast-at", "fgsm-at", "ifgsm-at", "mart", "mixed", "pgd-at", "rst", "trades"}
    assert {row[0]["name"] for row in CHOOSES} == chosen


@pytest.mark.parametrize("row", FORWARDS, ids=ident)
def test_examples_are_crafted_in_evaluation_mode_and_updates_run_in_train_mode(row, few):
    """BatchNorm moves with each forward pass of the update and with no other; dropout is on in the same ones."""
    content, updates, crafting = row
    tracked, active = forwards(DEFENSES[content["name"]].model_validate(content), few)
    assert tracked == updates
    assert (active.count(True), active.count(False)) == (updates, crafting)


@pytest.mark.parametrize("row", CHOOSES, ids=ident)
def test_examples_are_crafted_in_train_mode_where_the_spec_says_so(row, few):
    """As the reference recipes do: the passes of crafting move BatchNorm too, and dropout is on in all of them."""
    content, updates, crafting = row
    defense = DEFENSES[content["name"]].model_validate({**content, "craft_in": "train"})
    tracked, active = forwards(defense, few)
    assert tracked == updates + crafting
    assert active == [True] * (updates + crafting)


def smoothed(z: Tensor, y: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy with a share of the target on all classes alike, (n,)."""
    log_p = z.softmax(1).log()
    return -(1 - smoothing) * log_p[range(len(y)), y] - smoothing * log_p.mean(1)


def divergence(z: Tensor, z_adv: Tensor) -> Tensor:
    """sum of p log(p / q), (n,)."""
    p, q = z.softmax(1), z_adv.softmax(1)
    return (p * (p / q).log()).sum(1)


def adversarial(z: Tensor, z_adv: Tensor, y: Tensor, s: float) -> Tensor:
    return smoothed(z_adv, y, s).mean()


def clean_plus_divergence(z: Tensor, z_adv: Tensor, y: Tensor, s: float) -> Tensor:
    """TRADES with beta 4."""
    return smoothed(z, y, s).mean() + 4 * divergence(z, z_adv).mean()


def boosted_plus_doubted_divergence(z: Tensor, z_adv: Tensor, y: Tensor, s: float) -> Tensor:
    """MART with beta 5."""
    rows = range(len(y))
    p, q = z.softmax(1), z_adv.softmax(1)
    others = q.masked_fill(nn.functional.one_hot(y, 10).bool(), 0)
    boosted = smoothed(z_adv, y, s) - (1 - others.amax(1)).log()
    return (boosted + 5 * (1 - p[rows, y]) * divergence(z, z_adv)).mean()


def weighted(clean: float, beta: float):
    """A clean and an adversarial cross-entropy."""
    return lambda z, z_adv, y, s: clean * smoothed(z, y, s).mean() + beta * smoothed(z_adv, y, s).mean()


def crafted(attack):
    """By an inner attack; the moment's strength is a half."""
    return lambda model, batch: attack.craft(model, batch.x, batch.y, THREAT, batch.rng, strength=0.5)


def climbed(steps: int, step_size: float, begin=lambda batch: batch.x):
    """By gradient ascent from the clean images, or from elsewhere."""
    return lambda model, batch: ascend(model, begin(batch), batch.x, batch.y, THREAT, steps=steps, step_size=step_size)


def anywhere(batch: Batch) -> Tensor:
    return uniform_in_ball(batch.x, THREAT, batch.rng.fork("start"))


def nearby(batch: Batch) -> Tensor:
    return project(batch.x + 0.001 * batch.rng.fork("start").normal(1, 28, 28), batch.x, THREAT)


def slope(loss: Tensor, model: Classifier) -> Tensor:
    """The gradient with respect to all weights, flat."""
    return torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, list(model.parameters()))])


PGD, DRA, KL = InnerPGD(steps=3, step_size=0.03), InnerDRA(steps=3, mean_change=0.05), KLPGD(steps=3, step_size=0.03)
LOSSES = [
    (Natural(), None, adversarial),
    (AFT(steps=3), crafted(InnerPGD(steps=3, step_size=0.25 / 3)), adversarial),
    (Temper(), crafted(InnerPGD(steps=5, step_size=0.05)), adversarial),
    (PGDAT(attack=PGD), crafted(PGD), adversarial),
    (PGDAT(attack=DRA), crafted(DRA), adversarial),
    (FastAT(), climbed(1, 0.125, anywhere), adversarial),
    (FGSMAT(), climbed(1, 0.1), adversarial),
    (IFGSMAT(steps=5), climbed(5, 0.05), adversarial),
    (ATTA(steps=2, step_size=0.04), climbed(2, 0.04, nearby), adversarial),
    (TRADES(beta=4, attack=KL), crafted(KL), clean_plus_divergence),
    (TRADES(beta=4, attack=DRA), crafted(DRA), clean_plus_divergence),
    (MART(beta=5, attack=PGD), crafted(PGD), boosted_plus_doubted_divergence),
    (RST(beta=3, attack=PGD), crafted(PGD), weighted(1, 3)),
    (Mixed(attack=PGD), crafted(PGD), weighted(1, 1)),
    (DRATraining(attack=DRA), crafted(DRA), weighted(0.5, 0.5)),
    (DRATraining(attack=PGD), crafted(PGD), weighted(0.5, 0.5)),
]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize(
    ("defense", "craft", "formula"),
    LOSSES,
    ids=[f"{row[0].name} {row[0].attack.name}" if hasattr(row[0], "attack") else row[0].name for row in LOSSES],
)
def test_the_gradient_is_that_of_the_formula(defense, craft, formula, smoothing, few):
    """Each loss written out by hand; through both predictions and, in mart, through 1 - p_y: nothing detached.

    The network updates in train mode, so clean and adversarial images meet BatchNorm one after the other.
    """
    model = small(dropout=0)
    twin = copy.deepcopy(model)
    moment = Moment(0.0, 10, THREAT, strength=0.5, label_smoothing=smoothing)
    loss = next(defense.losses(model, few, moment, start(defense, model, few)))

    with frozen(twin):
        x_adv = few.x if craft is None else craft(twin, few)
    expected = formula(twin(few.x), twin(x_adv), few.y, smoothing)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    gradient, by_hand = slope(loss, model), slope(expected, twin)
    assert (gradient - by_hand).norm() < 1e-4 * by_hand.norm()


@pytest.mark.parametrize("attack", [InnerPGD, KLPGD], ids=["pgd", "kl-pgd"])
@pytest.mark.parametrize("steps", [1, 4, 10])
def test_the_default_step_of_an_inner_attack_is_two_and_a_half_eps_over_its_steps(attack, steps, few):
    """Enough to cross the ball and more, as Madry et al. have it; the same examples as with that number given."""
    given = attack(steps=steps, step_size=2.5 * 0.1 / steps)
    model = small(dropout=0)
    with frozen(model):
        by_default, by_hand = (
            each.craft(model, few.x, few.y, THREAT, few.rng) for each in (attack(steps=steps), given)
        )
    assert torch.equal(by_default, by_hand)


@pytest.mark.parametrize("defense", [AFT(), Temper(), IFGSMAT()], ids=lambda defense: defense.name)
def test_the_default_step_of_a_defense_is_two_and_a_half_eps_over_its_steps(defense):
    assert resolve_step_size(defense.step_size, eps=0.1, steps=defense.steps) == pytest.approx(0.25 / defense.steps)

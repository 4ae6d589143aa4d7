"""Conformance of all defenses, and each loss against its formula."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter
from torch import nn

from core.attacks.ascent import ascend
from core.attacks.dra import dynamically_regulated
from core.augmentation import View, augment
from core.data import ImageSet
from core.defenses import DEFENSES, AnyDefense
from core.defenses.aft import AFT
from core.defenses.atta import ATTA
from core.defenses.base import Batch, Moment, Setting
from core.defenses.dra import DRATraining
from core.defenses.fast_at import FastAT
from core.defenses.fgsm_at import FGSMAT
from core.defenses.free_at import FreeAT
from core.defenses.ifgsm_at import IFGSMAT
from core.defenses.mart import MART
from core.defenses.mixed import Mixed
from core.defenses.natural import Natural
from core.defenses.patch_augment import OPERATIONS, PatchAugment
from core.defenses.pgd_at import PGDAT
from core.defenses.rst import RST
from core.defenses.trades import TRADES
from core.defenses.yopo import YOPO
from core.errors import UnsupportedError
from core.first_layer import check_first_layer
from core.gradients import ascent_gradient
from core.inner_attacks.dra import InnerDRA
from core.inner_attacks.kl_pgd import KLPGD
from core.inner_attacks.pgd import InnerPGD
from core.models import ARCHITECTURES
from core.models.base import ImageShape
from core.models.classifier import Classifier, frozen
from core.optimizers import OPTIMIZERS
from core.projections import ascent_step, uniform_in_ball
from core.rng import Rng
from core.threat import ThreatModel

THREAT = ThreatModel(norm="linf", eps=0.1)
TRAINING = [DEFENSES[name].model_validate({"name": name}) for name in DEFENSES.names() if DEFENSES[name].trains]


@pytest.fixture
def ten(batch) -> Batch:
    x, y, ids = (t[:10] for t in batch)
    return Batch(x, y, Rng.for_images(0, ids), torch.arange(10), View.drawn(x, (), Rng.for_images(0, ids)))


def start(defense, network, batch):
    pixels = (batch.x * 255).byte().numpy()
    images = ImageSet(pixels, batch.y.numpy(), np.arange(len(batch.x)))
    return defense.start(network, Setting(images, ImageShape(1, 28, 28), 10, len(batch.x), ()))


def losses_of(defense, network, batch, moment=None, state=None):
    """All losses of one batch, the loop's part done between them."""
    state = start(defense, network, batch) if state is None else state
    for loss in defense.losses(network, batch, moment or Moment(0.0, 10, THREAT), state):
        loss.backward()
        yield loss.detach()


def loss_of(defense, network, batch, **moment):
    """The first loss of a batch."""
    moment = Moment(**{"epoch": 0.0, "epochs": 10, "threat": THREAT, **moment})
    return next(defense.losses(network, batch, moment, start(defense, network, batch)))


def assert_is(loss, formula, network):
    """The same value, and the same gradients: a part that is held constant shows in these alone."""
    assert loss.item() == pytest.approx(formula.item(), rel=1e-4)
    weights = [*network.net.parameters()]
    found, expected = (
        torch.cat([grad.flatten() for grad in torch.autograd.grad(each, weights)]) for each in (loss, formula)
    )
    assert (found - expected).norm() < 1e-3 * expected.norm()


@pytest.mark.parametrize("defense", TRAINING, ids=lambda d: d.name)
def test_loss_is_finite_deterministic_and_reaches_the_weights_only(defense, network, ten):
    network.train()
    loss = loss_of(defense, network, ten)
    assert loss.ndim == 0
    assert torch.isfinite(loss)
    assert torch.equal(loss, loss_of(defense, network, ten))
    assert all(parameter.grad is None for parameter in network.parameters()), "crafting must not leave gradients"
    loss.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert all(module.training for module in network.modules()), "the update runs in train mode"


@pytest.mark.parametrize("name", DEFENSES.names())
def test_survives_json_and_knows_every_domain(name):
    defense = DEFENSES[name].model_validate({"name": name})
    assert TypeAdapter(AnyDefense).validate_json(defense.model_dump_json()) == defense
    for domain in ("grey28", "cifar", "imagenet"):
        for small in (True, False):
            published = DEFENSES[name].published(domain, small=small)
            if DEFENSES[name].trains:
                assert published.lr.keys() == set(OPTIMIZERS.names())
                DEFENSES[name].model_validate({"name": name, **published.parameters})


def test_aft_is_cross_entropy_on_the_last_pgd_iterate(network, ten):
    start = uniform_in_ball(ten.x, THREAT, ten.rng.fork("start"))
    with frozen(network):
        x_adv = ascend(network, start, ten.x, ten.y, THREAT, steps=10, step_size=0.025)
    expected = F.cross_entropy(network(x_adv), ten.y)
    assert torch.allclose(loss_of(AFT(), network, ten), expected)


def test_aft_step_size_is_the_papers_at_8_255():
    """K = 10 and 2.5 * eps / K: 2/255."""
    from core.values import resolve_step_size

    assert resolve_step_size(AFT().step_size, eps=8 / 255, steps=AFT().steps) == pytest.approx(2 / 255)


def test_dra_is_half_clean_and_half_adversarial(network, ten):
    clean = F.cross_entropy(network(ten.x), ten.y)
    with frozen(network):
        x_adv = dynamically_regulated(network, ten.x, ten.y, mean_change=1 / 255, p=1 / 3, steps=5)
    expected = (clean + F.cross_entropy(network(x_adv), ten.y)) / 2
    assert torch.allclose(loss_of(DRATraining(), network, ten, strength=0.5), expected)


def last_iterate(network, ten, steps, step_size, *, random_start):
    start = uniform_in_ball(ten.x, THREAT, ten.rng.fork("start")) if random_start else ten.x
    with frozen(network):
        return ascend(network, start, ten.x, ten.y, THREAT, steps=steps, step_size=step_size)


@pytest.mark.parametrize(
    ("defense", "steps", "step_size", "random_start"),
    [
        (FGSMAT(), 1, 0.1, False),
        (IFGSMAT(steps=4, step_size=0.03), 4, 0.03, False),
        (PGDAT(attack=InnerPGD(steps=3, step_size="eps/2")), 3, 0.05, True),
        (FastAT(), 1, 0.125, True),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_cross_entropy_on_adversarial_examples(defense, steps, step_size, random_start, network, ten):
    x_adv = last_iterate(network, ten, steps, step_size, random_start=random_start)
    assert torch.allclose(loss_of(defense, network, ten), F.cross_entropy(network(x_adv), ten.y))


def test_pgd_at_with_the_attack_of_dra(network, ten):
    """Madry + DRA, table V of Hou et al.; the strength scales its mean change."""
    defense = PGDAT(attack=InnerDRA(mean_change=0.04, steps=2))
    with frozen(network):
        x_adv = dynamically_regulated(network, ten.x, ten.y, mean_change=0.02, p=1 / 3, steps=2)
    assert torch.allclose(loss_of(defense, network, ten, strength=0.5), F.cross_entropy(network(x_adv), ten.y))


def test_an_attack_that_may_change_no_pixel_costs_nothing():
    assert InnerDRA(p=0, steps=5).fb_per_example() == 0
    assert InnerDRA(p=0.5, steps=5).fb_per_example() == 5


@pytest.mark.parametrize("defense", [d for d in TRAINING if hasattr(d, "craft_in")], ids=lambda d: d.name)
def test_crafting_in_train_mode_moves_batch_norm(defense, ten):
    """The reference recipes craft in train mode, which updates running statistics; the default leaves them alone."""
    net = torch.nn.Sequential(torch.nn.BatchNorm2d(1), torch.nn.Flatten(), torch.nn.Linear(784, 10))
    passes = {}
    for craft_in in ("eval", "train"):
        model = Classifier(copy.deepcopy(net)).train()
        loss_of(defense.model_copy(update={"craft_in": craft_in}), model, ten)
        passes[craft_in] = int(model.net[0].num_batches_tracked)
    in_the_loss = 2 if defense.name in ("trades", "mart", "rst", "mixed") else 1
    assert passes["eval"] == in_the_loss
    assert passes["train"] >= defense.adversarial_fb()


def test_rst_and_mixed(network, ten):
    attack = InnerPGD(steps=2, step_size=0.05)
    clean = F.cross_entropy(network(ten.x), ten.y)
    adversarial = F.cross_entropy(network(last_iterate(network, ten, 2, 0.05, random_start=True)), ten.y)
    assert_is(loss_of(RST(beta=3, attack=attack), network, ten), clean + 3 * adversarial, network)
    clean = F.cross_entropy(network(ten.x), ten.y)
    adversarial = F.cross_entropy(network(last_iterate(network, ten, 2, 0.05, random_start=True)), ten.y)
    assert_is(loss_of(Mixed(attack=attack), network, ten), clean + adversarial, network)


def test_trades_is_clean_cross_entropy_plus_beta_times_kl_from_the_clean_prediction(network, ten):
    defense = TRADES(beta=4, attack=KLPGD(steps=3, step_size=0.03))
    with frozen(network):
        x_adv = defense.attack.craft(network, ten.x, ten.y, THREAT, ten.rng)
    p, q = network(ten.x).softmax(1), network(x_adv).softmax(1)
    expected = -p[range(10), ten.y].log().mean() + 4 * (p * (p / q).log()).sum(1).mean()
    assert_is(loss_of(defense, network, ten), expected, network)


def test_the_attack_of_trades_never_sees_the_labels_and_climbs_the_divergence(network, ten):
    attack = KLPGD(steps=5)
    with frozen(network), torch.no_grad():
        x_adv = attack.craft(network, ten.x, ten.y, THREAT, ten.rng)
        assert torch.equal(x_adv, attack.craft(network, ten.x, (ten.y + 1) % 10, THREAT, ten.rng))
        divergence = [
            F.kl_div(network(at).log_softmax(1), network(ten.x).softmax(1), reduction="batchmean")
            for at in (uniform_in_ball(ten.x, THREAT, ten.rng), x_adv)
        ]
    assert (x_adv - ten.x).abs().max() <= 0.1 + 1e-6
    assert divergence[1] > 10 * divergence[0]


def test_the_attack_of_trades_starts_from_faint_noise(network, ten):
    """0.001 times a normal deviate, as published: at the image itself the divergence has no slope."""
    x = torch.full_like(ten.x, 0.5)
    with frozen(network):
        x_adv = KLPGD(steps=1, step_size=1e-6).craft(network, x, ten.y, THREAT, ten.rng)
    assert torch.allclose(x_adv - x, 0.001 * ten.rng.fork("start").normal(1, 28, 28), atol=2e-6)


def test_mart_weighs_the_divergence_by_doubt(network, ten):
    defense = MART(beta=5, attack=InnerPGD(steps=2, step_size=0.05))
    x_adv = last_iterate(network, ten, 2, 0.05, random_start=True)
    p, q = network(ten.x).double().softmax(1), network(x_adv).double().softmax(1)
    rows = torch.arange(10)
    others = q.clone()
    others[rows, ten.y] = 0
    boosted = -q[rows, ten.y].log() - (1 - others.amax(1)).log()
    divergence = (p * (p / q).log()).sum(1)
    expected = (boosted + 5 * (1 - p[rows, ten.y]) * divergence).mean()
    assert_is(loss_of(defense, network, ten), expected, network)


def test_free_at_uses_one_backward_pass_for_both_and_keeps_its_perturbation(network, ten):
    """Two replays by hand; the weights stay, since nobody takes the optimizer's steps."""
    defense = FreeAT(replays=2)
    state = start(defense, network, ten)
    losses = list(losses_of(defense, network, ten, state=state))
    delta = torch.zeros_like(ten.x)
    for loss in losses:
        x_adv = (ten.x + delta).clamp(0, 1).requires_grad_(True)
        assert torch.allclose(loss, F.cross_entropy(network(x_adv), ten.y))
        with frozen(network):
            grad, _ = ascent_gradient(network, x_adv, ten.y)
        delta = (delta + 0.1 * grad.sign()).clamp(-0.1, 0.1)
    assert torch.equal(state["delta"], delta)
    assert (state["delta"][ten.x == 0] > 0).any(), "black pixels are attacked too"
    delta = state["delta"]
    again = next(losses_of(defense, network, ten, state=state))
    assert torch.allclose(again, F.cross_entropy(network((ten.x + delta).clamp(0, 1)), ten.y))


def test_free_at_takes_a_shorter_last_batch(network, ten):
    state = start(FreeAT(), network, ten)
    short = Batch(ten.x[:3], ten.y[:3], ten.rng[torch.arange(3)], ten.rows[:3], None)
    list(losses_of(FreeAT(replays=2), network, short, state=state))
    assert state["delta"].shape == ten.x.shape
    assert (state["delta"][:3] != 0).any()
    assert (state["delta"][3:] == 0).all()


@pytest.mark.parametrize("name", ["fmnist-cnn", "vgg16-cifar", "resnet18-cifar"])
def test_yopo_descends_the_hamiltonian_through_the_first_layer(name):
    """As the paper has it: p at the first layer's output, and n steps through that layer alone, run again each time."""
    torch.manual_seed(0)
    shape = ImageShape(1, 28, 28) if name == "fmnist-cnn" else ImageShape(3, 32, 32)
    net = ARCHITECTURES[name].model_validate({"name": name}).build(10, shape)
    model = Classifier(net, mean=[0.4], std=[0.3]).eval()
    x, y, ids = torch.rand(4, shape.channels, shape.height, shape.width), torch.arange(4), torch.arange(4)
    batch = Batch(x, y, Rng.for_images(0, ids), ids, None)
    layer = check_first_layer(model, x)
    defense = YOPO(full_passes=2, layer_steps=3, step_size=0.02)
    losses = list(losses_of(defense, model, batch))
    assert model.cost.fb == 2 * 4

    start = uniform_in_ball(x, THREAT, batch.rng.fork("start"))
    assert torch.allclose(losses[0], F.cross_entropy(model(start), y))
    output = layer((start - 0.4) / 0.3)
    handle = layer.register_forward_hook(lambda *_: output.clone())
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(start), y), output)
    handle.remove()
    x_adv = start
    for _ in range(3):
        x_adv.requires_grad_(True)
        hamiltonian = (-gradient * layer((x_adv - 0.4) / 0.3)).sum()
        (grad,) = torch.autograd.grad(hamiltonian, x_adv)
        x_adv = (x_adv.detach() - 0.02 * grad.sign()).clamp(x - 0.1, x + 0.1).clamp(0, 1)
    assert losses[1].item() == pytest.approx(F.cross_entropy(model(x_adv), y).item(), rel=1e-3)
    assert losses[1] > losses[0]


def test_atta_starts_from_the_last_epochs_perturbation_wherever_the_crop_was(network, ten):
    defense = ATTA(steps=1, step_size=0.04, reset_every=3)
    state = {"delta": torch.zeros(10, 1, 36, 36, dtype=torch.float16)}
    ends = []
    for epoch in range(4):
        rng = Rng.for_images(epoch, ten.rows)
        x, view = augment(ten.x, ("crop", "flip"), rng)
        batch = Batch(x, ten.y, rng, ten.rows, view)
        begun = epoch % 3 == 0
        kept = view.look(state["delta"], 28).float()
        begin = x + 0.001 * rng.fork("start").normal(1, 28, 28) if begun else x + kept
        with frozen(network):
            begin = begin.clamp(x - 0.1, x + 0.1).clamp(0, 1)
            x_adv = ascend(network, begin, x, ten.y, THREAT, steps=1, step_size=0.04)
        (loss,) = losses_of(defense, network, batch, Moment(float(epoch), 10, THREAT), state)
        assert torch.allclose(loss, F.cross_entropy(network(x_adv), ten.y))
        assert torch.allclose(view.look(state["delta"], 28).float(), x_adv - x, atol=2e-4)
        ends.append(float((x_adv - x).abs().mean()))
    assert ends[2] > 1.3 * ends[0], "perturbations add up over epochs"
    assert ends[3] == pytest.approx(ends[0], rel=0.3), "and begin anew"


def test_atta_says_when_memory_does_not_suffice(network, ten):
    images = ImageSet(np.zeros((1, 1, 28, 28), np.uint8), np.zeros(1, np.int64), np.zeros(2**31, np.int8))
    setting = Setting(images, ImageShape(3, 224, 224), 10, 128, ("crop",))
    with pytest.raises(UnsupportedError, match=f"2147483648 training images, {2 * 2 * 3 * 232**2}.0 GiB in all"):
        ATTA().check(network, setting)


def test_dra_alternates(network, ten):
    defense = DRATraining(attack=InnerDRA(steps=2), replay="alternate")
    clean, adversarial = losses_of(defense, network, ten)
    with frozen(network):
        x_adv = dynamically_regulated(network, ten.x, ten.y, mean_change=2 / 255, p=1 / 3, steps=2)
    assert torch.allclose(clean, F.cross_entropy(network(ten.x), ten.y))
    assert torch.allclose(adversarial, F.cross_entropy(network(x_adv), ten.y))


def test_dra_with_the_dual_variable(network, ten):
    """Eq. 8-9: the weight of the clean loss grows while that is above the uploaded network's."""
    defense = DRATraining(attack=InnerDRA(steps=2), replay="dual", dual_step=0.5)
    state = start(defense, network, ten)
    clean = F.cross_entropy(network(ten.x), ten.y)
    assert torch.allclose(state["clean_loss"], clean, atol=1e-2)  # of 8-bit pixels
    state["clean_loss"] -= 0.2
    with frozen(network):
        x_adv = dynamically_regulated(network, ten.x, ten.y, mean_change=2 / 255, p=1 / 3, steps=2)
    adversarial = F.cross_entropy(network(x_adv), ten.y)
    excess = clean - state["clean_loss"]
    assert_is(next(defense.losses(network, ten, Moment(0.0, 10, THREAT), state)), adversarial + excess, network)
    list(losses_of(defense, network, ten, state=state))
    assert torch.allclose(state["lambda"], 1 + 0.5 * excess)
    state["clean_loss"] += 100
    list(losses_of(defense, network, ten, state=state))
    assert state["lambda"] == 0


def test_the_dual_variables_margin_is_measured_as_in_training(network, ten):
    """Augmented and in train mode: else the weight would grow by what augmentation alone costs."""
    torch.manual_seed(0)
    net = Classifier(nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(784, 10))).eval()
    images = ImageSet((ten.x * 255).byte().numpy(), ten.y.numpy(), np.arange(10))
    setting = Setting(images, ImageShape(1, 28, 28), 10, 10, ("crop",))
    state = DRATraining(replay="dual").start(net, setting)
    x = augment((ten.x * 255).byte().float() / 255, ("crop",), Rng.for_images(0, torch.arange(10)))[0]
    expected = F.cross_entropy(nn.functional.batch_norm(x, None, None, training=True).flatten(1) @ net.net[2].weight.T
                               + net.net[2].bias, ten.y)  # fmt: skip
    assert torch.allclose(state["clean_loss"], expected, atol=1e-4)
    assert net.net[0].running_mean == 0, "the network itself is not touched"
    assert not net.training


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_precise_cross_entropy_is_cross_entropy(smoothing):
    z = torch.tensor([[3.0, -1.0, 0.5], [0.0, 2.0, -4.0]], requires_grad=True)
    y = torch.tensor([2, 1])
    moment = Moment(0.0, 1, THREAT, label_smoothing=smoothing)
    ours, usual = moment.precise_cross_entropy(z, y), moment.cross_entropy(z, y)
    assert torch.allclose(ours, usual)
    gradients = [torch.autograd.grad(loss, z)[0] for loss in (ours, usual)]
    assert torch.allclose(*gradients, atol=1e-6)


@pytest.mark.parametrize("defense", [FreeAT(replays=2), YOPO(full_passes=2, layer_steps=1)], ids=lambda d: d.name)
def test_a_confident_network_is_attacked_in_the_right_direction(defense, network, batch):
    """Cross-entropy of large logits has a gradient of rounding errors in float32; of 86% of the signs, here."""
    with torch.no_grad():
        network.net.fc2.weight.mul_(3)
        network.net.fc2.bias.mul_(3)
    x, y, ids = (t[:50] for t in batch)
    seen: list[torch.Tensor] = []
    handle = network.net.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].detach()))
    fifty = Batch(x, y, Rng.for_images(0, ids), torch.arange(50), View.drawn(x, (), Rng.for_images(0, ids)))
    list(losses_of(defense, network, fifty))
    handle.remove()
    with frozen(network):
        grad, _ = ascent_gradient(network, seen[0], y)
    step = 0.1 if defense.name == "free-at" else 0.1 / 4
    expected = ascent_step(seen[0], grad, x, THREAT, step)
    assert (torch.isclose(seen[1], expected, atol=1e-5)).float().mean() > 0.98


def test_trades_attack_is_as_strong_in_bfloat16(network, batch):
    """Its first step is on a difference that bfloat16 would round away."""
    x, y, ids = batch
    left = []
    for mixed in (False, True):
        network.mixed_precision = mixed
        with frozen(network):
            x_adv = KLPGD(steps=5).craft(network, x, y, THREAT, Rng.for_images(0, ids))
        assert network.mixed_precision is mixed
        network.mixed_precision = False
        left.append((network(x_adv).argmax(1) == y).float().mean().item())
    assert left[1] <= left[0] + 0.02


@pytest.mark.parametrize("defense", [d for d in TRAINING if d.has_adversary], ids=lambda d: d.name)
def test_without_strength_it_is_clean_training(defense, network, ten):
    moment = Moment(0.0, 10, ThreatModel(eps=0), strength=0)
    losses = list(defense.losses(network, ten, moment, start(defense, network, ten)))
    assert torch.allclose(torch.stack(losses), F.cross_entropy(network(ten.x), ten.y))
    assert defense.fb_per_example(0) == 1


def test_label_smoothing_reaches_every_cross_entropy(network, ten):
    plain, smooth = (loss_of(Natural(), network, ten, label_smoothing=s) for s in (0.0, 0.2))
    log_p = network(ten.x).log_softmax(1)
    uniform = -log_p.mean(1).mean()
    assert torch.allclose(smooth, 0.8 * plain + 0.2 * uniform)
    for defense in TRAINING:
        assert loss_of(defense, network, ten, label_smoothing=0.2) != loss_of(defense, network, ten), defense.name


def test_patch_augment_trains_on_originals_and_modified(network, ten):
    defense = PatchAugment()
    modified = defense.modify(ten.x, ten.rng.fork("patch"))
    expected = F.cross_entropy(network(torch.cat([ten.x, modified])), torch.cat([ten.y, ten.y]))
    assert torch.allclose(loss_of(defense, network, ten), expected)


@pytest.fixture
def many() -> tuple[torch.Tensor, Rng]:
    ids = torch.arange(500)
    return Rng.for_images(5, ids).uniform(3, 32, 32), Rng.for_images(6, ids)


def chosen(rng: Rng) -> torch.Tensor:
    """The operation that ``_operate`` draws from this stream."""
    return rng.fork("operation").integers(0, len(OPERATIONS) - 1)


def test_patch_augment_changes_only_a_patch_near_the_centre(many):
    x, rng = many
    changed = (PatchAugment().modify(x, rng) != x).any(1)
    rows, columns = changed.any(2), changed.any(1)
    for lines in (rows, columns):
        first, last = lines.float().argmax(1), 31 - lines.flip(1).float().argmax(1)
        assert (last - first < 16).all()
        assert first[lines.any(1)].min() >= 8 - 4
        assert last[lines.any(1)].max() <= 23 + 4
    assert changed.any(2).any(1).float().mean() > 0.9
    counts = torch.bincount(chosen(rng.fork(0)), minlength=5)
    assert counts.min() > 70, "operations are drawn uniformly"


def test_patch_augment_operations(many):
    """On a patch whose values are known: a flip is exact, masking blackens half, noise is as strong as drawn."""
    x, rng = many
    defense = PatchAugment()
    patch = x[:, :, :16, :16]
    result = defense._operate(patch, rng)
    operation = chosen(rng)
    flipped = result[operation == OPERATIONS.index("flip")]
    original = patch[operation == OPERATIONS.index("flip")]
    horizontal = (flipped - original.flip(3)).abs().amax((1, 2, 3)) < 1e-4
    vertical = (flipped - original.flip(2)).abs().amax((1, 2, 3)) < 1e-4
    assert (horizontal | vertical).all()
    assert 0.3 < horizontal.float().mean() < 0.7
    masked = result[operation == OPERATIONS.index("masking")] == 0
    assert 0.47 < masked.float().mean() < 0.53
    assert (masked.all(1) | ~masked.any(1)).all(), "a masked pixel is masked in every channel"
    noise = (result - patch)[operation == OPERATIONS.index("noise")].std((1, 2, 3))
    assert noise.max() <= 0.11
    assert noise.mean() > 0.03
    shifted = result[operation == OPERATIONS.index("translation")]
    before = patch[operation == OPERATIONS.index("translation")]
    for image, was in zip(shifted[:20], before[:20], strict=True):
        candidates = [
            (dx, dy)
            for dx in range(-4, 5)
            for dy in range(-4, 5)
            if torch.allclose(image[:, 4:12, 4:12], was[:, 4 + dy : 12 + dy, 4 + dx : 12 + dx], atol=1e-4)
        ]
        assert len(candidates) == 1, "a translation is by whole pixels, at most w/4"


def test_patch_augment_with_four_smaller_patches(many):
    x, rng = many
    changed = (PatchAugment(patches=4).modify(x, rng) != x).any(1)
    assert changed.flatten(1).sum(1).max() <= 4 * 8 * 8
    assert changed.flatten(1).sum(1).max() > 8 * 8

"""Conformance of all defenses, and each loss against its formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter

from core.attacks.ascent import ascend
from core.attacks.dra import dynamically_regulated
from core.defenses import DEFENSES, AnyDefense
from core.defenses.aft import AFT
from core.defenses.base import Batch, Moment
from core.defenses.dra import DRATraining
from core.defenses.patch_augment import OPERATIONS, PatchAugment
from core.models.classifier import frozen
from core.projections import uniform_in_ball
from core.rng import Rng
from core.threat import ThreatModel

THREAT = ThreatModel(norm="linf", eps=0.1)
TRAINING = [DEFENSES[name].model_validate({"name": name}) for name in DEFENSES.names() if DEFENSES[name].trains]


@pytest.fixture
def ten(batch) -> Batch:
    x, y, ids = (t[:10] for t in batch)
    return Batch(x, y, Rng.for_images(0, ids))


def loss_of(defense, network, batch, epoch=0.0, epochs=10):
    (loss,) = defense.losses(network, batch, Moment(epoch, epochs, THREAT))
    return loss


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
                assert published.lr.keys() == {"adam", "rmsprop", "sgd"}
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


def test_dra_is_half_clean_and_half_adversarial_then_clean_only(network, ten):
    defense = DRATraining()
    clean = F.cross_entropy(network(ten.x), ten.y)
    with frozen(network):
        x_adv = dynamically_regulated(network, ten.x, ten.y, mean_change=2 / 255, p=1 / 3, steps=5)
    expected = (clean + F.cross_entropy(network(x_adv), ten.y)) / 2
    assert torch.allclose(loss_of(defense, network, ten), expected)
    assert torch.allclose(loss_of(defense, network, ten, epoch=8.5), clean)


def test_dra_strength_over_the_papers_60_epochs():
    """Linearly 2 -> 0.5 (/255) over the first 50 epochs, the last 10 clean only."""
    defense = DRATraining()
    strength = [255 * defense.mean_change_at(epoch / 60) for epoch in (0, 25, 49.99, 50, 59)]
    assert strength == pytest.approx([2, 1.25, 0.5, 0, 0], abs=1e-3)


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

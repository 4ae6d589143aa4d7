"""Losses on tensors worked out by hand, and where float32 would give up."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from core.losses import boost, divergence_ascent, doubt, kl_divergence


def logits(*probabilities: list[float]) -> torch.Tensor:
    return torch.tensor(probabilities).log()


def test_kl_divergence_by_hand_and_its_direction():
    """KL((1/2, 1/2), (1/4, 3/4)) = 1/2 log 2 + 1/2 log 2/3; the other way round it is another number."""
    half, quarter = logits([0.5, 0.5]), logits([0.25, 0.75])
    assert kl_divergence(half, quarter).item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert kl_divergence(quarter, half).item() == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))
    assert kl_divergence(half, half).item() == 0


def test_kl_divergence_is_torchs():
    clean, adversarial = torch.randn(5, 7), torch.randn(5, 7)
    expected = F.kl_div(adversarial.log_softmax(1), clean.softmax(1), reduction="none").sum(1)
    assert torch.allclose(kl_divergence(clean, adversarial), expected, atol=1e-6)


def test_boost_and_doubt_by_hand():
    """-log(1 - max over k != y of p_k), and 1 - p_y."""
    z, y = logits([0.2, 0.5, 0.3], [0.7, 0.1, 0.2]), torch.tensor([0, 0])
    assert boost(z, y).tolist() == pytest.approx([-math.log(0.5), -math.log(0.8)])
    assert doubt(z, y).tolist() == pytest.approx([0.8, 0.3])


def test_boost_and_doubt_stay_finite_for_a_confident_model():
    z, y = torch.tensor([[0.0, 200.0, 0.0]], requires_grad=True), torch.tensor([0])
    value = boost(z, y).sum()
    assert value.item() == pytest.approx(200 - math.log(2))
    assert torch.isfinite(torch.autograd.grad(value, z)[0]).all()
    assert doubt(z, torch.tensor([1])).item() == pytest.approx(2 * math.exp(-200), abs=1e-38)


def test_the_divergence_that_is_climbed_has_the_direction_of_kl():
    z, clean = torch.randn(6, 4, requires_grad=True), torch.randn(6, 4)
    (ours,) = torch.autograd.grad(divergence_ascent(z, clean).sum(), z)
    (exact,) = torch.autograd.grad(kl_divergence(clean, z).sum(), z)
    cosine = F.cosine_similarity(ours, exact)
    assert cosine.min() > 1 - 1e-5
    assert ours.abs().amax(1).tolist() == pytest.approx([1] * 6)


def test_the_divergence_of_a_confident_model_still_points():
    """softmax is 1 at the top class on both sides, so KL's gradient there is exactly 0 in float32."""
    clean = torch.tensor([[40.0, 0.0, 0.0]])
    z = torch.tensor([[40.0, 1.0, 0.0]], requires_grad=True)
    (naive,) = torch.autograd.grad(kl_divergence(clean, z).sum(), z)
    assert naive[0, 0] == 0
    (ours,) = torch.autograd.grad(divergence_ascent(z, clean).sum(), z)
    assert ours[0].tolist() == pytest.approx([-1, 1, 0], abs=1e-4)

"""Projections and random points: in the ball, nearest, and uniform in it."""

from __future__ import annotations

import pytest
import torch

from core.projections import ascent_step, best_linear, norm_of, project, steepest, uniform_in_ball
from core.rng import Rng
from core.threat import ThreatModel

LINF, L2 = ThreatModel(norm="linf", eps=0.1), ThreatModel(norm="l2", eps=0.1)
RNG = Rng.for_images(0, torch.arange(4000))
MIDDLE = torch.full((4000, 1, 2, 2), 0.5)  # four dimensions, the box inactive


def test_a_random_start_is_uniform_in_the_l2_ball():
    """(radius / eps) ** d is uniform; drawing the radius uniformly instead crowds the centre."""
    radius = norm_of(uniform_in_ball(MIDDLE, L2, RNG) - MIDDLE, "l2")
    assert radius.max() <= 0.1 * (1 + 1e-5)
    quantiles = ((radius / 0.1) ** 4).sort().values
    expected = (torch.arange(4000) + 0.5) / 4000
    assert (quantiles - expected).abs().max() < 0.03  # Kolmogorov-Smirnov: 0.026 at 1%
    direction = (uniform_in_ball(MIDDLE, L2, RNG) - MIDDLE).flatten(1).mean(0)
    assert direction.abs().max() < 0.003


def test_a_random_start_is_uniform_in_the_linf_ball():
    noise = (uniform_in_ball(MIDDLE, LINF, RNG) - MIDDLE).flatten()
    quantiles = ((noise / 0.1 + 1) / 2).sort().values
    expected = (torch.arange(16000) + 0.5) / 16000
    assert (quantiles - expected).abs().max() < 0.015


@pytest.mark.parametrize("threat", [LINF, L2], ids=lambda threat: threat.norm)
def test_projection(threat):
    x = RNG.uniform(1, 2, 2)
    far = x + RNG.fork("far").normal(1, 2, 2)
    near = project(far, x, threat)
    assert near.min() >= 0
    assert near.max() <= 1
    assert (norm_of(near - x, threat.norm) <= 0.1 * (1 + 1e-5)).all()
    assert torch.allclose(project(near, x, threat), near, atol=1e-6)
    inside = project(x + 0.01 * (far - x), x, ThreatModel(norm=threat.norm, eps=10))
    assert torch.allclose(inside, (x + 0.01 * (far - x)).clamp(0, 1), atol=1e-6), "what is inside stays"
    away = project(MIDDLE + (far - x), MIDDLE, threat) - MIDDLE
    if threat.norm == "l2":  # the nearest point lies on the same ray
        assert torch.nn.functional.cosine_similarity(away.flatten(1), (far - x).flatten(1)).min() > 0.999
    else:
        assert torch.allclose(away, (far - x).clamp(-0.1, 0.1), atol=1e-6)


def test_the_steepest_step_has_norm_one_and_is_zero_where_the_gradient_is():
    grad = RNG.normal(1, 2, 2) * 10.0 ** torch.linspace(-40, 30, 4000).view(-1, 1, 1, 1)
    grad[7] = 0
    for norm in ("linf", "l2"):
        step = steepest(grad, norm)
        assert torch.isfinite(step).all()
        assert (step[7] == 0).all()
        present = grad.flatten(1).abs().amax(1) > 1e-37
        assert torch.allclose(norm_of(step, norm)[present], torch.tensor(1.0), atol=1e-4)


L1 = ThreatModel(norm="l1", eps=0.1)


def test_a_random_start_is_uniform_in_the_l1_ball():
    """As for l2, (radius / eps) ** d is uniform in d dimensions, and all orthants are alike."""
    noise = uniform_in_ball(MIDDLE, L1, RNG) - MIDDLE
    radius = norm_of(noise, "l1")
    assert radius.max() <= 0.1 * (1 + 1e-5)
    expected = (torch.arange(4000) + 0.5) / 4000
    assert (((radius / 0.1) ** 4).sort().values - expected).abs().max() < 0.03
    assert ((noise > 0).float().mean(0) - 0.5).abs().max() < 0.03


@pytest.mark.parametrize("eps", [0.05, 0.5, 2.0])
def test_the_l1_projection_is_the_nearest_point_of_ball_and_box(eps):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(50, 1, 3, 3, generator=generator, dtype=torch.float64)
    far = x + 0.7 * torch.randn(50, 1, 3, 3, generator=generator, dtype=torch.float64)
    ball = ThreatModel(norm="l1", eps=eps)
    near = project(far, x, ball)
    assert (norm_of(near - x, "l1") <= eps * (1 + 1e-5)).all()
    assert near.min() >= 0
    assert near.max() <= 1
    outside = (norm_of(far.clamp(0, 1) - x, "l1") > eps * (1 + 1e-5)).nonzero()[:, 0]
    assert len(outside) > 5
    assert (norm_of(near - x, "l1")[outside] > eps * (1 - 1e-5)).all(), "none of eps is wasted"
    # variational inequality: the angle from the projection to any feasible point is not acute
    for seed in range(200):
        rng = Rng.for_images(seed, torch.arange(50))
        other = uniform_in_ball(x, ball, rng)
        inner = ((far - near) * (other - near)).flatten(1).sum(1)
        assert inner.max() < 1e-5
    assert torch.allclose(project(near, x, ball), near, atol=1e-6)


def test_the_best_linear_step_in_l1_fills_the_largest_coordinates_first():
    x = torch.tensor([[[[0.9, 0.5, 0.5, 0.2]]]])
    grad = torch.tensor([[[[5.0, -3.0, 2.0, 0.0]]]])
    best = best_linear(x, grad, ThreatModel(norm="l1", eps=0.8))
    assert torch.allclose(best, torch.tensor([[[[1.0, 0.0, 0.7, 0.2]]]]))


def test_an_l1_step_is_not_spent_on_pixels_that_cannot_move():
    x = torch.full((1, 1, 10, 10), 0.5)
    x[..., :5] = 1.0  # the largest gradients push these further out of the box
    grad = torch.ones_like(x)
    grad[..., :5] = 9.0
    stepped = ascent_step(x, grad, x, ThreatModel(norm="l1", eps=2.0), 1.5)
    assert norm_of(stepped - x, "l1").item() == pytest.approx(1.5)
    assert torch.equal(stepped[..., :5], x[..., :5])
    for norm in ("linf", "l2"):
        threat = ThreatModel(norm=norm, eps=0.3)
        expected = project(x + 0.2 * steepest(grad, norm), x, threat)
        assert torch.equal(ascent_step(x, grad, x, threat, 0.2), expected)

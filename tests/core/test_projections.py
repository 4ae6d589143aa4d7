"""Projections and random points: in the ball, nearest, and uniform in it."""

from __future__ import annotations

import pytest
import torch

from core.projections import norm_of, project, steepest, uniform_in_ball
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

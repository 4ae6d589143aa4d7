"""The way onto a hyperplane: it arrives, it stays in the box, and nothing shorter does."""

from __future__ import annotations

import pytest
import torch

from core.hyperplanes import shortest_way

NORMS = {"linf": torch.inf, "l2": 2, "l1": 1}
COUNT, SIZE = 60, 7


@pytest.fixture
def planes():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(COUNT, SIZE, generator=generator, dtype=torch.float64)
    w = torch.randn(COUNT, SIZE, generator=generator, dtype=torch.float64)
    w[torch.rand(COUNT, SIZE, generator=generator) < 0.2] = 0
    goal = torch.rand(COUNT, SIZE, generator=generator, dtype=torch.float64)
    return x, w, (w * (goal - x)).sum(1)  # a point of the box lies on every plane


@pytest.mark.parametrize("norm", NORMS)
def test_it_arrives_within_the_box(norm, planes):
    x, w, gap = planes
    way = shortest_way(x, w, gap, norm)
    assert ((w * way).sum(1) - gap).abs().max() < 1e-5
    assert (x + way).min() >= -1e-12
    assert (x + way).max() <= 1 + 1e-12


@pytest.mark.parametrize("norm", NORMS)
def test_nothing_shorter_arrives(norm, planes):
    """Every direction within the plane, followed while the box allows, is at least as long."""
    x, w, gap = planes
    way = shortest_way(x, w, gap, norm)
    length = way.norm(p=NORMS[norm], dim=1)
    generator = torch.Generator().manual_seed(1)
    for _ in range(300):
        turn = torch.randn(COUNT, SIZE, generator=generator, dtype=torch.float64)
        turn = turn - w * ((turn * w).sum(1) / (w * w).sum(1).clamp_min(1e-12))[:, None]
        for size in (1e-3, 1e-2, 0.1):
            other = way + size * turn
            inside = ((x + other) >= 0).all(1) & ((x + other) <= 1).all(1)
            assert (other.norm(p=NORMS[norm], dim=1) >= length - 1e-5)[inside].all()


def test_where_no_point_of_the_box_reaches_it_goes_as_far_as_it_can():
    x, w = torch.full((1, 3), 0.25), torch.tensor([[1.0, -1.0, 0.0]])
    for norm in NORMS:
        way = shortest_way(x, w, torch.tensor([10.0]), norm)
        assert torch.allclose(way, torch.tensor([[0.75, -0.25, 0.0]]))


def test_tiny_gradients_do_not_underflow():
    x, w = torch.full((1, 4), 0.5), torch.full((1, 4), 1e-25)
    for norm, expected in (("linf", 0.1), ("l2", 0.1), ("l1", 0.4)):
        way = shortest_way(x, w, torch.tensor([4e-26]), norm)
        assert way.sum().item() == pytest.approx(0.4, rel=1e-4)
        assert way.max().item() == pytest.approx(expected, rel=1e-4)


def test_a_plane_out_of_reach_gives_numbers():
    way = shortest_way(torch.full((1, 3), 0.5), torch.tensor([[1e-10, 1e-25, 0.0]]), torch.tensor([1.0]), "l2")
    assert torch.isfinite(way).all()

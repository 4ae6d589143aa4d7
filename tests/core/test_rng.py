"""Random streams: reproducible, independent of company, and as uniform as they say."""

from __future__ import annotations

import torch

from core.rng import Rng, derive_seed


def test_splitmix64_reference_values():
    """The published sequence of splitmix64 for seed 1234567 (Vigna's reference implementation)."""
    bits = Rng(torch.tensor([1234567]))._bits((5,))
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert [value % 2**64 for value in bits[0].tolist()] == published


def test_an_image_has_its_own_stream():
    rng = Rng.for_images(7, torch.arange(10))
    whole = rng.uniform(3, 4)
    assert torch.equal(rng[torch.tensor([2, 5])].uniform(3, 4), whole[[2, 5]])
    assert torch.equal(Rng.for_images(7, torch.tensor([5])).uniform(3, 4)[0], whole[5])
    assert not torch.equal(rng.fork("a").uniform(3, 4), rng.fork("b").uniform(3, 4))
    assert not torch.equal(Rng.for_images(8, torch.arange(10)).uniform(3, 4), whole)


def test_moments():
    rng = Rng.for_images(0, torch.arange(100))
    uniform, normal = rng.uniform(10_000), rng.fork("n").normal(10_000)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 2e-3
    assert abs(uniform.var() - 1 / 12) < 1e-3
    assert torch.isfinite(normal).all()
    assert abs(normal.mean()) < 4e-3
    assert abs(normal.var() - 1) < 5e-3
    assert abs((normal**4).mean() - 3) < 5e-2
    integers = rng.fork("i").integers(-2, 2)
    assert set(integers.tolist()) == {-2, -1, 0, 1, 2}
    # neighbours in id are not neighbours in value
    assert abs(torch.corrcoef(uniform[:2])[0, 1]) < 0.05


def test_derived_seeds_differ():
    seeds = {derive_seed(seed, label) for seed in range(10) for label in ("a", "b", 1, 2)}
    assert len(seeds) == 40
    assert all(0 <= seed < 2**63 for seed in seeds)

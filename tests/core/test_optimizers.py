"""Optimizers against torch's own, and Muon's step in closed form."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from core.optimizers import OPTIMIZERS
from core.optimizers.adam import Adam
from core.optimizers.muon import Muon, orthogonal


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_each_goes_down_and_saves_its_state(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 3))
    x, y = torch.randn(20, 1, 8, 8), torch.randint(0, 3, (20,))
    optimizer = OPTIMIZERS[name].model_validate({"name": name, "lr": 0.01}).build(model.parameters())

    def step(network, by):
        loss = nn.functional.cross_entropy(network(x), y)
        by.zero_grad()
        loss.backward()
        by.step()
        return loss.item()

    first = step(model, optimizer)
    for _ in range(20):
        step(model, optimizer)
    twin = copy.deepcopy(model)
    other = OPTIMIZERS[name].model_validate({"name": name, "lr": 0.01}).build(twin.parameters())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(3):
        assert step(model, optimizer) == step(twin, other)
    assert step(model, optimizer) < 0.5 * first


@pytest.mark.parametrize("shape", [(5, 5), (8, 40), (40, 8), (1, 6)])
def test_newton_and_schulz_come_near_the_orthogonal_factor(shape):
    """All singular values between 0.6 and 1.3, with the matrix's own singular vectors."""
    matrix = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    result = orthogonal(matrix)
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.6
    assert values.max() < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    rotated = left.T @ result @ right.T
    assert torch.allclose(rotated, torch.diag(rotated.diag()), atol=1e-8)


def test_a_matrix_moves_by_an_orthogonal_step_whatever_its_gradients_scale():
    steps = []
    for scale in (1e-6, 1e3):
        weight = nn.Parameter(torch.zeros(4, 2, 3, 3))
        weight.grad = scale * torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
        Muon(lr=0.1).build([weight]).step()
        values = torch.linalg.svdvals(weight.detach().flatten(1)) / (0.1 * 0.2 * 18**0.5)
        assert values.min() > 0.6
        assert values.max() < 1.3
        steps.append(weight.detach())
    assert torch.allclose(*steps, rtol=1e-3)
    assert (steps[0] * torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))).sum() < 0, "downhill"


def test_vectors_take_adams_steps():
    ours, theirs = (nn.Parameter(torch.ones(7)) for _ in range(2))
    muon, adam = Muon(lr=0.01, weight_decay=0.1).build([ours]), Adam(lr=0.01, weight_decay=0.1).build([theirs])
    for seed in range(5):
        for parameter, optimizer in ((ours, muon), (theirs, adam)):
            parameter.grad = torch.randn(7, generator=torch.Generator().manual_seed(seed))
            optimizer.step()
    assert torch.allclose(ours, theirs, atol=1e-6)

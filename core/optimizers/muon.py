"""Muon: momentum, made orthogonal, for weight matrices; Adam for the rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from core.optimizers.base import OptimizerSpec

_A, _B, _C = 3.4445, -4.7750, 2.0315  # a quintic that pushes singular values in (0, 1] towards 1


class Muon(OptimizerSpec):
    """Jordan et al. 2024, https://kellerjordan.github.io/posts/muon: each matrix moves by an orthogonal step.

    A convolution's weight is a matrix of (out, in * height * width). Steps have the size that Adam's would have (times
    0.2 * sqrt of the larger side, Liu et al. 2025, arXiv 2502.16982), so learning rates carry over. Biases and
    normalisation weights take Adam's steps at the same rate.
    """

    title: ClassVar[str] = "Muon: orthogonalised momentum for weight matrices, Adam for the rest"
    paper: ClassVar[str] = "https://arxiv.org/abs/2502.16982"

    name: Literal["muon"] = "muon"
    lr: float = Field(1e-3, gt=0, le=100, description="Peak learning rate of the schedule.")
    momentum: float = Field(0.95, ge=0, lt=1, description="Nesterov momentum of the matrices.")
    beta1: float = Field(0.9, ge=0, lt=1, description="Adam's decay of the mean.")
    beta2: float = Field(0.999, ge=0, lt=1, description="Adam's decay of the square.")

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """See the base class."""
        return _Muon(parameters, self)


class _Muon(torch.optim.Optimizer):
    def __init__(self, parameters: Iterable[nn.Parameter], spec: Muon) -> None:
        super().__init__(parameters, {"lr": spec.lr, "weight_decay": spec.weight_decay})
        self._spec = spec

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step on the gradients there are."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                grad = parameter.grad.add(parameter, alpha=group["weight_decay"])
                state = self.state[parameter]
                update = self._matrix(grad, state) if parameter.dim() >= 2 else self._vector(grad, state)
                parameter.add_(update, alpha=-group["lr"])

    def _matrix(self, grad: Tensor, state: dict[str, Any]) -> Tensor:
        momentum: Tensor = state.setdefault("momentum", torch.zeros_like(grad))
        momentum.lerp_(grad, 1 - self._spec.momentum)
        nesterov = grad.lerp(momentum, self._spec.momentum).flatten(1)
        update: Tensor = orthogonal(nesterov) * (0.2 * max(nesterov.shape) ** 0.5)
        return update.view_as(grad)

    def _vector(self, grad: Tensor, state: dict[str, Any]) -> Tensor:
        mean: Tensor = state.setdefault("mean", torch.zeros_like(grad))
        square: Tensor = state.setdefault("square", torch.zeros_like(grad))
        steps = state["steps"] = state.get("steps", 0) + 1
        mean.lerp_(grad, 1 - self._spec.beta1)
        square.lerp_(grad * grad, 1 - self._spec.beta2)
        unbiased = mean / (1 - self._spec.beta1**steps)
        update: Tensor = unbiased / ((square / (1 - self._spec.beta2**steps)).sqrt() + 1e-8)
        return update


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """Nearly the orthogonal factor U V' of the matrix (m, n), by Newton and Schulz's iteration."""
    wide: Tensor = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    x: Tensor = wide / wide.norm().clamp_min(1e-12)
    for _ in range(steps):
        gram = x @ x.T
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.T if len(matrix) > matrix.shape[1] else x

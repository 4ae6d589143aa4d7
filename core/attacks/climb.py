"""The state of an Auto-PGD search, shared by its forms for linf, l2 and l1."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from core.attacks.base import Found
from core.gradients import slope
from core.losses import Loss, true_labels
from core.projections import per_image


@dataclass
class Climb:
    """Each image's search: where it is, where it was, and the best that it has seen."""

    rows: Tensor
    clean: Tensor
    goal: Tensor
    x: Tensor
    before: Tensor
    grad: Tensor
    loss: Tensor
    x_best: Tensor
    grad_best: Tensor
    loss_best: Tensor
    step_size: Tensor

    def keep(self, mask: Tensor) -> None:
        """Drop the other images."""
        for part in fields(self):
            setattr(self, part.name, getattr(self, part.name)[mask])

    def advance(self, x: Tensor, grad: Tensor, loss: Tensor) -> Tensor:
        """Go to ``x``; returns which images' loss rose."""
        self.before, self.x, self.grad = self.x, x, grad
        rose, better = loss > self.loss, loss > self.loss_best
        self.loss = loss
        self.x_best = torch.where(per_image(better), x, self.x_best)
        self.grad_best = torch.where(per_image(better), grad, self.grad_best)
        self.loss_best = torch.maximum(loss, self.loss_best)
        return rose

    def return_to_best(self, mask: Tensor) -> None:
        """Set these images back to the best point seen."""
        self.x = torch.where(per_image(mask), self.x_best, self.x)
        self.grad = torch.where(per_image(mask), self.grad_best, self.grad)


def begin(
    model: nn.Module, start: Tensor, x: Tensor, goal: Tensor, loss: Loss, step_size: float, samples: int
) -> tuple[Climb, Tensor]:
    """The search at its start, and the logits there."""
    grad, value, logits = slope(model, start, goal, loss, samples=samples)
    rows = torch.arange(len(x), device=x.device)
    sizes = torch.full_like(value, step_size)
    return Climb(rows, x, goal, start, start, grad, value, start, grad, value, sizes), logits


class Results:
    """Successes as they come: the first misclassified point of an image ends its search."""

    def __init__(self, start: Tensor) -> None:
        self.x_adv = start.clone()
        self.queries = torch.zeros(len(start), dtype=torch.int64, device=start.device)

    def take(self, climb: Climb, logits: Tensor, queries: int) -> Tensor | None:
        """Note who is fooled at ``climb.x`` and drop them; returns who stays, None if all do."""
        self.queries[climb.rows] = queries
        standing = logits.argmax(1) == true_labels(climb.goal)
        if standing.all():
            return None
        self.x_adv[climb.rows[~standing]] = climb.x[~standing]
        climb.keep(standing)
        return standing

    def found(self, climb: Climb) -> Found:
        """The rest keep the best point they saw."""
        self.x_adv[climb.rows] = climb.x_best
        return Found(self.x_adv, self.queries)

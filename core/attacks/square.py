"""square: random search over square patches, by queries alone."""

from __future__ import annotations

import itertools
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from core.attacks.base import Attack, Found, Run
from core.attacks.patches import Draws, first_patches, patch_side, patched
from core.losses import margin
from core.projections import per_image
from core.rng import Rng
from core.threat import ThreatModel

# stretches of the search: between two, fooled images leave, batches are filled up again, and the state is saved
_EDGES = (0, 10, 50, 200, 500)
_STRETCH = 250
_BLOCK = 100  # random numbers are drawn for so many queries at once


class Square(Attack):
    """Square attack, Andriushchenko et al. 2020, https://arxiv.org/abs/1912.00049; for l1 Croce and Hein 2021.

    A change to a random square is kept if it lowers the true class's margin. It sees logits only, so it also works
    where gradients are masked.
    """

    title: ClassVar[str] = "Square attack: random search, no gradients"
    paper: ClassVar[str] = "https://arxiv.org/abs/1912.00049"
    uses_gradients: ClassVar[bool] = False
    carries_on: ClassVar[bool] = True

    name: Literal["square"] = "square"
    queries: int = Field(5000, ge=1, le=1_000_000, description="Model calls for each image.")
    p_init: float = Field(0.8, gt=0, le=1, description="Share of the pixels in the first squares.")
    rescale: bool = Field(
        True, description="Stretch the published schedule of 10,000 queries to this many; AutoAttack does not."
    )

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, rng: Rng, run: Run) -> Found:
        """One stretch of the search; see the base class."""
        begin, end = self._stretches()[run.number]
        scale = 10_000 / self.queries if self.rescale else 1.0
        best = run.last if run.number else first_patches(x, threat, rng)
        result, queries = best.clone(), torch.full((len(x),), end - begin, device=x.device)
        rows = torch.arange(len(x), device=x.device)
        logits = model(best)
        loss, fooled = margin(logits, y), logits.argmax(1) != y
        draws = Draws(rng.fork(0), length=0, channels=x.shape[1])
        for query in range(begin, end):
            if fooled.any():
                result[rows[fooled]], queries[rows[fooled]] = best[fooled], query - begin + 1
                stay = ~fooled
                rows, x, y, best, loss = (part[stay] for part in (rows, x, y, best, loss))
                rng = rng[stay]
                draws.keep(stay)
                if len(rows) == 0:
                    break
            block, position = divmod(query - begin, _BLOCK)
            if position == 0:
                draws = Draws(rng.fork(block), length=_BLOCK, channels=x.shape[1])
            side = patch_side(self.p_init, query * scale, x.shape, threat.norm)
            candidate = patched(best, x, threat, draws, position, side)
            logits = model(candidate)
            value, fooled = margin(logits, y), logits.argmax(1) != y
            better = (value > loss) | fooled
            best = torch.where(per_image(better), candidate, best)
            loss = torch.where(better, value, loss)
        result[rows] = best
        return Found(result, queries)

    def work(self, num_classes: int) -> list[float]:
        """A forward pass a query, and one at each stretch's start."""
        return [(end - begin + 1) / 2 for begin, end in self._stretches()]

    def _stretches(self) -> list[tuple[int, int]]:
        edges = [*_EDGES, *range(_EDGES[-1] + _STRETCH, self.queries, _STRETCH)]
        edges = [edge for edge in edges if edge < self.queries] + [self.queries]
        return list(itertools.pairwise(edges))

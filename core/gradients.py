"""The direction in which a loss grows with the input: the one place where attacks differentiate."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from core.errors import BadLogitsError
from core.losses import Loss, cross_entropy_margin


class Slope(NamedTuple):
    """At some images: the gradient (n, c, h, w) of the loss, its value (n,), and the logits (n, classes)."""

    grad: Tensor
    loss: Tensor
    logits: Tensor


def slope(model: nn.Module, x: Tensor, goal: Tensor, loss: Loss, *, samples: int = 1) -> Slope:
    """Gradient, loss and logits at ``x``, each the mean of ``samples`` passes (EOT, Athalye et al. 2018).

    Call inside ``frozen``: then no weight gradient is computed, a third of the work. The losses are summed over
    images, so none depends on its batch. A model that cuts the graph has gradient 0 here; the diagnosis says so.
    Raises: BadLogitsError if a gradient is not finite.
    """
    total = _one_slope(model, x, goal, loss)
    for _ in range(samples - 1):
        another = _one_slope(model, x, goal, loss)
        total = Slope(*(so_far + part for so_far, part in zip(total, another, strict=True)))
    return Slope(*(part / samples for part in total)) if samples > 1 else total


def _one_slope(model: nn.Module, x: Tensor, goal: Tensor, loss: Loss) -> Slope:
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        logits = model(x)
        values = loss(logits.to(torch.promote_types(logits.dtype, torch.float32)), goal)
        grad = torch.autograd.grad(values.sum(), x)[0] if values.requires_grad else torch.zeros_like(x)
    if not torch.isfinite(grad).all():
        raise BadLogitsError(  # sign(NaN) is 0: the attack would stand still and the model would look robust
            "the model's gradient with respect to its input is NaN or infinite, so gradient attacks cannot judge it",
            "look for square roots, norms or divisions at 0 in the model",
        )
    return Slope(grad, values.detach(), logits.detach())


def ascent_gradient(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """A positive multiple of each image's cross-entropy gradient, and the logits at ``x``.

    With m = logsumexp over k != y of z_k, minus z_y, cross-entropy is softplus(m), and so its gradient is
    sigmoid(m) * grad m. What is returned is grad m: the same direction, but where a confident model's sigmoid(m)
    and 1 - p_y round to 0 or to something wrong in float32 (from a logit gap of 17 on), this does neither. The
    attacks use the direction only: a sign, or a normalised gradient.
    """
    result = slope(model, x, y, cross_entropy_margin)
    return result.grad, result.logits

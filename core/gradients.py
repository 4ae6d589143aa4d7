"""The direction in which the loss grows with the input: the one place where attacks differentiate."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.errors import BadLogitsError


def ascent_gradient(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """A positive multiple of each image's cross-entropy gradient, and the logits at ``x``.

    With m = logsumexp over k != y of z_k, minus z_y, cross-entropy is softplus(m), and so its gradient is
    sigmoid(m) * grad m. What is returned is grad m: the same direction, but where a confident model's sigmoid(m)
    and 1 - p_y round to 0 or to something wrong in float32 (from a logit gap of 17 on), this does neither. The
    attacks use the direction only: a sign, or a normalised gradient. Summed over images, none depends on its batch.

    Call inside ``frozen``: then no weight gradient is computed, a third of the work.
    Returns: gradient, shape of ``x``; logits (n, classes), detached.
    Raises: BadLogitsError if a gradient is not finite.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        logits = model(x)
        z = logits.float()
        true = z.gather(1, y[:, None])
        others = z.scatter(1, y[:, None], -torch.inf)
        margin = torch.logsumexp(others, dim=1) - true[:, 0]
        (grad,) = torch.autograd.grad(margin.sum(), x)
    if not torch.isfinite(grad).all():
        raise BadLogitsError(  # sign(NaN) is 0: the attack would stand still and the model would look robust
            "the model's gradient with respect to its input is NaN or infinite, so gradient attacks cannot judge it",
            "look for square roots, norms or divisions at 0 in the model",
        )
    return grad, logits.detach()

"""The gradient of a loss with respect to the input: the one place where attacks differentiate."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import BadLogitsError


def input_gradient(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of each image's own cross-entropy, and the logits at ``x``.

    The loss is summed, so no image's gradient depends on the batch it is in, and none underflows for being
    divided by the batch size. Call inside ``frozen``: then no weight gradient is computed, a third of the work.

    Returns: gradient, shape of ``x``; logits (n, classes), detached.
    Raises: BadLogitsError if a gradient is not finite.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        logits = model(x)
        loss = F.cross_entropy(logits.float(), y, reduction="sum")
        (grad,) = torch.autograd.grad(loss, x)
    if not torch.isfinite(grad).all():
        raise BadLogitsError(  # sign(NaN) is 0: the attack would stand still and the model would look robust
            "the model's gradient with respect to its input is NaN or infinite, so gradient attacks cannot judge it",
            "look for square roots, norms or divisions at 0 in the model",
        )
    return grad, logits.detach()

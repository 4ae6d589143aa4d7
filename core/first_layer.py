"""Whether a network takes its images through one first layer, told by running it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.errors import UnsupportedError
from core.models.classifier import Classifier, first_logits, frozen


def check_first_layer(model: Classifier, x: Tensor) -> nn.Module:
    """The one convolution or dense layer that takes the images and that all else sees them through.

    ``x``: at least one image (n, c, h, w).
    Raises: UnsupportedError if there is none, if it is used twice, if something comes before it, or if the images also
    go around it.
    """
    calls: list[tuple[nn.Module, Tensor]] = []

    def called(module: nn.Module, inputs: tuple[Tensor, ...], _: object) -> None:
        calls.append((module, inputs[0]))

    layers = [module for module in model.net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(called) for layer in layers]
    try:
        with frozen(model), torch.no_grad():
            model.net(model.prepared(x))
    finally:
        for handle in handles:
            handle.remove()
    if not calls:
        raise _no_first_layer("it has no convolution or dense layer")
    layer, seen = calls[0]
    if sum(module is layer for module, _ in calls) > 1:
        raise _no_first_layer("its first layer is used more than once")
    if seen.shape[0] != len(x) or not torch.equal(seen.flatten(1), model.prepared(x).flatten(1)):
        raise _no_first_layer("something changes the images before its first convolution or dense layer")
    if _goes_around(model, layer, x):
        raise _no_first_layer("the images also reach later layers without passing the first one")
    return layer


def _no_first_layer(reason: str) -> UnsupportedError:
    return UnsupportedError(
        f"defense 'yopo' needs a network with one first layer: {reason}",
        "use another defense, for example fast-at or free-at, which cost about as much",
    )


def _goes_around(model: Classifier, layer: nn.Module, x: Tensor) -> bool:
    """Whether the logits still depend on the images when the layer's output is cut off from them."""

    def cut(_: nn.Module, __: object, output: Tensor) -> Tensor:
        return output.detach()

    handle = layer.register_forward_hook(cut)
    try:
        with frozen(model), torch.enable_grad():
            output = model.net(model.prepared(x.detach().requires_grad_(True)))
    finally:
        handle.remove()
    logits = output if isinstance(output, Tensor) else first_logits(output)
    return bool(logits.requires_grad)

"""The first layer of any network: found by running it, and run alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from core.errors import UnsupportedError
from core.models.classifier import Classifier, frozen


class _Reached(Exception):  # noqa: N818 - it ends a pass early, nothing is wrong
    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output


class Watched:
    """The output of a layer in one pass, and its gradient once the loss went back."""

    output: Tensor | None = None

    def gradient(self) -> Tensor:
        """Of the loss with respect to the output."""
        if self.output is None or self.output.grad is None:
            raise RuntimeError("no gradient reached the layer: go back before asking for it")
        return self.output.grad


def first_layer(model: Classifier, x: Tensor) -> nn.Module:
    """The one convolution or dense layer that everything else sees the images through.

    ``x``: at least one image (n, c, h, w).
    Raises: UnsupportedError if there is none, if it is used twice, or if the images also go around it.
    """
    calls: list[nn.Module] = []

    def called(module: nn.Module, _: object, __: object) -> None:
        calls.append(module)

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
    if calls.count(calls[0]) > 1:
        raise _no_first_layer("its first layer is used more than once")
    if _goes_around(model, calls[0], x):
        raise _no_first_layer("the images also reach later layers without passing the first one")
    return calls[0]


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
    logits = output if isinstance(output, Tensor) else output[0]
    return bool(logits.requires_grad)


@contextmanager
def watch(layer: nn.Module) -> Iterator[Watched]:
    """Keep the output of ``layer`` in the pass made inside, and have its gradient kept."""
    seen = Watched()

    def keep(_: nn.Module, __: object, output: Tensor) -> Tensor:
        output.retain_grad()
        seen.output = output
        return output.clone()  # an activation in place after it would change the very tensor that is watched

    handle = layer.register_forward_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()


def output_of(model: Classifier, layer: nn.Module, x: Tensor) -> Tensor:
    """What the layer makes of images; the rest of the network is not run."""

    def stop(_: nn.Module, __: object, output: Tensor) -> None:
        raise _Reached(output)

    handle = layer.register_forward_hook(stop)
    try:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=model.mixed_precision):
            model.net(model.prepared(x))
    except _Reached as reached:
        return reached.output
    finally:
        handle.remove()
    raise RuntimeError("the layer was not reached")

"""A network behind its normalisation, so that everything outside works on pixels in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from core.cost import Cost
from core.errors import BadLogitsError


class Classifier(nn.Module):
    """Maps images (n, c, h, w) in [0, 1] to logits (n, classes), and counts its passes in ``cost``.

    ``net`` is the bare architecture: its ``state_dict`` is what users upload and get back. With ``mixed_precision``
    it runs in bfloat16 where torch holds that safe, weights and logits stay float32.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, net: nn.Module, *, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.net = net.to(memory_format=torch.channels_last)
        self.normalises = mean is not None or std is not None
        self.register_buffer("mean", _channels(mean or [0.0]), persistent=False)
        self.register_buffer("std", _channels(std or [1.0]), persistent=False)
        self.cost = Cost()
        self.on_forward: Callable[[], None] = do_nothing
        self.mixed_precision = False

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, classes). ``on_forward`` is called first; it may raise, to stop whatever asks."""
        self.on_forward()
        self.cost.forwards += len(x)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.mixed_precision):
            output = self.net(self.prepared(x))
        logits = output if isinstance(output, Tensor) else first_logits(output)
        logits = logits.float() if self.mixed_precision else logits
        if logits.requires_grad:
            self._count_backward(logits, examples=len(x), to_input=x.requires_grad)
        return logits

    def prepared(self, x: Tensor) -> Tensor:
        """What ``net`` is given for images: normalised, channels last."""
        inputs = (x - self.mean) / self.std if self.normalises else x
        return inputs.contiguous(memory_format=torch.channels_last)

    def _count_backward(self, logits: Tensor, *, examples: int, to_input: bool) -> None:
        to_weights = any(p.requires_grad for p in self.net.parameters())

        def count(_: Tensor) -> None:
            self.cost.backward(examples, to_input=to_input, to_weights=to_weights)

        logits.register_hook(count)  # type: ignore[no-untyped-call]


def do_nothing() -> None:
    """What ``Classifier.on_forward`` does unless somebody watches."""


def _channels(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)


def first_logits(output: Any) -> Tensor:
    """Main logits of a model that also returns auxiliary ones (Inception, GoogLeNet in train mode)."""
    logits = output[0] if isinstance(output, (tuple, list)) else None
    if not isinstance(logits, Tensor):
        raise BadLogitsError(f"the model returned {type(output).__name__}, not a tensor of logits")
    return logits


@contextmanager
def frozen(model: nn.Module, *, evaluate: bool = True) -> Iterator[None]:
    """Evaluation mode and no weight gradients inside; every module's and parameter's own flag restored after.

    With ``evaluate`` False the modes stay as they are, for defenses that craft in train mode.
    Restored one by one: a blanket ``model.train()`` would unfreeze a BatchNorm that was frozen on purpose. Convolutions
    run in full float32 on CUDA: with TF32's ten bits, predictions would depend on device and batch.
    """
    tf32 = torch.backends.cudnn.allow_tf32
    training = model.training
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        torch.backends.cudnn.allow_tf32 = False
        if evaluate:
            model.eval()
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
        model.train(training)  # by its own method: some models drop caches of weights in it
        for module, mode in modes:
            module.training = mode
        for parameter, requires_grad in flags:
            parameter.requires_grad_(requires_grad)


@contextmanager
def full_precision(model: nn.Module) -> Iterator[None]:
    """Float32 inside, whatever ``mixed_precision`` says."""
    mixed = [each for each in model.modules() if isinstance(each, Classifier) and each.mixed_precision]
    try:
        for each in mixed:
            each.mixed_precision = False
        yield
    finally:
        for each in mixed:
            each.mixed_precision = True

"""BatchNorm over the images of all ranks, on any device; torch's own SyncBatchNorm runs on CUDA only.

It takes the place of ``batch_norm`` while a network trains, so networks, their keys and copies stay as they are, and
layers that call the function themselves (timm's) are reached too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode


class Device(Protocol):
    """How statistics go from device to device."""

    def gather(self, part: Tensor) -> list[Tensor]:
        """The tensors of all ranks."""

    def reduce(self, values: Tensor) -> Tensor:
        """The sum over the ranks, in place."""


class SyncedBatchNorm(TorchFunctionMode):
    """Inside, a network in train mode normalises by the statistics of the images of all ranks."""

    def __init__(self, team: Device, model: nn.Module) -> None:
        super().__init__()
        self._team, self._model = team, model

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Called for every torch function."""
        if func is F.batch_norm and self._model.training:
            return self._batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        input: Tensor,  # noqa: A002 - named as torch names it
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:  # a layer that was frozen on purpose
            return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
        # more than one value: every rank has an image
        mean, square, count = self._statistics(input.detach().float())
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean), momentum)
            running_var.lerp_((square * count / (count - 1)).to(running_var), momentum)
        normalised: Tensor = _Normalise.apply(input, mean, (square + eps).rsqrt(), count, self._team)
        if weight is not None:
            normalised = normalised * _channel(weight, input)
        if bias is not None:
            normalised = normalised + _channel(bias, input)
        return normalised.to(input.dtype)

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and mean squared deviation of each channel, and of how many values: put together from the ranks'."""
        square, mean = torch.var_mean(x, _all_but_channels(x), correction=0)
        own = torch.cat([mean, square, mean.new_tensor([x.numel() / x.shape[1]])])
        parts = torch.stack(self._team.gather(own)).double()
        counts, channels = parts[:, -1:], x.shape[1]
        means, squares, total = parts[:, :channels], parts[:, channels:-1], counts.sum()
        whole = (counts * means).sum(0) / total
        spread = (counts * (squares + (means - whole) ** 2)).sum(0) / total
        return whole.float(), spread.float(), total.float()


class _Normalise(torch.autograd.Function):
    """(x - mean) / deviation. Mean and deviation are functions of every rank's x, so the gradient is too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mean: Tensor, scale: Tensor, count: Tensor, team: Device) -> Tensor:
        normalised = (x - _channel(mean, x)) * _channel(scale, x)
        ctx.save_for_backward(normalised, scale, count)
        ctx.team, ctx.dtype = team, x.dtype
        return normalised

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        normalised, scale, count = ctx.saved_tensors
        dims = _all_but_channels(grad)
        sums = ctx.team.reduce(torch.cat([grad.sum(dims), (grad * normalised).sum(dims)]))
        of_mean, of_deviation = (_channel(part / count, grad) for part in sums.chunk(2))
        result = (grad - of_mean - normalised * of_deviation) * _channel(scale, grad)
        return result.to(ctx.dtype), None, None, None, None


def _all_but_channels(x: Tensor) -> list[int]:
    return [dim for dim in range(x.dim()) if dim != 1]


def _channel(values: Tensor, x: Tensor) -> Tensor:
    """One value a channel, in the shape of ``x``."""
    return values.view(1, -1, *[1] * (x.dim() - 2))

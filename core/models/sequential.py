"""sequential: a small custom network as data, layer by layer, without code."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from torch import Tensor, nn

from core.errors import UnsupportedError
from core.models.base import Architecture, Domain, ImageShape


class Layer(BaseModel):
    """One layer; what it takes in is inferred from the layer before."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def module(self, x: Tensor) -> nn.Module:
        """The torch layer for inputs like ``x``."""
        options = self.model_dump(exclude={"kind"})
        built: nn.Module = self.torch_class(**options)
        return built

    torch_class: ClassVar[type[nn.Module]]


Size = Annotated[int, Field(ge=1, le=65536)]
Epsilon = Annotated[float, Field(gt=0, le=1, description="Added to the variance.")]


class Conv2d(Layer):
    """nn.Conv2d."""

    kind: Literal["conv2d"] = "conv2d"
    out_channels: Size
    kernel_size: Annotated[int, Field(ge=1, le=31)]
    stride: Annotated[int, Field(ge=1, le=31)] = 1
    padding: Annotated[int, Field(ge=0, le=31)] = 0
    dilation: Annotated[int, Field(ge=1, le=31)] = 1
    groups: Size = 1
    bias: bool = True

    def module(self, x: Tensor) -> nn.Module:
        """See the base class."""
        return nn.Conv2d(x.shape[1], **self.model_dump(exclude={"kind"}))


class Linear(Layer):
    """nn.Linear."""

    kind: Literal["linear"] = "linear"
    out_features: Size
    bias: bool = True

    def module(self, x: Tensor) -> nn.Module:
        """See the base class."""
        return nn.Linear(x.shape[-1], self.out_features, bias=self.bias)


class BatchNorm2d(Layer):
    """nn.BatchNorm2d."""

    kind: Literal["batch_norm2d"] = "batch_norm2d"
    eps: Epsilon = 1e-5
    momentum: Annotated[float, Field(ge=0, le=1)] = 0.1

    def module(self, x: Tensor) -> nn.Module:
        """See the base class."""
        return nn.BatchNorm2d(x.shape[1], self.eps, self.momentum)


class ReLU(Layer):
    """nn.ReLU."""

    kind: Literal["relu"] = "relu"
    torch_class: ClassVar[type[nn.Module]] = nn.ReLU


class ReLU6(Layer):
    """nn.ReLU6."""

    kind: Literal["relu6"] = "relu6"
    torch_class: ClassVar[type[nn.Module]] = nn.ReLU6


class GELU(Layer):
    """nn.GELU."""

    kind: Literal["gelu"] = "gelu"
    torch_class: ClassVar[type[nn.Module]] = nn.GELU


class LeakyReLU(Layer):
    """nn.LeakyReLU."""

    kind: Literal["leaky_relu"] = "leaky_relu"
    negative_slope: Annotated[float, Field(ge=0, le=10)] = 0.01
    torch_class: ClassVar[type[nn.Module]] = nn.LeakyReLU


class ELU(Layer):
    """nn.ELU."""

    kind: Literal["elu"] = "elu"
    alpha: Annotated[float, Field(gt=0, le=10)] = 1.0
    torch_class: ClassVar[type[nn.Module]] = nn.ELU


class SiLU(Layer):
    """nn.SiLU."""

    kind: Literal["silu"] = "silu"
    torch_class: ClassVar[type[nn.Module]] = nn.SiLU


class Mish(Layer):
    """nn.Mish."""

    kind: Literal["mish"] = "mish"
    torch_class: ClassVar[type[nn.Module]] = nn.Mish


class Hardswish(Layer):
    """nn.Hardswish."""

    kind: Literal["hardswish"] = "hardswish"
    torch_class: ClassVar[type[nn.Module]] = nn.Hardswish


class Softplus(Layer):
    """nn.Softplus."""

    kind: Literal["softplus"] = "softplus"
    torch_class: ClassVar[type[nn.Module]] = nn.Softplus


class Sigmoid(Layer):
    """nn.Sigmoid."""

    kind: Literal["sigmoid"] = "sigmoid"
    torch_class: ClassVar[type[nn.Module]] = nn.Sigmoid


class Tanh(Layer):
    """nn.Tanh."""

    kind: Literal["tanh"] = "tanh"
    torch_class: ClassVar[type[nn.Module]] = nn.Tanh


class PReLU(Layer):
    """nn.PReLU with one slope a channel, or one for all."""

    kind: Literal["prelu"] = "prelu"
    num_parameters: Size = 1
    torch_class: ClassVar[type[nn.Module]] = nn.PReLU


class GroupNorm(Layer):
    """nn.GroupNorm."""

    kind: Literal["group_norm"] = "group_norm"
    num_groups: Size
    eps: Epsilon = 1e-5

    def module(self, x: Tensor) -> nn.Module:
        """See the base class."""
        return nn.GroupNorm(self.num_groups, x.shape[1], self.eps)


class MaxPool2d(Layer):
    """nn.MaxPool2d."""

    kind: Literal["max_pool2d"] = "max_pool2d"
    kernel_size: Annotated[int, Field(ge=1, le=31)]
    stride: Annotated[int, Field(ge=1, le=31)] | None = None
    padding: Annotated[int, Field(ge=0, le=15)] = 0
    torch_class: ClassVar[type[nn.Module]] = nn.MaxPool2d


class AvgPool2d(Layer):
    """nn.AvgPool2d."""

    kind: Literal["avg_pool2d"] = "avg_pool2d"
    kernel_size: Annotated[int, Field(ge=1, le=31)]
    stride: Annotated[int, Field(ge=1, le=31)] | None = None
    padding: Annotated[int, Field(ge=0, le=15)] = 0
    torch_class: ClassVar[type[nn.Module]] = nn.AvgPool2d


class AdaptiveAvgPool2d(Layer):
    """nn.AdaptiveAvgPool2d."""

    kind: Literal["adaptive_avg_pool2d"] = "adaptive_avg_pool2d"
    output_size: Annotated[int, Field(ge=1, le=512)] = 1
    torch_class: ClassVar[type[nn.Module]] = nn.AdaptiveAvgPool2d


class Flatten(Layer):
    """nn.Flatten."""

    kind: Literal["flatten"] = "flatten"
    torch_class: ClassVar[type[nn.Module]] = nn.Flatten


class Dropout(Layer):
    """nn.Dropout."""

    kind: Literal["dropout"] = "dropout"
    p: Annotated[float, Field(ge=0, lt=1)] = 0.5
    torch_class: ClassVar[type[nn.Module]] = nn.Dropout


class Dropout2d(Layer):
    """nn.Dropout2d."""

    kind: Literal["dropout2d"] = "dropout2d"
    p: Annotated[float, Field(ge=0, lt=1)] = 0.5
    torch_class: ClassVar[type[nn.Module]] = nn.Dropout2d


class Identity(Layer):
    """nn.Identity, to keep the numbers of the layers that follow."""

    kind: Literal["identity"] = "identity"
    torch_class: ClassVar[type[nn.Module]] = nn.Identity


_KINDS = {each.__name__: each.model_fields["kind"].default for each in Layer.__subclasses__()}


def _spelled_out(value: Any) -> Any:
    """Let "relu" and {"conv2d": {...}} stand for {"kind": "relu"} and {"kind": "conv2d", ...}; "ReLU" is "relu"."""
    if isinstance(value, str):
        return {"kind": _KINDS.get(value, value)}
    if isinstance(value, dict) and "kind" not in value and len(value) == 1:
        kind, options = next(iter(value.items()))
        return {"kind": _KINDS.get(kind, kind), **(options or {})} if isinstance(options, dict | None) else value
    return value


if TYPE_CHECKING:
    AnyLayer: TypeAlias = Layer
else:
    AnyLayer = Annotated[
        Annotated[reduce(or_, Layer.__subclasses__()), Field(discriminator="kind")],
        BeforeValidator(_spelled_out),
    ]


class Sequential(Architecture):
    """A stack of layers, built as nn.Sequential: keys are "0.weight", "0.bias", "3.weight", ..."""

    title: ClassVar[str] = 'A custom network as a list of layers: {"sequential": [{"conv2d": {...}}, "relu", ...]}'
    domain: ClassVar[Domain] = "custom"
    small: ClassVar[bool] = True

    name: Literal["sequential"] = "sequential"
    layers: tuple[AnyLayer, ...] = Field(
        min_length=1,
        max_length=512,
        description='From input to logits, each {"KIND": {...}}, or "KIND" if it needs nothing more. Kinds: '
        + ", ".join(_KINDS.values())
        + ".",
    )

    def build(self, num_classes: int, image: ImageShape) -> nn.Module:
        """See the base class.

        Raises: UnsupportedError naming the layer that cannot take what comes before it.
        """
        modules: list[nn.Module] = []
        x = torch.empty(2, image.channels, image.height, image.width)
        for index, layer in enumerate(self.layers):
            try:
                module = layer.module(x).eval()
                with torch.no_grad():
                    x = module(x)
            except (RuntimeError, ValueError, IndexError) as error:
                raise UnsupportedError(
                    f"layer {index} ({type(layer).__name__}) cannot take input of shape {tuple(x.shape[1:])}: {error}",
                    "mend model.architecture.sequential",
                ) from error
            modules.append(module)
        if x.shape[1:] != (num_classes,):
            raise UnsupportedError(
                f"the last layer returns shape {tuple(x.shape[1:])}, not one logit for each of {num_classes} classes",
                'end with "flatten" and {"linear": {"out_features": CLASSES}}',
            )
        return nn.Sequential(*modules).train()

"""A module of one's own as layers in data, as "architecture": {"sequential": [...]} wants them: read off by torch.fx.

The only file that uses torch, and then the caller's: who has a module has it.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temper.errors import ModuleError

if TYPE_CHECKING:
    from torch import nn
    from torch.fx import Node

_FUNCTIONS = {
    "relu": ("ReLU", ()),
    "relu6": ("ReLU6", ()),
    "gelu": ("GELU", ()),
    "silu": ("SiLU", ()),
    "mish": ("Mish", ()),
    "hardswish": ("Hardswish", ()),
    "softplus": ("Softplus", ("beta", "threshold")),
    "sigmoid": ("Sigmoid", ()),
    "tanh": ("Tanh", ()),
    "leaky_relu": ("LeakyReLU", ("negative_slope",)),
    "elu": ("ELU", ("alpha",)),
    "max_pool2d": ("MaxPool2d", ("kernel_size", "stride", "padding", "dilation")),
    "avg_pool2d": ("AvgPool2d", ("kernel_size", "stride", "padding")),
    "adaptive_avg_pool2d": ("AdaptiveAvgPool2d", ("output_size",)),
    "dropout": ("Dropout", ("p",)),
    "dropout2d": ("Dropout2d", ("p",)),
}
"""Functions of torch, and methods of tensors: the module that does the same, and its arguments by position."""

_INFERRED = {"in_channels", "in_features", "num_features", "num_channels", "inplace", "training", "device", "dtype"}
"""Arguments that follow from the layer before, or that change no number."""

_LAST = {"softmax", "log_softmax", "Softmax", "LogSoftmax"}

_ELSE = (
    "a network with branches is asked for by its name (temper catalog architectures; timm/NAME, torchvision/NAME), or "
    "needs one file of code at the service: docs/checkpoints.md"
)


def layers(module: nn.Module) -> dict[str, Any]:
    """``module`` as an architecture, for submit(architecture=...): {"sequential": [{"Conv2d": {...}}, "ReLU", ...]}.

    ``forward`` is traced as in evaluation, without an image. A softmax at the end is left out, since logits are what is
    attacked and trained: no prediction changes by it.

    Raises: ModuleError if ``forward`` is no chain of layers, or uses them in another order than they are defined.
    """
    from torch import fx

    try:
        nodes = list(fx.symbolic_trace(copy.deepcopy(module).eval()).graph.nodes)
    except Exception as error:  # it runs the caller's code, which may raise what it likes
        raise ModuleError(f"forward cannot be traced: {error}; {_ELSE}") from error
    found: list[Any] = []
    used: list[str] = []
    before: Node = nodes[0]
    for node in nodes[1:]:
        if node.op == "output":
            _is_next(node, before)
        elif not _is_size(node):
            _is_next(node, before)
            before = node
            if node.op == "call_module":
                used.append(str(node.target))
            if nodes[-1].args[0] is node and _kind(module, node) in _LAST:
                continue
            found += _layers_of(module, node)
    own = [name for name, each in module.named_modules() if any(True for _ in each.parameters(recurse=False))]
    used = [name for name in used if name in own]
    if own != used:
        raise ModuleError(
            f"weights are defined in the order {', '.join(own)}, and forward uses {', '.join(used)}: they are "
            "matched by order, so let __init__ name each layer once, as forward uses them, and save the weights again"
        )
    return {"sequential": found}


def load(place: str) -> nn.Module:
    """ "train:Net" as a module: what ``Net`` of train.py in this folder is, or gives if called without arguments.

    Raises: ModuleError.
    """
    try:
        from torch import nn
    except ImportError as error:
        raise ModuleError(f"{sys.executable} has no torch: use the temper of the environment you trained in") from error
    file, colon, name = place.partition(":")
    if not (file and colon and name):
        raise ModuleError(f"{place!r} is not FILE:NAME, for example train:Net for the class Net in train.py")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), name)
        built = found if isinstance(found, nn.Module) else found()
    except Exception as error:  # the caller's code
        raise ModuleError(f"{place} cannot be built: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    if not isinstance(built, nn.Module):
        raise ModuleError(f"{place} gives a {type(built).__name__}, not a torch.nn.Module")
    return built


def _is_next(node: Node, before: Node) -> None:
    takes = [each for each in node.all_input_nodes if not _is_size(each)]
    if takes != [before]:
        raise ModuleError(
            f"{node.name} takes {' and '.join(each.name for each in takes) or 'nothing'}, where a chain gives it "
            f"{before.name} alone; {_ELSE}"
        )


def _is_size(node: Node) -> bool:
    """x.size(0), x.shape[0]: for a view."""
    return node.op in {"call_function", "call_method"} and _name(node) in {"size", "getattr", "getitem"}


def _name(node: Node) -> str:
    """Of a function or method, without the underscore of those in place; of a module, where it is."""
    return str(getattr(node.target, "__name__", node.target)).removesuffix("_")


def _kind(module: nn.Module, node: Node) -> str:
    return type(module.get_submodule(str(node.target))).__name__ if node.op == "call_module" else _name(node)


def _layers_of(module: nn.Module, node: Node) -> list[Any]:
    """What one step of ``forward`` is in layers."""
    from torch import nn

    given: list[Any] = list(node.args[1:])
    named: dict[str, Any] = dict(node.kwargs)
    name = _name(node)
    if node.op == "call_module":
        return [_options(module.get_submodule(str(node.target)))]
    if name in _FUNCTIONS:
        kind, places = _FUNCTIONS[name]
        named |= dict(zip(places, given, strict=False))
        return [_options(getattr(nn, kind)(**{key: value for key, value in named.items() if key not in _INFERRED}))]
    if name == "flatten" and named.get("start_dim", given[0] if given else 0) == 1:
        return ["Flatten"]
    if name in {"view", "reshape"} and len(given[0] if isinstance(given[0], tuple) else given) == 2:
        return ["Flatten"]
    dims = named.get("dim", given[0] if given else None)
    if name == "mean" and isinstance(dims, tuple | list) and sorted(dim % 4 for dim in dims) == [2, 3]:
        keeps = named.get("keepdim", len(given) > 1 and given[1])
        return ["AdaptiveAvgPool2d"] if keeps else ["AdaptiveAvgPool2d", "Flatten"]
    raise ModuleError(f"{node.format_node()}: there is no such layer; {_ELSE}")


def _options(layer: nn.Module) -> Any:
    """A layer of torch by its name, with the arguments that are not torch's defaults."""
    options = {}
    for name, parameter in inspect.signature(type(layer)).parameters.items():
        if name in _INFERRED:
            continue
        value = getattr(layer, name, parameter.default)
        value = value is not None if name == "bias" else value
        if isinstance(value, tuple | list) and len(set(value)) == 1:
            value = value[0]
        if value != parameter.default:
            options[name] = value
    return {type(layer).__name__: options} if options else type(layer).__name__

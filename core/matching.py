"""Matches a checkpoint's keys to an architecture's: by name, after stripping prefixes, or by order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from core.errors import CheckpointMismatchError, UnsupportedError
from core.models.base import Architecture, ImageShape
from core.prepared import CheckpointManifest, TensorEntry

Shape = tuple[int, ...]
COUNTER = "num_batches_tracked"  # absent from old checkpoints, and torch does without it
_SHOWN = 10


@dataclass(frozen=True)
class KeyMatch:
    """``keys`` maps each checkpoint key to the architecture's, in the checkpoint's order."""

    by: Literal["name", "prefix", "order"]
    keys: dict[str, str]


def match_keys(manifest: CheckpointManifest, net: nn.Module) -> KeyMatch:
    """Pair every tensor of the checkpoint with one of the network.

    Raises: CheckpointMismatchError listing missing, extra and wrongly shaped keys.
    """
    expected = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    given = {entry.key: entry.shape for entry in manifest.tensors}
    match = _by_name(given, expected) or _by_prefix(given, expected) or _by_order(manifest, expected)
    if match is None:
        raise CheckpointMismatchError(_describe(given, expected))
    return match


def _by_name(given: Mapping[str, Shape], expected: Mapping[str, Shape]) -> KeyMatch | None:
    return KeyMatch("name", {key: key for key in given}) if _agree(given, expected) else None


def _by_prefix(given: Mapping[str, Shape], expected: Mapping[str, Shape]) -> KeyMatch | None:
    """Strip what all keys have in front in common, one component at a time ("module.", "_orig_mod.", "model.")."""
    depth = 0
    while all(key.count(".") > depth for key in given):
        depth += 1
        if len({tuple(key.split(".")[:depth]) for key in given}) > 1:
            return None
        stripped = {key: ".".join(key.split(".")[depth:]) for key in given}
        if _agree({stripped[key]: shape for key, shape in given.items()}, expected):
            return KeyMatch("prefix", stripped)
    return None


def _agree(given: Mapping[str, Shape], expected: Mapping[str, Shape]) -> bool:
    missing = [key for key in expected if key not in given and not key.endswith(COUNTER)]
    return not missing and all(expected.get(key) == shape for key, shape in given.items())


def _by_order(manifest: CheckpointManifest, expected: Mapping[str, Shape]) -> KeyMatch | None:
    """Pair by position where all shapes agree one to one.

    A .pt file keeps the order of definition. safetensors are sorted by name, so for them the natural order of the
    modules stands in (conv2 before conv10), unless names leave open which of two alike modules comes first.
    """
    targets = [key for key in expected if not key.endswith(COUNTER)]
    entries = [entry for entry in manifest.tensors if not entry.key.endswith(COUNTER)]
    if manifest.format == "safetensors":
        if _ambiguous(entries):
            return None
        entries.sort(key=_natural)
    if [entry.shape for entry in entries] != [expected[key] for key in targets]:
        return None
    pairs = {entry.key: target for entry, target in zip(entries, targets, strict=True)}
    counters = [entry.key for entry in manifest.tensors if entry.key.endswith(COUNTER)]
    pairs.update(_counters(counters, pairs))
    if len(pairs) != len(manifest.tensors):
        return None
    return KeyMatch("order", {entry.key: pairs[entry.key] for entry in manifest.tensors})


def _ambiguous(entries: Iterable[TensorEntry]) -> bool:
    """Whether two modules have the same shapes and names that differ in more than a number."""
    modules: dict[str, list[tuple[str, Shape]]] = {}
    for entry in entries:
        module, _, leaf = entry.key.rpartition(".")
        modules.setdefault(module, []).append((leaf, entry.shape))
    names: dict[tuple[tuple[str, Shape], ...], set[str]] = {}
    for module, leaves in modules.items():
        names.setdefault(tuple(sorted(leaves)), set()).add(re.sub(r"\d+", "#", module))
    return any(len(alike) > 1 for alike in names.values())


_LEAF_ORDER = {"weight": 0, "bias": 1, "running_mean": 2, "running_var": 3}


def _natural(entry: TensorEntry) -> tuple[object, ...]:
    module, _, leaf = entry.key.rpartition(".")
    parts = tuple((int(p), "") if p.isdigit() else (-1, p) for p in re.split(r"(\d+)", module))
    return (parts, _LEAF_ORDER.get(leaf, 4), leaf)


def _counters(keys: Iterable[str], pairs: Mapping[str, str]) -> dict[str, str]:
    """A BatchNorm's counter goes where its running mean went."""
    found = {}
    for key in keys:
        module = key.rpartition(".")[0]
        if target := pairs.get(f"{module}.running_mean"):
            found[key] = target.rpartition(".")[0] + "." + COUNTER
    return found


def _describe(given: Mapping[str, Shape], expected: Mapping[str, Shape]) -> str:
    given = _nearest_names(given, expected)
    missing = [key for key in expected if key not in given and not key.endswith(COUNTER)]
    extra = [key for key in given if key not in expected]
    wrong = [
        f"{key} is {list(given[key])}, expected {list(expected[key])}"
        for key in given
        if key in expected and given[key] != expected[key]
    ]
    parts = [
        f"{title} ({len(items)}): {', '.join(items[:_SHOWN])}{', ...' if len(items) > _SHOWN else ''}"
        for title, items in (("missing", missing), ("extra", extra), ("wrong shape", wrong))
        if items
    ]
    return "the checkpoint does not fit the architecture; " + ("; ".join(parts) or "tensors are in another order")


def _nearest_names(given: Mapping[str, Shape], expected: Mapping[str, Shape]) -> Mapping[str, Shape]:
    """The keys after stripping the common prefix with which most of them are known."""
    best, depth = given, 0
    while all(key.count(".") > depth for key in given):
        depth += 1
        if len({tuple(key.split(".")[:depth]) for key in given}) > 1:
            break
        stripped = {".".join(key.split(".")[depth:]): shape for key, shape in given.items()}
        if len(stripped.keys() & expected.keys()) > len(best.keys() & expected.keys()):
            best = stripped
    return best


def find_tensor(manifest: CheckpointManifest, key: str) -> TensorEntry | None:
    """The checkpoint's tensor for one of the architecture's keys, by name, with or without a prefix."""
    return next((e for e in manifest.tensors if e.key == key or e.key.endswith("." + key)), None)


def count_classes(manifest: CheckpointManifest, architecture: Architecture, image: ImageShape) -> int | None:
    """The classifier's outputs: rows of the tensor whose shape follows the class count.

    Under other names than the architecture's, rows of the last weight matrix.
    """
    for key in _head_keys(architecture, image):
        entry = find_tensor(manifest, key)
        if entry is not None and entry.shape:
            return entry.shape[0]
    entries = list(manifest.tensors) if manifest.format == "pt" else sorted(manifest.tensors, key=_natural)
    dimensions = (2, 4) if manifest.format == "pt" else (2,)
    weights = [entry for entry in entries if len(entry.shape) in dimensions]
    return weights[-1].shape[0] if weights else None


def _head_keys(architecture: Architecture, image: ImageShape) -> list[str]:
    for device in ("meta", "cpu"):  # a few models compute with tensors while they are built
        try:
            with torch.device(device):
                seven, eleven = (architecture.build(classes, image).state_dict() for classes in (7, 11))
        except UnsupportedError:
            return []  # layers as data have their class count in them
        except (NotImplementedError, RuntimeError):
            continue
        return [key for key, value in seven.items() if value.shape != eleven[key].shape]
    return []

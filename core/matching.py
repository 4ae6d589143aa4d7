"""Matches a checkpoint's keys to an architecture's: by name, after stripping prefixes, or by order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn

from core.errors import CheckpointMismatchError
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

    safetensors files are sorted by name, so for them the modules' natural order (conv2 before conv10) is tried.
    """
    targets = [key for key in expected if not key.endswith(COUNTER)]
    entries = [entry for entry in manifest.tensors if not entry.key.endswith(COUNTER)]
    orders = [entries] if manifest.format == "pt" else [entries, sorted(entries, key=_natural)]
    for order in orders:
        if [entry.shape for entry in order] == [expected[key] for key in targets]:
            pairs = {entry.key: target for entry, target in zip(order, targets, strict=True)}
            counters = [entry.key for entry in manifest.tensors if entry.key.endswith(COUNTER)]
            pairs.update(_counters(counters, pairs))
            if len(pairs) == len(manifest.tensors):
                return KeyMatch("order", {entry.key: pairs[entry.key] for entry in manifest.tensors})
    return None


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
    return "the checkpoint does not fit the architecture; " + "; ".join(parts)


def count_classes(manifest: CheckpointManifest) -> int | None:
    """Rows of the last weight matrix or convolution: the classifier's outputs."""
    weights = [entry for entry in manifest.tensors if len(entry.shape) in (2, 4)]
    if manifest.format == "safetensors":
        weights.sort(key=_natural)
    return weights[-1].shape[0] if weights else None

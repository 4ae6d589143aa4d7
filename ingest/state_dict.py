"""Finds the state dict in what a checkpoint holds: alone, or in a training checkpoint beside other things."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ingest.checkpoint_errors import CheckpointNoStateDictError
from ingest.pickle_values import TensorRef
from ingest.tensors import check_text

# in the order of preference; averaged weights only where there are no others
WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params",
    "state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema",
)  # fmt: skip
_MAX_DEPTH = 3
_MAX_VALUE = 1000  # characters of a text that is kept
_MAX_BESIDE = 1000  # things beside the state dict that are kept or named


@dataclass
class FoundStateDict:
    """A state dict and its surroundings.

    Attributes:
        tensors: by name, in the file's order.
        wrapper: the keys that lead to it from the root.
        extras: plain values beside the outermost wrapper: numbers, texts, None.
        dropped: dotted names of all else, which the prepared checkpoint does not have.
    """

    tensors: dict[str, TensorRef]
    wrapper: list[str] = field(default_factory=list)
    extras: dict[str, Any] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)


def find_state_dict(root: Any) -> FoundStateDict:
    """The state dict in the value that a pickle describes.

    Raises: CheckpointNoStateDictError; CheckpointKeyError for a wrapper that cannot be named.
    """
    found = _find(root, _MAX_DEPTH, set())
    if found is None:
        raise CheckpointNoStateDictError(
            "the file holds no state dict: a dict from names to tensors, alone or under "
            + ", ".join(repr(name) for name in WRAPPERS)
        )
    for name in found.wrapper:
        check_text(name, "the checkpoint's key")
    more = len(found.dropped) - _MAX_BESIDE
    if more > 0:
        found.dropped[_MAX_BESIDE:] = [f"... and {more} more"]
    return found


def _find(value: Any, depth: int, visited: set[int]) -> FoundStateDict | None:
    if not isinstance(value, dict) or depth < 0 or id(value) in visited:
        return None
    visited.add(id(value))  # a dict may hold itself
    for key in _candidates(value):
        inner = _find(value[key], depth - 1, visited)
        if inner is not None:
            return _wrap(key, value, inner)
    tensors = {key: item for key, item in value.items() if isinstance(key, str) and isinstance(item, TensorRef)}
    if not tensors:
        return None
    return FoundStateDict(tensors, dropped=[_shown(key) for key in value if key not in tensors])


def _candidates(value: dict[Any, Any]) -> list[str]:
    """Keys that may lead to the state dict: the known ones, or the only one with a dict of nothing but tensors."""
    known = [key for key in WRAPPERS if isinstance(value.get(key), dict)]
    if known or len(value) > _MAX_BESIDE:
        return known
    dicts = {id(item): item for item in value.values() if isinstance(item, dict)}  # each is looked at once
    full = {key for key, item in dicts.items() if _all_tensors(item)}
    others = [key for key, item in value.items() if id(item) in full]
    return others if len(others) == 1 and isinstance(others[0], str) else []


def _all_tensors(value: dict[Any, Any]) -> bool:
    return len(value) > 0 and all(isinstance(key, str) and isinstance(item, TensorRef) for key, item in value.items())


def _wrap(key: str, value: dict[Any, Any], inner: FoundStateDict) -> FoundStateDict:
    """What lies beside a wrapper: plain values of the outermost one are kept, all else is dropped by name."""
    extras: dict[str, Any] = {}
    dropped = []
    for name, item in value.items():
        if name == key:
            continue
        if isinstance(name, str) and name == _shown(name) and _is_plain(item) and len(extras) < _MAX_BESIDE:
            extras[name] = item
        else:
            dropped.append(_shown(name))
    dropped += [_shown(f"{key}.{name}") for name in (*inner.extras, *inner.dropped)]
    return FoundStateDict(inner.tensors, [key, *inner.wrapper], extras, sorted(dropped))


def _shown(name: Any) -> str:
    """A name as it can be stored and read."""
    text = str(name)[:200]
    return text if text.isprintable() else ascii(text)


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _MAX_VALUE and "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value)
    return value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))

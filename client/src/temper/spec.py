"""The body of POST /jobs, from what a caller gives. What it means is checked by the server alone."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any


def build(spec: Mapping[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """``spec`` with architecture, defense, eps, norm, epochs and name laid over it; None leaves one as it is."""
    body = copy.deepcopy(dict(spec or {}))
    places = {"architecture": "model.architecture", "eps": "threat.eps", "norm": "threat.norm"}
    places |= {"epochs": "training.epochs", "defense": "defense", "name": "name"}
    for field, value in fields.items():
        if value is not None:
            put(body, places[field], value)
    return body


def put(body: dict[str, Any], place: str, value: Any) -> None:
    """Set a value at a dotted place. A bare name below it, or over it, is that of an algorithm: {"name": ...}."""
    *above, last = place.split(".")
    for part in above:
        if not isinstance(body.get(part), dict):
            body[part] = {"name": body[part]} if isinstance(body.get(part), str) else {}
        body = body[part]
    if isinstance(value, str) and isinstance(body.get(last), dict):
        body[last]["name"] = value
    else:
        body[last] = value


def assignment(text: str) -> tuple[str, Any]:
    """ "training.batch_size=64" as place and value: JSON or numbers, if it reads as such. Raises: ValueError."""
    place, equals, value = text.partition("=")
    if not equals or not all(place.split(".")):
        raise ValueError(f"{text!r} is not PLACE=VALUE, for example training.batch_size=64")
    try:
        return place, json.loads(value)
    except ValueError:
        pass
    try:
        return place, [float(part) for part in value.split(",")]  # 0.485,0.456,0.406
    except ValueError:
        return place, value

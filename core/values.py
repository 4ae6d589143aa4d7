"""Number types of the spec: pixel amounts such as "8/255" and step sizes such as "eps/4"."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

_FRACTION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\s*")
_STEP_SIZE = re.compile(r"(?:(?P<factor>\d+(?:\.\d+)?)\*)?eps(?:/(?P<divisor>\d+(?:\.\d+)?|steps))?")


def parse_fraction(value: Any) -> Any:
    """Turn "8/255" into 0.0313...; leave everything else to pydantic."""
    if isinstance(value, str) and (match := _FRACTION.fullmatch(value)):
        numerator, denominator = float(match[1]), float(match[2])
        if denominator == 0:
            raise ValueError("the denominator is 0")
        return numerator / denominator
    return value


Pixels = Annotated[float, BeforeValidator(parse_fraction, json_schema_input_type=float | str), Field(ge=0)]
"""An amount in pixel units: images are in [0, 1]. Accepts "8/255"."""


def _check_step_size(value: float | str) -> float | str:
    if isinstance(value, str) and not _STEP_SIZE.fullmatch(value):
        raise ValueError('a step size is a number, a fraction like "2/255", or like "eps/4" or "2.5*eps/steps"')
    try:
        size = resolve_step_size(value, eps=1, steps=1)
    except ZeroDivisionError:
        size = math.inf
    if not (math.isfinite(size) and size > 0):
        raise ValueError("a step size is finite and greater than 0")
    return value


StepSize = Annotated[
    float | str,
    BeforeValidator(parse_fraction, json_schema_input_type=float | str),
    AfterValidator(_check_step_size),
]
"""A step in pixel units, or relative to the threat model: "eps/4", "2.5*eps/steps"."""


def resolve_step_size(step_size: float | str, *, eps: float, steps: int) -> float:
    """The step in pixel units (in units of the norm for l2)."""
    if not isinstance(step_size, str):
        return step_size
    match = _STEP_SIZE.fullmatch(step_size)
    if match is None:
        raise ValueError(f"not a step size: {step_size!r}")
    divisor = match["divisor"]
    return float(match["factor"] or 1) * eps / (steps if divisor == "steps" else float(divisor or 1))

"""Architectures by name. One file in this folder is one family of architectures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import BeforeValidator

from core.models.base import Architecture, ImageShape
from core.registry import Registry

ARCHITECTURES: Registry[Architecture] = Registry(__name__, Architecture)


def _spelled_out(value: Any) -> Any:
    """Let "timm/resnet50" and {"sequential": [...]}, also as text, stand for their full forms."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"this is not JSON: {error}") from error
    if value in ("sequential", {"name": "sequential"}):
        raise ValueError('give its layers: {"sequential": [{"conv2d": {...}}, "relu", ...]}')
    if isinstance(value, str) and "/" in value:
        library, _, model = value.partition("/")
        return {"name": library, "model": model}
    if isinstance(value, dict) and set(value) == {"sequential"}:
        return {"name": "sequential", "layers": value["sequential"]}
    return value


if TYPE_CHECKING:
    AnyArchitecture: TypeAlias = Architecture
else:
    AnyArchitecture = Annotated[ARCHITECTURES.union(), BeforeValidator(_spelled_out)]

__all__ = ["ARCHITECTURES", "AnyArchitecture", "Architecture", "ImageShape"]

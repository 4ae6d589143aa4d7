"""Which named architecture a checkpoint that does not fit was probably made with."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from core.errors import UnsupportedError
from core.matching import COUNTER, Shape
from core.models import ARCHITECTURES, ImageShape
from core.prepared import CheckpointManifest


def nearest_architecture(manifest: CheckpointManifest, image: ImageShape, num_classes: int) -> str | None:
    """The named architecture whose shapes fit best, and say so only where most of them do."""
    given = sorted(entry.shape for entry in manifest.tensors if not entry.key.endswith(COUNTER))
    best, best_share = None, 0.5
    for name, shapes in _known_shapes(image, num_classes):
        common = _common(given, shapes)
        share = common / max(len(given), len(shapes), 1)
        if share > best_share:
            best, best_share = name, share
    return best


def _known_shapes(image: ImageShape, num_classes: int) -> Iterable[tuple[str, list[Shape]]]:
    candidates = [
        (name, {"name": name}) for name in ARCHITECTURES.names() if name not in ("sequential", "timm", "torchvision")
    ]
    candidates += [
        (f"torchvision/{model}", {"name": "torchvision", "model": model})
        for model in ARCHITECTURES["torchvision"].models()
    ]
    for label, fields in candidates:
        try:
            with torch.device("meta"):
                net = ARCHITECTURES[fields["name"]].model_validate(fields).build(num_classes, image)
        except (NotImplementedError, RuntimeError, UnsupportedError):
            continue  # a few torchvision models compute with tensors while they are built
        state = net.state_dict()
        yield label, sorted(tuple(v.shape) for key, v in state.items() if not key.endswith(COUNTER))


def _common(a: list[Shape], b: list[Shape]) -> int:
    remaining = list(b)
    common = 0
    for shape in a:
        if shape in remaining:
            remaining.remove(shape)
            common += 1
    return common

"""A few adversarial examples to look at: the image, the perturbation magnified, what came of it, and the labels.

They are chosen to show what can happen, not how often: how often is what the suite counts.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from core.attacks.pgd import PGD
from core.data import some
from core.evaluate import Bench
from core.models.classifier import Classifier, frozen
from core.rng import Rng, derive_seed
from core.tally import Mask
from core.threat import ThreatModel

NAME = "examples.json"
_TRIED, _EACH = 32, 3  # images that are attacked; how many of each kind are shown
_WIDEST, _EXACT = 128, 64  # pixels: larger images are shown smaller; larger than this, as JPEG
_ATTACK = PGD(steps=10)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Picture(_Part):
    """An image file: its media type and its bytes in base64."""

    media_type: str
    content: str


class Outcome(_Part):
    """One model attacked on one image: what it said before and after, and the softmax of each, in [0, 1].

    ``magnified``: what the perturbation was multiplied by to be seen; grey is no change.
    """

    clean: int
    clean_confidence: float
    attacked: int
    attacked_confidence: float
    perturbation: Picture
    adversarial: Picture
    magnified: float


class Example(_Part):
    """One test image. ``kind``: what became of it on the model that ships.

    "withstands": this attack fools the model before hardening, and none of the suite fools the one that ships.
    "fooled": this attack fools the one that ships.
    """

    id: int
    label: int
    kind: Literal["withstands", "fooled"]
    picture: Picture
    before: Outcome
    after: Outcome | None


class Examples(_Part):
    """Chosen among ``tried`` images, drawn by the seed, that every model shown classifies correctly."""

    attack: str
    steps: int
    threat: ThreatModel
    tried: int
    class_names: tuple[str, ...] | None
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class _Attacked:
    """One model on the images tried, (n, ...) on the CPU."""

    x: Tensor
    x_adv: Tensor
    clean: Tensor
    attacked: Tensor


def choose_examples(
    before: Classifier,
    after: Classifier | None,
    bench: Bench,
    threat: ThreatModel,
    class_names: Sequence[str] | None,
    robust: Mask,
) -> Examples:
    """Attack a few images on both models, and pick some of each outcome, of different classes where there are any.

    Args:
        after: the hardened model; None if nothing was trained.
        robust: (n,), which of the bench's images no attack of the suite fooled on the model that ships.
    """
    models = [model for model in (before, after) if model is not None]
    rows = some(bench.images, 4 * _TRIED, bench.seed)
    drawn = bench.images.choose(rows)
    right = np.ones(len(drawn), bool)
    for model in models:
        right &= _labels(model, replace(bench, images=drawn)) == drawn.labels[drawn.ids]
    tried = np.flatnonzero(right)[:_TRIED]
    shown = replace(bench, images=drawn.choose(tried))
    sides = [_attack(model, shown, threat) for model in models] if len(shown.images) else []
    return Examples(
        attack=_ATTACK.name,
        steps=_ATTACK.steps,
        threat=threat,
        tried=len(shown.images),
        class_names=tuple(class_names) if class_names else None,
        examples=tuple(_pick(sides, shown, robust[rows[tried]])) if sides else (),
    )


def write_examples(folder: Path, examples: Examples) -> Path:
    """Write ``examples.json``; returns its path."""
    path = folder / NAME
    temporary = path.with_suffix(".tmp")
    temporary.write_text(examples.model_dump_json(), encoding="utf-8")
    temporary.replace(path)
    return path


def _labels(model: Classifier, bench: Bench) -> np.ndarray:
    with frozen(model), torch.no_grad():
        parts = [model(x).argmax(1).cpu() for _, x, _, _ in bench.batches(np.arange(len(bench.images)))]
    found: np.ndarray = torch.cat(parts).numpy()
    return found


def _attack(model: Classifier, bench: Bench, threat: ThreatModel) -> _Attacked:
    seed, parts = derive_seed(bench.seed, "examples"), []
    for _, x, y, ids in bench.batches(np.arange(len(bench.images))):
        x_adv = _ATTACK.perturb(model, x, y, threat, Rng.for_images(seed, ids))
        with frozen(model), torch.no_grad():
            parts.append([part.cpu() for part in (x, x_adv, model(x).softmax(1), model(x_adv).softmax(1))])
    return _Attacked(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _pick(sides: list[_Attacked], bench: Bench, robust: Mask) -> Iterator[Example]:
    labels = torch.from_numpy(bench.labels)
    fooled = [side.attacked.argmax(1) != labels for side in sides]
    kinds: list[tuple[Literal["withstands", "fooled"], Tensor]] = [("fooled", fooled[-1])]
    if len(sides) == 2:
        kinds.insert(0, ("withstands", fooled[0] & ~fooled[1] & torch.from_numpy(robust)))
    for kind, chosen in kinds:
        rows = chosen.nonzero().flatten().tolist()
        first_of_class = {int(labels[row]): row for row in reversed(rows)}
        first = sorted(first_of_class.values())
        for row in [*first, *(row for row in rows if row not in first)][:_EACH]:
            outcomes = [_outcome(side, row) for side in sides]
            yield Example(
                id=int(bench.images.ids[row]),
                label=int(labels[row]),
                kind=kind,
                picture=_picture(sides[0].x[row]),
                before=outcomes[0],
                after=outcomes[1] if len(outcomes) == 2 else None,
            )


def _outcome(side: _Attacked, row: int) -> Outcome:
    change = side.x_adv[row] - side.x[row]
    largest = float(change.abs().max())
    factor = 0.5 / largest if largest > 0 else 1.0
    clean, attacked = side.clean[row].max(0), side.attacked[row].max(0)
    return Outcome(
        clean=int(clean.indices),
        clean_confidence=float(clean.values),
        attacked=int(attacked.indices),
        attacked_confidence=float(attacked.values),
        perturbation=_picture(0.5 + factor * change, Image.Resampling.NEAREST),
        adversarial=_picture(side.x_adv[row]),
        magnified=factor,
    )


def _picture(x: Tensor, resampling: Image.Resampling = Image.Resampling.BICUBIC) -> Picture:
    """(c, h, w) in [0, 1]; the first channel is shown as grey if there are not three.

    A perturbation is made smaller by leaving out pixels: their mean would all but cancel, and look harmless.
    """
    pixels = (x * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    image.thumbnail((_WIDEST, _WIDEST), resampling)
    kind = "png" if max(image.size) <= _EXACT else "jpeg"
    buffer = io.BytesIO()
    image.save(buffer, format=kind, quality=85, subsampling=0)  # both for JPEG: colours of single pixels stay
    return Picture(media_type=f"image/{kind}", content=base64.b64encode(buffer.getvalue()).decode())

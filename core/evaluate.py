"""The one evaluation loop: clean accuracy and each attack of a suite, every success verified."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from core.attacks.base import Attack
from core.data import ImageSet, chunks
from core.errors import BadLogitsError
from core.models.classifier import Classifier, frozen
from core.projections import norm_of
from core.report import AttackResult, Count, Side
from core.rng import Rng, derive_seed
from core.suites import Entry
from core.threat import ThreatModel

Mask = npt.NDArray[np.bool_]
Progress = Callable[[float], None]

_TOLERANCE = 1e-5  # of eps, and absolute: fp32 rounding of a projection


@dataclass(frozen=True)
class Outcome:
    """A side of the report, and image by image what it rests on."""

    side: Side
    clean: Mask
    robust: Mask

    def to_json(self) -> dict[str, Any]:
        """Plain values, to resume from."""
        return {
            "side": self.side.model_dump(mode="json"),
            "clean": _bits(self.clean),
            "robust": _bits(self.robust),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Outcome:
        """The inverse of ``to_json``."""
        return cls(Side.model_validate(data["side"]), _mask(data["clean"]), _mask(data["robust"]))

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(self.to_json()))


def _bits(mask: Mask) -> str:
    return "".join("1" if bit else "0" for bit in mask)


def _mask(bits: str) -> Mask:
    return np.array([bit == "1" for bit in bits], bool)


def evaluate(
    model: Classifier,
    images: ImageSet,
    suite: list[Entry],
    *,
    num_classes: int,
    headline: ThreatModel,
    seed: int,
    batch_size: int,
    device: torch.device,
    on_progress: Progress,
) -> Outcome:
    """Clean accuracy, accuracy under each attack alone, and the worst case per image over those that count.

    An attack counts if it is bounded and stays within the ``headline`` threat model. All shares are of all
    images; only correctly classified ones are attacked, since a wrong one needs no attack.
    """
    clean = predict_correct(model, images, num_classes=num_classes, batch_size=batch_size, device=device)
    robust = clean.copy()
    results = []
    total_work = sum(entry.attack.fb_per_image() for entry in suite)
    done = 0
    for attack, threat in suite:
        work = attack.fb_per_image()

        def attacked(share: float, done: int = done, work: int = work) -> None:
            on_progress((done + share * work) / total_work)

        standing = survivors(
            model,
            images,
            clean,
            attack,
            threat,
            seed=seed,
            batch_size=batch_size,
            device=device,
            on_progress=attacked,
        )
        done += work
        # a success within a smaller ball is one within the larger ball too
        counted = attack.bounded and threat.norm == headline.norm and threat.eps <= headline.eps
        if counted:
            robust &= standing
        count = Count.of(int(standing.sum()), len(images))
        results.append(
            AttackResult(
                **count.model_dump(),
                name=attack.name,
                params=attack.model_dump(mode="json", exclude={"name"}),
                threat=threat,
                counted=counted,
            )
        )
    side = Side(
        clean=Count.of(int(clean.sum()), len(images)),
        attacks=tuple(results),
        robust=Count.of(int(robust.sum()), len(images)),
    )
    return Outcome(side, clean, robust)


def predict_correct(
    model: Classifier, images: ImageSet, *, num_classes: int, batch_size: int, device: torch.device
) -> Mask:
    """Which images the model classifies correctly.

    Raises: BadLogitsError if it returns anything but one finite logit for each class.
    """
    correct = np.zeros(len(images), bool)
    with frozen(model), torch.inference_mode():
        for rows in chunks(np.arange(len(images)), batch_size):
            x, y, _ = images.batch(rows, device)
            logits = model(x)
            _check_logits(logits, len(x), num_classes)
            correct[rows] = (logits.argmax(1) == y).cpu().numpy()
    return correct


def _check_logits(logits: Tensor, count: int, num_classes: int) -> None:
    if logits.shape != (count, num_classes):
        raise BadLogitsError(
            f"the model returned shape {tuple(logits.shape)} for {count} images; expected {(count, num_classes)}",
            "check model.num_classes and model.architecture",
        )
    if not torch.isfinite(logits).all():
        raise BadLogitsError(
            "the model returned NaN or infinite logits",
            "check the weights, and that model.mean and model.std are those it was trained with",
        )


def survivors(
    model: Classifier,
    images: ImageSet,
    candidates: Mask,
    attack: Attack,
    threat: ThreatModel,
    *,
    seed: int,
    batch_size: int,
    device: torch.device,
    on_progress: Progress = lambda _: None,
) -> Mask:
    """Which of the candidates are still classified correctly under the attack."""
    standing = candidates.copy()
    rows = np.flatnonzero(candidates)
    purpose = derive_seed(seed, "attack", attack.model_dump_json(), threat.model_dump_json())
    for number, piece in enumerate(chunks(rows, batch_size), 1):
        x, y, ids = images.batch(piece, device)
        x_adv = attack.perturb(model, x, y, threat, Rng.for_images(purpose, ids))
        standing[piece] = ~fooled(model, x_adv, x, y, threat if attack.bounded else None).cpu().numpy()
        on_progress(min(1.0, number * batch_size / len(rows)))
    return standing


def fooled(model: Classifier, x_adv: Tensor, x: Tensor, y: Tensor, threat: ThreatModel | None) -> Tensor:
    """Verify adversarial examples once more and say which are misclassified, (n,) bool.

    The prediction is made anew at another batch size than the attack's, so no success rests on a numerical
    accident of its batch. ``threat`` None: unbounded, only the box is checked.

    Raises: AssertionError if an example is not finite, outside the box or outside the ball: the attack is broken.
    """
    if not torch.isfinite(x_adv).all() or x_adv.min() < 0 or x_adv.max() > 1:
        raise AssertionError("an adversarial example is not finite or not in [0, 1]")
    if threat is not None:
        worst = norm_of(x_adv - x, threat.norm).max().item()
        if worst > threat.eps * (1 + _TOLERANCE) + _TOLERANCE:
            raise AssertionError(f"an adversarial example has {threat.norm} norm {worst}, over eps {threat.eps}")
    with frozen(model), torch.inference_mode():
        logits = torch.cat([model(part) for part in torch.split(x_adv, len(x_adv) // 2 + 1)])
    if not torch.isfinite(logits).all():
        raise BadLogitsError("the model returned NaN or infinite logits for adversarial examples inside [0, 1]")
    return logits.argmax(1) != y

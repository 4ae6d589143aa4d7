"""Whether an uploaded checkpoint is right about its images at all, and what was most likely forgotten if it is not."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from core.data import ImageSet, some
from core.errors import BadLogitsError, BaselineTooLowError
from core.evaluate import Bench, predict
from core.models.classifier import Classifier
from core.parallel import ALONE
from core.stats import mcnemar
from core.tally import Integers, Mask

Values = list[float]

_NEAR_CHANCE = 0.1  # clean accuracy less than this far on the way from chance to 1 is near chance
_IMAGES = 500
_GAIN, _P_VALUE = 0.1, 1e-4  # so much more accuracy under another reading of images or answers is no accident
_A_CLASS = 10  # images of each, to read an order of the classes from
_NAMED = 5
_USUAL: tuple[tuple[str, Values, Values], ...] = (
    ("pixels from 0 to 1 as they are", [0.0], [1.0]),
    ("pixels from -1 to 1", [0.5], [0.5]),
    ("pixels from 0 to 255", [0.0], [1 / 255]),
    ("ImageNet's", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ("CIFAR-10's", [0.4914, 0.4822, 0.4465], [0.247, 0.2435, 0.2616]),
    ("MNIST's", [0.1307], [0.3081]),
    ("Fashion-MNIST's", [0.286], [0.353]),
)
_OFTEN = [each for each in _USUAL if each[0] in ("pixels from 0 to 1 as they are", "pixels from -1 to 1", "ImageNet's")]
_SIDES = (32, 64, 96, 128, 224)  # pixels that people resize to
_LOST = 0.3  # so far on the way from chance to 1, other sizes are tried, which costs more
_OF_OTHER_SIZE = 60  # images
_ALL_THE_SAME = "; evaluation.allow_low_baseline goes on all the same"


class Reading(NamedTuple):
    """A way to read the images: what the normalisation is called, its numbers, the shorter side in pixels."""

    name: str
    mean: Values
    std: Values
    side: int
    accuracy: float


def check_baseline(model: Classifier, bench: Bench, predictions: Integers, *, chance: float, matched_by: str) -> None:
    """Training and attacks on a model that reads its images or classes otherwise would be for nothing.

    Args:
        predictions: (n,), of the clean images.
        chance: the accuracy of a guess.
        matched_by: how keys were matched, for the hint.
    Raises: BaselineTooLowError: clean accuracy is near chance, or far better under a usual normalisation that the
        spec does not name, with the images in another size, or with the classes in another order.
    """
    right = predictions == bench.labels
    found = f"clean accuracy of the uploaded checkpoint is {right.mean():.1%} of {len(right)} test images"
    # one rank looks for all, or they might not agree
    better = bench.team.first(lambda: _better_normalisation(model, bench, right))
    lost = right.mean() < chance + _LOST * (1 - chance)
    resized = bench.team.first(lambda: _better_size(model, bench, right)) if lost else None
    if resized is not None and (better is None or resized.accuracy > better.accuracy + _GAIN):
        side, mean, std = resized.side, resized.mean, resized.std
        raise BaselineTooLowError(
            f"{found}, and {resized.accuracy:.1%} with a shorter side of {side} pixels, normalisation {resized.name}",
            f"give data.resize={side} (or arrays of that size), model.mean={mean} and model.std={std}{_ALL_THE_SAME}",
        )
    if better is not None:
        raise BaselineTooLowError(
            f"{found}, and {better.accuracy:.1%} with another normalisation: {better.name}",
            f"give them as it was trained, near model.mean={better.mean} and model.std={better.std}{_ALL_THE_SAME}",
        )
    if (order := _other_order(predictions, bench)) is not None:
        named, accuracy = order
        raise BaselineTooLowError(
            f"{found}, and {accuracy:.1%} if its classes had another order: {named}",
            f"number the classes of the data as the model was trained{_ALL_THE_SAME}",
        )
    if right.mean() < chance + _NEAR_CHANCE * (1 - chance):
        raise BaselineTooLowError(
            f"{found}, near chance ({chance:.1%}: always the most frequent class)",
            "wrong normalisation (model.mean, model.std), another image size (data.resize), class order, or key match "
            f"(keys were matched by {matched_by})? The usual ones were tried{_ALL_THE_SAME.replace(';', '')}",
        )


def _better_normalisation(model: Classifier, bench: Bench, right: Mask) -> Reading | None:
    """The usual normalisation under which the model is far better, and best."""
    rows = some(bench.images, _IMAGES, bench.seed)
    few = replace(bench, images=bench.images.choose(rows), team=ALONE)
    best, most = None, right[rows]
    for name, mean, std in (*_USUAL, ("mean and deviation of these images", *_own(few))):
        so = _reads(model, few, mean, std)
        if so is not None and so.sum() > most.sum() and _certain(so, right[rows]):
            best, most = Reading(name, mean, std, min(few.images.pixels.shape[2:]), float(so.mean())), so
    return best


def _better_size(model: Classifier, bench: Bench, right: Mask) -> Reading | None:
    """The usual size, and with it normalisation, under which the model is far better, and best."""
    rows = some(bench.images, _OF_OTHER_SIZE, bench.seed)
    x, y, _ = bench.images.batch(rows, torch.device("cpu"))
    told = [[round(float(value), 6) for value in each.flatten()] for each in (model.mean, model.std)]
    best, most = None, right[rows]
    for side in _SIDES:
        if side == min(x.shape[2:]):
            continue
        size = [round(length * side / min(x.shape[2:])) for length in x.shape[2:]]
        other = F.interpolate(x, size, mode="bilinear", antialias=True)
        few = replace(bench, images=ImageSet(other.numpy(), y.numpy(), np.arange(len(y))), team=ALONE)
        try:
            for name, mean, std in (("as given", told[0], told[1]), *_OFTEN):
                so = _reads(model, few, mean, std)
                if so is not None and so.sum() > most.sum() and _certain(so, right[rows]):
                    best, most = Reading(name, mean, std, side, float(so.mean())), so
        except RuntimeError:  # the network takes no images of this size
            continue
    return best


def _reads(model: Classifier, bench: Bench, mean: Values, std: Values) -> Mask | None:
    """Which images it is right about under a normalisation; None where it cannot be used with such images."""
    if len(mean) not in (1, bench.images.pixels.shape[1]):
        return None
    other = Classifier(model.net, mean=mean, std=std).to(bench.device)
    other.cost, other.on_forward = model.cost, model.on_forward
    try:
        right: Mask = predict(other, bench) == bench.labels
    except BadLogitsError:  # numbers that it was never meant to see
        return None
    return right


def _own(bench: Bench) -> tuple[Values, Values]:
    """Mean and standard deviation of each channel."""
    x, _, _ = bench.images.batch(np.arange(len(bench.images)), torch.device("cpu"))
    mean, std = x.mean((0, 2, 3)), x.std((0, 2, 3)).clamp_min(0.01)
    return [round(float(value), 4) for value in mean], [round(float(value), 4) for value in std]


def _other_order(predictions: Integers, bench: Bench) -> tuple[str, float] | None:
    """The order of the classes under which the model is far better, in words, and its accuracy."""
    counts = np.zeros((bench.num_classes, bench.num_classes), int)
    np.add.at(counts, (bench.labels, predictions), 1)
    called = counts.argmax(1)
    if len(np.unique(called)) < bench.num_classes or counts.sum() < _A_CLASS * bench.num_classes:
        return None
    so = called[bench.labels] == predictions
    if not _certain(so, predictions == bench.labels):
        return None
    moved = [f"{label} is called {name}" for label, name in enumerate(called.tolist()) if label != name]
    return ", ".join(moved[:_NAMED]) + ", ..." * (len(moved) > _NAMED), float(so.mean())


def _certain(so: Mask, right: Mask) -> bool:
    gained, lost = int((so & ~right).sum()), int((right & ~so).sum())
    return gained - lost > _GAIN * len(so) and mcnemar(gained, lost) < _P_VALUE

"""Accuracy under the common corruptions of Hendrycks and Dietterich 2019, https://arxiv.org/abs/1903.12261."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from core.corruptions import CORRUPTIONS, HOU, MAIN, SEVERITIES, corrupt
from core.evaluate import Bench
from core.models.classifier import Classifier, frozen
from core.report import CorruptionAccuracy, Corruptions
from core.rng import Rng, derive_seed

PASSES = len(CORRUPTIONS) * len(SEVERITIES)


def corruption_accuracy(
    model: Classifier, bench: Bench, done: dict[str, list[float]], *, on_each: Callable[[], None] = lambda: None
) -> Corruptions:
    """All corruptions at all severities.

    Args:
        done: accuracies by corruption, so far; what is in it is not measured again, and what is measured is added.
        on_each: called after each corruption.
    """
    for name in CORRUPTIONS:
        if name not in done:
            done[name] = [_accuracy(model, bench, name, severity) for severity in SEVERITIES]
            on_each()
    results = [
        CorruptionAccuracy(name=name, accuracy=tuple(done[name]), mean=float(np.mean(done[name])))
        for name in CORRUPTIONS
    ]
    means = {result.name: result.mean for result in results}
    return Corruptions(
        images=len(bench.images),
        mean=float(np.mean([means[name] for name in MAIN])),
        mean_all=float(np.mean(list(means.values()))),
        mean_hou=float(np.mean([means[name] for name in HOU])),
        results=tuple(results),
    )


def _accuracy(model: Classifier, bench: Bench, name: str, severity: int) -> float:
    purpose = derive_seed(bench.seed, "corruption", name, severity)
    correct = 0
    with frozen(model), torch.no_grad():
        for _, x, y, ids in bench.batches(bench.team.share(np.arange(len(bench.images)))):
            corrupted = corrupt(name, x, severity, Rng.for_images(purpose, ids))
            correct += int((model(corrupted).argmax(1) == y).sum())
    return int(bench.team.sum(torch.tensor(correct))) / len(bench.images)

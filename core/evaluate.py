"""The one evaluation loop: clean predictions and each attack of a suite, every success verified."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from core.attacks.base import Attack, Found, Run
from core.data import Ids, ImageSet, chunks
from core.errors import BadLogitsError
from core.models.classifier import Classifier, frozen
from core.parallel import ALONE, Team
from core.projections import norm_of
from core.rng import Rng, derive_seed
from core.suites import Entry, Suite
from core.tally import Integers, Ledger, Mask, Place, Tally
from core.threat import ThreatModel

Watch = Callable[[float], None]
"""Told the fraction done after every batch; may raise Stopped."""

_TOLERANCE = 1e-5  # of eps, and absolute: fp32 rounding of a projection
_HALF_ULP = 2.0**-25  # of float32 below 1: the rounding of x + d in each pixel, which l1 adds up
_WAVE_BYTES = 64 << 20  # of results that one run hands to the next; they are in the saved state too
_RANDOM_PASSES, _RANDOM_DIFFERENCE = 5, 1e-4  # of the logits' norm: a randomised model by AutoAttack's own check


@dataclass(frozen=True)
class Bench:
    """What every attack of an evaluation shares: the images, how to go over them, and the ranks that do."""

    images: ImageSet
    num_classes: int
    seed: int
    batch_size: int
    device: torch.device
    team: Team = ALONE

    def batches(self, rows: Ids) -> Iterator[tuple[Ids, Tensor, Tensor, Tensor]]:
        """Pieces of ``rows`` with their images, labels and ids."""
        for piece in chunks(rows, self.batch_size):
            yield (piece, *self.images.batch(piece, self.device))

    @property
    def labels(self) -> Integers:
        """The true labels, in order."""
        return self.images.labels[self.images.ids]


def evaluate(
    model: Classifier,
    bench: Bench,
    suite: Suite,
    *,
    ledger: Ledger | None = None,
    on_batch: Watch = lambda _: None,
) -> Ledger:
    """Clean predictions, then attack by attack; only correctly classified images are attacked.

    Args:
        ledger: where to go on from; it is filled in place, so that the caller can save it in ``on_batch``.
    Raises: BadLogitsError if the model returns anything but one finite logit for each class.
    """
    ledger = ledger or Ledger()
    correct = predict_once(model, bench, ledger) == bench.labels
    entries = entries_for(suite, randomised=ledger.randomised)
    for number, (attack, threat) in enumerate(entries):
        if number < len(ledger.tallies) - 1 or (number < len(ledger.tallies) and ledger.place is None):
            continue  # finished before the evaluation was interrupted
        if number == len(ledger.tallies):
            candidates = correct.copy()
            for earlier, entry in zip(ledger.tallies, entries, strict=False):
                if suite.cascade and entry.attack.bounded:
                    candidates &= ~earlier.fooled
            ledger.tallies.append(Tally.of(candidates))
            ledger.place = Place(0, 0, np.zeros(len(correct), bool))
        for left in attack_images(model, bench, attack, threat, ledger.tallies[-1], ledger.place):
            later = _later_work(entries[number + 1 :], bench, ledger, correct, cascade=suite.cascade)
            done = _work_done(entries, ledger, bench) - left
            ledger.steps += 1
            on_batch(done / max(done + left + later, 1e-9))
        ledger.place = None
    return ledger


def predict_once(model: Classifier, bench: Bench, ledger: Ledger) -> Integers:
    """The clean predictions, made at the first call and kept in the ledger."""
    if ledger.predictions is None:
        predictions = predict(model, bench)
        ledger.randomised = bench.team.first(lambda: is_randomised(model, bench))
        ledger.predictions = predictions  # last: a stop in between must not leave half of it
    return ledger.predictions


def entries_for(suite: Suite, *, randomised: bool) -> tuple[Entry, ...]:
    """The attacks to run on such a model."""
    return suite.if_randomised if randomised and suite.if_randomised is not None else suite.entries


def _work_done(entries: tuple[Entry, ...], ledger: Ledger, bench: Bench) -> float:
    begun = zip(ledger.tallies, entries, strict=False)
    return sum(float(tally.attacked.sum()) * entry.attack.fb_per_image(bench.num_classes) for tally, entry in begun)


def _later_work(entries: tuple[Entry, ...], bench: Bench, ledger: Ledger, correct: Mask, *, cascade: bool) -> float:
    images = ledger.tallies[-1].standing if cascade else correct
    return float(images.sum()) * sum(entry.attack.fb_per_image(bench.num_classes) for entry in entries)


def attack_images(
    model: Classifier, bench: Bench, attack: Attack, threat: ThreatModel, tally: Tally, place: Place | None = None
) -> Iterator[float]:
    """Run an attack on the images that ``tally`` names, and record what falls; yields the FB left after each batch.

    A run sees only images that are still standing, packed into full batches. An attack whose runs build on each other
    takes the images in waves, so that what is kept between runs stays small.
    """
    place = place or Place(0, 0, np.zeros(len(tally.attacked), bool))
    purpose = derive_seed(bench.seed, "attack", attack.model_dump_json(), threat.model_dump_json())
    work = attack.work(bench.num_classes)
    waves = _waves(attack, bench, np.flatnonzero(tally.attacked))
    while place.wave < len(waves):
        wave = waves[place.wave]
        unseen = sum(len(later) for later in waves[place.wave + 1 :]) * sum(work)
        while place.run < len(work):
            for piece in chunks(wave[tally.standing[wave] & ~place.done[wave]], bench.batch_size * bench.team.size):
                found, proof = _attack_share(model, bench, attack, threat, purpose, place, piece)
                _record(tally, piece, proof, found.queries)
                place.done[piece] = True
                if attack.carries_on:
                    _remember(place, piece, found.x_adv, proof.fooled)
                to_do = int((tally.standing[wave] & ~place.done[wave]).sum())
                again = int(tally.standing[wave].sum()) * sum(work[place.run + 1 :])
                yield to_do * work[place.run] + again + unseen
            place.run += 1
            place.done[:] = False
        place.wave, place.run = place.wave + 1, 0
        place.last.clear()
    if (tally.queries[tally.attacked] == 0).any():
        raise AssertionError(f"attack {attack.name!r} left out images that it was to attack")


def _attack_share(
    model: Classifier, bench: Bench, attack: Attack, threat: ThreatModel, purpose: int, place: Place, piece: Ids
) -> tuple[Found, Proof]:
    """One run on a batch: every rank attacks its images of it, and all hear what came of them."""
    team = bench.team
    mine = team.share(piece)
    x, y, ids = bench.images.batch(mine, bench.device)
    if len(mine):
        last = _last(place, mine, x) if attack.carries_on else x
        found = attack.perturb_once(model, x, y, threat, Rng.for_images(purpose, ids), Run(place.run, last))
        proof = verify(model, found.x_adv, x, y, threat.norm, threat.eps if attack.bounded else None)
    else:
        found, proof = Found(x, y), Proof(y.bool(), y, y.float())
    queries, results = team.whole(found.queries, len(piece)), [team.whole(part, len(piece)) for part in proof]
    x_adv = team.whole(found.x_adv, len(piece)) if attack.carries_on else found.x_adv
    return Found(x_adv, queries), Proof(*results)


def _waves(attack: Attack, bench: Bench, rows: Ids) -> list[Ids]:
    if not attack.carries_on:
        return [rows]
    # of images alone, not of the batch: a saved place must mean the same on another device
    image_bytes = 4 * int(np.prod(bench.images.pixels.shape[1:]))
    return list(chunks(rows, max(1, _WAVE_BYTES // image_bytes)))


def _last(place: Place, piece: Ids, x: Tensor) -> Tensor:
    if place.run == 0:
        return x
    return torch.from_numpy(np.stack([place.last[row] for row in piece.tolist()])).to(x.device)


def _remember(place: Place, piece: Ids, x_adv: Tensor, fooled: Tensor) -> None:
    for row, image, out in zip(piece.tolist(), x_adv.cpu().numpy(), fooled.tolist(), strict=True):
        if out:
            place.last.pop(row, None)
        else:
            place.last[row] = image


def _record(tally: Tally, piece: Ids, proof: Proof, queries: Tensor) -> None:
    fooled = proof.fooled.cpu().numpy()
    tally.queries[piece] += queries.cpu().numpy()
    tally.fooled[piece] = fooled
    tally.distance[piece[fooled]] = proof.distance.cpu().numpy()[fooled]
    tally.prediction[piece[fooled]] = proof.prediction.cpu().numpy()[fooled]


def predict(model: Classifier, bench: Bench) -> Integers:
    """The label that the model gives each clean image.

    Raises: BadLogitsError if it returns anything but one finite logit for each class.
    """
    predictions = np.zeros(len(bench.images), np.int64)
    mine = bench.team.share(np.arange(len(bench.images)))
    with frozen(model), torch.no_grad():
        for rows, x, _, _ in bench.batches(mine):
            logits = model(x)
            _check_logits(logits, len(x), bench.num_classes)
            predictions[rows] = logits.argmax(1).cpu().numpy()
    return bench.team.whole(torch.from_numpy(predictions[mine]), len(predictions)).numpy()


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
    if logits.min() >= 0 and ((logits.sum(1) - 1).abs() < 1e-5).all():
        raise BadLogitsError(
            "the model returned probabilities (each row is 0 or more and sums to 1), not logits",
            "remove the softmax at its end: attacks need the logits",
        )


def is_randomised(model: Classifier, bench: Bench) -> bool:
    """Whether the same images get different logits from pass to pass."""
    x, _, _ = bench.images.batch(np.arange(min(64, len(bench.images))), bench.device)
    with frozen(model), torch.no_grad():
        passes = [model(x) for _ in range(_RANDOM_PASSES)]
    scale = passes[0].norm(dim=1).clamp_min(1e-12)
    return any(bool(((other - passes[0]).norm(dim=1) / scale > _RANDOM_DIFFERENCE).any()) for other in passes[1:])


def survivors(model: Classifier, bench: Bench, candidates: Mask, attack: Attack, threat: ThreatModel) -> Mask:
    """Which of the candidates are still classified correctly under the attack."""
    tally = Tally.of(candidates)
    for _ in attack_images(model, bench, attack, threat, tally):
        pass
    return tally.standing


class Proof(NamedTuple):
    """What a second look at adversarial examples saw, (n,) each."""

    fooled: Tensor
    prediction: Tensor
    distance: Tensor


def verify(model: Classifier, x_adv: Tensor, x: Tensor, y: Tensor, norm: str, eps: float | None) -> Proof:
    """Check adversarial examples once more and say which are misclassified.

    The prediction is made anew at another batch size than the attack's (unless it is a single image), so no success
    rests on a numerical accident of its batch. ``eps`` None: unbounded, only the box is checked.

    Raises: AssertionError if an example is not finite, outside the box or outside the ball: the attack is broken.
    """
    if not torch.isfinite(x_adv).all() or x_adv.min() < 0 or x_adv.max() > 1:
        raise AssertionError("an adversarial example is not finite or not in [0, 1]")
    distance = norm_of(x_adv - x, norm)
    if eps is not None:
        allowed = distance.new_full((len(x),), eps * (1 + _TOLERANCE) + _TOLERANCE)
        if norm == "l1":
            allowed += _HALF_ULP * (x_adv != x).flatten(1).sum(1)
        if (distance > allowed).any():
            raise AssertionError(f"an adversarial example has {norm} norm {distance.max().item()}, over eps {eps}")
    with frozen(model), torch.no_grad():
        logits = torch.cat([model(part) for part in torch.split(x_adv, (len(x_adv) + 1) // 2)])
    if not torch.isfinite(logits).all():
        raise BadLogitsError("the model returned NaN or infinite logits for adversarial examples inside [0, 1]")
    prediction = logits.argmax(1)
    return Proof(prediction != y, prediction, distance)

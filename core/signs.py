"""The single checks of the diagnosis: what each measures, and when it is raised."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from core.attacks.ascent import ascend
from core.attacks.base import Attack
from core.attacks.i_fgsm import IFGSM
from core.attacks.pgd import PGD
from core.evaluate import Bench
from core.gradients import slope
from core.losses import cross_entropy_margin
from core.models.classifier import Classifier, frozen
from core.projections import largest_to_one, norm_of, per_image, uniform_in_ball
from core.report import Side, Sign
from core.rng import Rng, derive_seed
from core.suites import Entry
from core.tally import Mask
from core.threat import ThreatModel
from core.values import resolve_step_size

Severity = Literal["masking", "weak", "note"]

_AT_LEAST = 2  # images: fewer never raise a sign, since any attack misses one
_MISSED = 0.3  # of the planted examples; honest models were seen to hide up to a tenth
_KEPT_BEFORE = 0.5  # of the correct images
_LAST_QUARTER = 0.2  # of the gain in loss; steady progress would make a quarter
_TINY_NOISE = 1e-4  # a fortieth of a step of 8-bit pixels
_SATURATED = 104.0  # a logit gap from which float32 softmax has an exact 0, and cross-entropy no gradient


def share(code: str, severity: Severity, count: int, total: int, threshold: float, evidence: str, meaning: str) -> Sign:
    """Raised if more than ``threshold`` of all images, and two at least, do what ``evidence`` says."""
    count = max(count, 0)
    value = count / total if total else 0.0
    raised = count >= _AT_LEAST and value > threshold
    sentence = f"{count} of {total} images {evidence}"
    return Sign(
        code=code,
        raised=raised,
        severity=severity,
        value=value,
        threshold=threshold,
        sentence=f"{sentence}: {meaning}" if raised else sentence,
    )


def _yes_or_no(code: str, severity: Severity, raised: bool, sentence: str) -> Sign:
    return Sign(code=code, raised=raised, severity=severity, value=None, threshold=None, sentence=sentence)


def other_weights(model: Classifier, deployed: Classifier | None, bench: Bench, *, randomised: bool) -> Sign:
    """Is what was attacked what ships? The weights, and unless they are random the outputs."""
    if deployed is None:
        return _yes_or_no("other-weights", "masking", False, "there is no shipped file to compare with")
    x, _, _ = bench.images.batch(np.arange(min(len(bench.images), bench.batch_size)), bench.device)
    ours, theirs = model.net.state_dict(), deployed.net.state_dict()
    same = ours.keys() == theirs.keys() and all(torch.equal(value, theirs[key]) for key, value in ours.items())
    if same and not randomised:
        with frozen(model), frozen(deployed), torch.no_grad():
            same = torch.allclose(model(x), deployed(x), rtol=1e-4, atol=1e-5)
    sentence = "the attacked network is the checkpoint" if same else "the attacked network is not the checkpoint's"
    return _yes_or_no("other-weights", "masking", not same, sentence)


def training_mode(model: Classifier) -> Sign:
    """Does a module stay in training mode (dropout on, BatchNorm on the batch) when asked to evaluate?"""
    with frozen(model):
        stuck = [name for name, module in model.net.named_modules() if module.training]
    words = f"in training mode while evaluated: {', '.join(stuck[:5])}" if stuck else "all modules evaluate"
    return _yes_or_no("training-mode", "masking", bool(stuck), words)


def randomised(is_so: bool) -> Sign:
    """Do equal inputs give equal outputs?"""
    words = (
        "the output differs from pass to pass: gradients are of a few draws, and what fools one may not fool the next"
        if is_so
        else "equal inputs give equal outputs"
    )
    return _yes_or_no("randomised", "masking", is_so, words)


def short_reach(entries: tuple[Entry, ...], headline: ThreatModel) -> Sign:
    """Can every attack's steps reach the border of its ball?"""
    short = []
    for attack, threat in entries:
        if (reach := reach_of(attack, threat)) < threat.eps * (1 - 1e-6):
            short.append(f"{attack.name} goes {reach:.4g} in all its steps, eps is {threat.eps:.4g}")
    words = "; ".join(short) or "every attack's steps can reach the border of its ball"
    return _yes_or_no("short-reach", "weak", bool(short), words)


def reach_of(attack: Attack, threat: ThreatModel) -> float:
    """How far an attack's steps can go altogether; infinite where it chooses its own."""
    if not isinstance(attack, (PGD, IFGSM)):
        return math.inf
    return attack.steps * resolve_step_size(attack.step_size, eps=threat.eps, steps=attack.steps)


def undefended_survives(before: Side | None) -> Sign:
    """Does the same suite fail on the model before hardening, which should fall to it?"""
    kept = before.robust.correct / before.clean.correct if before and before.clean.correct else 0.0
    raised = kept > _KEPT_BEFORE
    words = f"before hardening {kept:.0%} of the correct images withstood the same suite"
    meaning = ": it was hardened already, or the suite is too weak"
    return Sign(
        code="undefended-survives",
        raised=raised,
        severity="note",
        value=kept if before else None,
        threshold=_KEPT_BEFORE,
        sentence=words + meaning * raised if before else "this is the model before hardening",
    )


def still_climbing(model: Classifier, bench: Bench, correct: Mask, attack: Attack, threat: ThreatModel) -> Sign:
    """Does the loss still rise in the last quarter of the attack's steps as steeply as before?"""
    pgd = attack if isinstance(attack, PGD) else PGD()
    size = resolve_step_size(pgd.step_size, eps=threat.eps, steps=pgd.steps)
    early = max(1, 3 * pgd.steps // 4)
    climbing, rows = 0, np.flatnonzero(correct)
    for _, x, y, ids in bench.batches(rows):
        with frozen(model), torch.no_grad():
            start = uniform_in_ball(x, threat, Rng.for_images(derive_seed(bench.seed, "climbing"), ids))
            late = ascend(model, start, x, y, threat, steps=early, step_size=size)
            last = ascend(model, late, x, y, threat, steps=pgd.steps - early, step_size=size)
            low, middle, high = (cross_entropy_margin(model(at).float(), y) for at in (start, late, last))
            climbing += int((high - middle > _LAST_QUARTER * (high - low).clamp_min(1e-6)).sum())
    evidence = f"gain over {_LAST_QUARTER:.0%} of their loss in the last quarter of {pgd.name}'s {pgd.steps} steps"
    return share("still-climbing", "weak", climbing, len(rows), 0.5, evidence, "it had not converged")


def planted_missed(planted: int, found: int, attack: str) -> Sign:
    """Does the attack find adversarial examples that are known to exist?"""
    if planted < _AT_LEAST:
        words = "no adversarial example could be planted: the features do not tell points of the ball apart"
        return Sign(
            code="planted-missed", raised=False, severity="masking", value=None, threshold=_MISSED, sentence=words
        )
    missed = planted - found
    return Sign(
        code="planted-missed",
        raised=missed >= _AT_LEAST and missed / planted > _MISSED,
        severity="masking",
        value=missed / planted,
        threshold=_MISSED,
        sentence=f"{attack} found {found} of {planted} planted adversarial examples",
    )


def of_gradients(model: Classifier, bench: Bench, correct: Mask, headline: ThreatModel) -> Iterator[Sign]:
    """Signs in the input gradients and logits of the correctly classified images."""
    rows = np.flatnonzero(correct)
    seed = derive_seed(bench.seed, "diagnose")
    parts = [_look(model, x, y, headline, Rng.for_images(seed, ids)) for _, x, y, ids in bench.batches(rows)]
    if not parts:
        return
    look = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    cut, zero, total = bool(look["cut"].all()), look["zero"], len(rows)
    words = "the output does not depend on the input as far as autograd can see: the graph is cut"
    yield _yes_or_no("gradient-cut", "masking", cut, words if cut else "gradients reach the input")
    checks: tuple[tuple[str, Severity, Tensor, float, str, str], ...] = (
        ("zero-gradients", "masking", zero, 0.01, "have a gradient of exactly zero", "attacks stand still there"),
        (
            "gradient-mismatch", "masking", look["mismatch"] & ~zero, 0.5,
            "have a gradient that does not predict how the loss changes along it", "attacks that follow it go astray",
        ),
        (
            "unstable-gradients", "masking", look["unstable"] & ~zero, 0.5,
            "have a gradient that turns by more than 80 degrees under noise of a hundredth of eps",
            "attacks that follow it go astray",
        ),
        (
            "quantised-input", "masking", look["constant"], 0.5,
            f"give the very same logits under noise of {_TINY_NOISE}",
            "the model is constant in steps, and its gradient says nothing of the steps",
        ),
        (
            "saturated-logits", "note", look["saturated"], 0.5, f"have logits more than {_SATURATED:g} apart",
            "plain cross-entropy has no gradient there in float32. The attacks here follow its margin form, which has, "
            "but other tools will be misled",
        ),
    )  # fmt: skip
    for code, severity, seen, threshold, evidence, meaning in checks:
        yield share(code, severity, int(seen.sum()), total, threshold, evidence, meaning)


def _look(model: Classifier, x: Tensor, y: Tensor, headline: ThreatModel, rng: Rng) -> dict[str, Tensor]:
    """What one batch shows, (n,) bool each."""
    with frozen(model), torch.no_grad():
        here = slope(model, x, y, cross_entropy_margin)
        with torch.enable_grad():
            probe = model(x[:1].detach().requires_grad_())
        zero = here.grad.flatten(1).abs().amax(1) == 0
        near = ThreatModel(norm=headline.norm, eps=headline.eps / 100)
        beside = slope(model, uniform_in_ball(x, near, rng.fork("near")), y, cross_entropy_margin)
        flat = (largest_to_one(here.grad).flatten(1), largest_to_one(beside.grad).flatten(1))
        turned = torch.nn.functional.cosine_similarity(*flat, dim=1) < 0.17
        tiny = ThreatModel(norm="linf", eps=_TINY_NOISE)
        constant = (model(uniform_in_ball(x, tiny, rng.fork("tiny"))) == here.logits).all(1)
        top = here.logits.topk(2, dim=1).values
        return {
            "cut": torch.full_like(zero, not probe.requires_grad),
            "zero": zero,
            "mismatch": _mismatch(model, x, y, here.grad),
            "unstable": turned,
            "constant": constant,
            "saturated": top[:, 0] - top[:, 1] > _SATURATED,
        }


def _mismatch(model: Classifier, x: Tensor, y: Tensor, grad: Tensor) -> Tensor:
    """Whether a short step along the gradient changes the loss by less than half or over twice what it promises."""
    scaled = largest_to_one(grad)
    length = norm_of(scaled, "l2").clamp_min(1e-12)
    unit = scaled / per_image(length)
    reach = 0.01
    ahead, behind = ((x + sign * reach * unit).clamp(0, 1) for sign in (1, -1))
    promised = (grad * (ahead - behind)).flatten(1).sum(1)  # the box may have cut the step
    change = cross_entropy_margin(model(ahead).float(), y) - cross_entropy_margin(model(behind).float(), y)
    return (change < promised / 2) | (change > promised * 2)

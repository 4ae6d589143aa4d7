"""The verdict: what the numbers allow to be said, and no more."""

from __future__ import annotations

import math
from collections.abc import Iterator

from core.report import Change, Side, Sign, Verdict
from core.suites import STRONG
from core.threat import ThreatModel

_LITTLE = 0.05  # robust accuracy this close to chance is little or none
_SIGNIFICANT = 0.05
_Z, _Z_POWER = 1.96, 0.84  # of the normal distribution: 95% on both sides, 80% on one
_ENOUGH = 100  # images, to be sure of anything but the worst
_OVERLOOKED = 0.01  # of the images: more must not fall to the curve's search after a strong suite
_LEAKED = 0.01  # of the test images, to be trained on


def judge(
    *,
    suite: str,
    threat: ThreatModel,
    chance: float,
    before: Side,
    after: Side | None,
    change: Change | None,
    leaked: float = 0.0,
) -> Verdict:
    """One word for the model that ships (the uploaded one, if nothing was trained), and why.

    ``brittle``: little robustness, or no gain that matters. ``suspect``: a sign of gradient masking was raised.
    ``robust``: neither, under a strong suite, on enough images and with the diagnosis made. ``unverified``: everything
    else. ``chance`` is the accuracy of a guess: one class in all, or the largest class. ``leaked``: share of the test
    images that were trained on.
    """
    side = after or before
    if reasons := _brittle(side, change, chance):
        return Verdict(kind="brittle", reasons=tuple(reasons))
    signs = [sign for sign in side.diagnosis or () if sign.raised]
    if masking := [_say(sign) for sign in signs if sign.severity == "masking"]:
        return Verdict(kind="suspect", reasons=tuple(masking))
    missing = [*_missing(suite, threat, side, change, signs)]
    if leaked > _LEAKED:
        reason = f"{leaked:.1%} of the test images are in the training split too: they say nothing of new ones"
        missing.append((reason, "send a test split without images of the training split"))
    if missing:
        remedies = dict.fromkeys(remedy for _, remedy in missing)
        return Verdict(kind="unverified", reasons=tuple(reason for reason, _ in missing), remedies=tuple(remedies))
    return Verdict(
        kind="robust",
        reasons=(
            f"{side.robust.accuracy:.1%} of the images ({side.robust.correct} of {side.robust.total}, 95% interval "
            f"{side.robust.ci95[0]:.1%} to {side.robust.ci95[1]:.1%}) withstand suite {suite!r}, "
            "and no sign of gradient masking was raised",
        ),
    )


def _brittle(side: Side, change: Change | None, chance: float) -> list[str]:
    """Few images are no reason: what they cannot show may be there."""
    reasons, robust, enough = [], side.robust, side.robust.total >= _ENOUGH
    if (robust.ci95[0] if enough else robust.accuracy) <= chance + _LITTLE:
        where = "not above" if robust.accuracy <= chance else "not clearly above"
        reasons.append(
            f"robust accuracy is {robust.accuracy:.1%} ({robust.correct} of {robust.total}), {where} what a guess "
            f"reaches ({chance:.1%})"
        )
    if change is not None and (
        change.robust.delta <= 0 or (_by_chance(change) and not _may_be_real(change, robust.total))
    ):
        reasons.append(
            f"no real gain: robust accuracy changed by {100 * change.robust.delta:+.1f} points "
            f"(p = {change.robust.p_value:.2g})"
        )
    return reasons


def _by_chance(change: Change) -> bool:
    return change.robust.p_value >= _SIGNIFICANT


def _may_be_real(change: Change, images: int) -> bool:
    """Whether the 95% interval of a change (paired, normal) still holds a gain that would matter."""
    spread = change.robust.gained + change.robust.lost - images * change.robust.delta**2
    return change.robust.delta + _Z * math.sqrt(max(0.0, spread)) / images >= _LITTLE


def _enough_to_show(change: Change, images: int) -> int:
    """Images on which a change like this is significant in four of five draws (power 0.8), in hundreds."""
    moved = (change.robust.gained + change.robust.lost) / images
    return 100 * math.ceil((_Z + _Z_POWER) ** 2 * moved / change.robust.delta**2 / 100)


def _missing(
    suite: str, threat: ThreatModel, side: Side, change: Change | None, signs: list[Sign]
) -> Iterator[tuple[str, str]]:
    """What keeps the numbers from being relied on, and what mends it."""
    stronger = (
        "take evaluation.suite=strict"
        if suite != "strict"
        else "count the images that the checks broke as lost: no stronger suite is built in"
    )
    if suite not in STRONG:
        yield (
            f"suite {suite!r} is not a strong evaluation: gradient masking could hide weaknesses from it, "
            "so this is an upper bound of the robust accuracy",
            "take evaluation.suite=standard",
        )
        stronger = "take evaluation.suite=standard"
    if threat.eps == 0:
        yield "eps is 0: nothing was attacked", "take a threat.eps above 0"
    if side.robust.total < _ENOUGH:
        yield (
            f"{side.robust.total} image(s) are too few to judge by; take {_ENOUGH} at least",
            f"evaluate {_ENOUGH} images at least (evaluation.samples, and a test split that has them)",
        )
    if change is not None and _by_chance(change):
        images, delta = side.robust.total, change.robust.delta
        yield (
            f"no gain was shown: robust accuracy changed by {100 * delta:+.1f} points on {images} images, which may be "
            f"chance (p = {change.robust.p_value:.2g})",
            f"take evaluation.samples={_enough_to_show(change, images)} for a gain like this to show, for the uploaded "
            "checkpoint too, and compare",
        )
    if side.diagnosis is None:
        yield "the diagnosis was left out (evaluation.diagnose)", "leave evaluation.diagnose on"
    if side.curve is not None and side.curve.beyond_suite > max(1, _OVERLOOKED * side.curve.images):
        yield (
            f"of {side.curve.images} images the search for the smallest perturbations fooled {side.curve.beyond_suite} "
            "that the suite had left: the robust accuracy is too high",
            stronger,
        )
    yield from ((_say(sign), stronger) for sign in signs if sign.severity == "weak")


def _say(sign: Sign) -> str:
    return f"{sign.code}: {sign.sentence}"

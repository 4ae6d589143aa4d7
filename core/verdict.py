"""The verdict: what the numbers allow to be said, and no more."""

from __future__ import annotations

from core.report import Change, Side, Verdict

_LITTLE = 0.05  # robust accuracy this close to chance is little or none
_SIGNIFICANT = 0.05


def judge(*, suite: str, num_classes: int, before: Side, after: Side | None, change: Change | None) -> Verdict:
    """``brittle`` where there is little robustness or no real gain; else ``unverified``, with the reasons."""
    side = after or before
    reasons = []
    if side.robust.ci95[0] <= 1 / num_classes + _LITTLE:
        reasons.append(
            f"robust accuracy is {side.robust.accuracy:.1%} ({side.robust.correct} of {side.robust.total}), "
            f"little above chance ({1 / num_classes:.1%})"
        )
    if change is not None and (change.robust.delta <= 0 or change.robust.p_value >= _SIGNIFICANT):
        reasons.append(
            f"no real gain: robust accuracy changed by {100 * change.robust.delta:+.1f} points "
            f"(p = {change.robust.p_value:.2g})"
        )
    if reasons:
        return Verdict(kind="brittle", reasons=tuple(reasons))
    return Verdict(
        kind="unverified",
        reasons=(
            f"suite {suite!r} is not a strong evaluation: gradient masking could hide weaknesses from it, "
            "so this is an upper bound of the robust accuracy",
        ),
    )

"""What a verdict means in words, for somebody who reads one minute; no claim that the numbers do not carry."""

from __future__ import annotations

from dataclasses import dataclass

from core.report import Report
from web.figures import count, percent
from web.report.words import ball, shipped

_SIGNIFICANT = 0.05
_CAUSES = {
    "other-weights": "The network that was attacked is not the checkpoint: the numbers below are of another model.",
    "training-mode": "A part of the model trains while it is evaluated: the numbers below are of another model.",
    "randomised": "The model's output is random: attacks that see a few draws overstate its robust accuracy.",
}


@dataclass(frozen=True)
class Reading:
    """A verdict in words: a badge's class and word, what it means and does not mean, and what to do next."""

    style: str
    word: str
    headline: str
    means: tuple[str, ...]
    does_not_mean: tuple[str, ...]
    advice: str


def reading(report: Report) -> Reading:
    """The verdict in words."""
    clean, robust = shipped(report).clean, shipped(report).robust
    share, low, high = (percent(value) for value in (robust.accuracy, *robust.ci95))
    fell = (
        f"Of {count(clean.correct)} images that it classifies correctly, {count(clean.correct - robust.correct)} fell."
    )
    bound = (
        f"{share} of the test images stayed correct under every attack of suite {report.suite} (95% interval {low} to "
        f"{high}, for the choice of images; a stronger attack could only lower it)."
    )
    only = (
        f"It holds for this threat only ({ball(report.threat)}): not for a larger eps, other norms, patches, rotations "
        "or blur.",
        f"It was measured on {count(robust.total)} test images of the data that was sent. Other images, other numbers.",
    )
    match report.verdict.kind:
        case "robust":
            return Reading(
                "is-good",
                "Robust",
                f"{share} of the images withstand strong attacks, and no sign was found that this is only apparent.",
                (bound, "Strong attacks of several kinds were tried, and the checks for gradient masking raised none."),
                (
                    "It is no proof: a new attack may find more. The share above is what is robust, not every image.",
                    *only,
                ),
                "Keep the numbers below with the model, and measure again when data or model change.",
            )
        case "brittle":
            return Reading(
                "is-bad",
                "Brittle",
                _brittle_headline(report),
                (bound, fell),
                ("It says nothing of ordinary images: for them there is the clean accuracy.", *only),
                _how_to_harden(report),
            )
        case "suspect":
            return Reading(
                "is-warn",
                "Suspect",
                _suspect_headline(report),
                ("The model seems to hinder the attacks rather than withstand them.", f"Taken at face value, {bound}"),
                ("It does not prove that the model is not robust; nobody knows before the cause is found.", *only),
                "Look at the checks that were raised, below. Do not rely on the robust accuracy before they are "
                "explained.",
            )
        case "unverified":
            return Reading(
                "is-note",
                "Unverified",
                "How robust the model is has not been shown: the reasons below keep the number from being relied on.",
                (bound, "That is an upper bound: stronger attacks can only find more images that fall, not fewer."),
                ("It does not say that the model is robust, nor that it is not.", *only),
                _how_to_verify(report),
            )


def _brittle_headline(report: Report) -> str:
    change = report.change
    if change is None or not _no_gain(report):
        return "The model has little or no robustness."
    if change.robust.delta < 0 and change.robust.p_value < _SIGNIFICANT:
        return "Hardening made the model less robust."
    return "Hardening brought no real gain."


def _suspect_headline(report: Report) -> str:
    signs = shipped(report).diagnosis or ()
    masking = [sign.code for sign in signs if sign.raised and sign.severity == "masking"]
    if len(masking) == 1 and masking[0] in _CAUSES:
        return _CAUSES[masking[0]]
    return "There are signs of gradient masking: the robust accuracy below may be too good to be true."


def _no_gain(report: Report) -> bool:
    change = report.change
    return change is not None and (change.robust.delta <= 0 or change.robust.p_value >= _SIGNIFICANT)


def _how_to_harden(report: Report) -> str:
    if report.after is None:
        return "Harden it: submit it again with a defense."
    if _no_gain(report) and report.before.robust.accuracy > report.before.clean.accuracy / 2:
        return (
            "The model that was sent has most of the robustness already; whether that is real, a job with defense "
            '"none" says. To gain more, take another defense, more epochs or a larger network.'
        )
    return (
        "Do not rely on it where images may be tampered with. Another defense, more epochs or a smaller eps may help."
    )


def _how_to_verify(report: Report) -> str:
    again = (
        'a job with the hardened checkpoint as its checkpoint and defense "none"'
        if report.after
        else "submit it once more"
    )
    if not report.verdict.remedies:
        return f"To verify it, evaluate it again without what the reasons above name: {again}."
    return f"To verify it, evaluate it again ({again}): {'; '.join(report.verdict.remedies)}."

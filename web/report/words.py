"""What the numbers of a report mean in words, for somebody who reads one minute; no claim that they do not carry."""

from __future__ import annotations

from dataclasses import dataclass

from core.report import AttackResult, Report, Side
from core.threat import ThreatModel
from web.figures import count, percent, points, probability

_BALLS = {
    "linf": "change every pixel value by up to {eps} (black is 0, white is 1)",
    "l2": "change the image by a total of up to {eps}, measured as the Euclidean length of all pixel changes",
    "l1": "change the image by a total of up to {eps}, measured as the sum of all absolute pixel changes",
}
_SIGNIFICANT = 0.05
_KEYS = ("steps", "queries", "restarts", "draws")


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
    robust = shipped(report).robust
    share, low, high = (percent(value) for value in (robust.accuracy, *robust.ci95))
    clean = shipped(report).clean
    fell = (
        f"Of {count(clean.correct)} images that it classifies correctly, {count(clean.correct - robust.correct)} fell."
    )
    bound = (
        f"{share} of the test images stayed correct under every attack of suite {report.suite} (95% interval {low} to "
        f"{high})."
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
                "Hardening brought no real gain." if _no_gain(report) else "The model has little or no robustness.",
                (bound, fell),
                ("It does not mean that the model is bad on ordinary images: see its clean accuracy.", *only),
                _how_to_harden(report),
            )
        case "suspect":
            return Reading(
                "is-warn",
                "Suspect",
                "There are signs of gradient masking: the robust accuracy below is likely too good to be true.",
                ("The model seems to hinder the attacks rather than withstand them.", f"Taken at face value, {bound}"),
                ("It does not prove that the model is not robust; nobody knows before the cause is found.", *only),
                "Look at the checks that were raised, below. Do not rely on the robust accuracy before they are "
                "explained.",
            )
        case "unverified":
            return Reading(
                "is-note",
                "Unverified",
                "Nothing has tested the robustness hard enough to rely on it.",
                (bound, "That is an upper bound: stronger attacks can only find more images that fall, not fewer."),
                ("It does not say that the model is robust, nor that it is not.", *only),
                _how_to_verify(report),
            )


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
    strong = report.suite in ("standard", "strict")
    if not strong:
        return (
            "To verify it, evaluate the hardened checkpoint again with suite standard: a job with this one as its "
            'checkpoint, defense "none", and evaluation.suite "standard".'
            if report.after
            else 'To verify it, submit it again with evaluation.suite "standard".'
        )
    return "The reasons above say what is missing; evaluate again without it."


def lead(report: Report) -> str:
    """Both sides' counts in one paragraph."""
    attacker = (
        f"an attacker who knows the model may {_BALLS[report.threat.norm].format(eps=f'{report.threat.eps:.4g}')}"
    )
    now, before = shipped(report), report.before
    total = count(now.clean.total)
    if report.after is None:
        return (
            f"Of {total} test images the model classifies {count(now.clean.correct)} correctly as they are "
            f"({percent(now.clean.accuracy)}), and {count(now.robust.correct)} ({percent(now.robust.accuracy)}) when "
            f"{attacker}. It was evaluated as it came; nothing was trained."
        )
    return (
        f"Of {total} test images the hardened model classifies {count(now.clean.correct)} correctly as they are "
        f"({percent(now.clean.accuracy)}; before {percent(before.clean.accuracy)}), and {count(now.robust.correct)} "
        f"({percent(now.robust.accuracy)}; before {percent(before.robust.accuracy)}) when {attacker}."
    )


def shipped(report: Report) -> Side:
    """The model that ships: the hardened one, or the uploaded one if nothing was trained."""
    return report.after or report.before


def ball(threat: ThreatModel) -> str:
    """A threat model in short."""
    return f"{threat.norm}, eps {threat.eps:.4g}"


def overlooked(side: Side) -> str:
    """What the search for the smallest perturbations found beyond the suite, if anything."""
    if side.curve is None or not side.curve.beyond_suite:
        return ""
    found = side.curve.beyond_suite
    return (
        f"Within the job's eps that search fooled {count(found)} of these images that the suite had left: the robust "
        "accuracy in the table is too high by that."
    )


def attack_name(attack: AttackResult) -> str:
    """An attack with its steps, queries and restarts."""
    said = [f"{attack.params[key]} {key}" for key in _KEYS if attack.params.get(key) not in (None, 1)]
    return f"{attack.name} ({', '.join(said)})" if said else attack.name


def attack_remarks(attack: AttackResult, report: Report) -> list[str]:
    """What has to be known to read an attack's row."""
    said = []
    if attack.threat.norm != report.threat.norm or attack.threat.eps != report.threat.eps:
        said.append(ball(attack.threat))
    if not attack.counted:
        said.append("not part of the worst case")
    if attack.adapted:
        said.append(f"adapted: {attack.adapted}")
    return said


def change_sentence(report: Report) -> str:
    """What the paired test says of the robust accuracy."""
    if report.change is None:
        return ""
    robust, clean = report.change.robust, report.change.clean
    sure = "more than chance explains" if robust.p_value < _SIGNIFICANT else "no more than chance may explain"
    return (
        f"Robust accuracy changed by {points(robust.delta)} percentage points, {sure} (p {_p(robust.p_value)}); clean "
        f"accuracy by {points(clean.delta)} (p {_p(clean.p_value)})."
    )


def _p(value: float) -> str:
    written = probability(value)
    return written if written.startswith("<") else f"= {written}"

"""The numbers of a report in words."""

from __future__ import annotations

from core.report import AttackResult, Report, Side
from core.threat import ThreatModel
from web.figures import count, percent, points, probability, radius

_BALLS = {
    "linf": "change every pixel value by up to {eps} (black is 0, white is 1)",
    "l2": "change the image by a total of up to {eps}, measured as the Euclidean length of all pixel changes",
    "l1": "change the image by a total of up to {eps}, measured as the sum of all absolute pixel changes",
}
_SIGNIFICANT = 0.05
_KEYS = ("steps", "queries", "restarts", "draws")


def lead(report: Report) -> str:
    """Both sides' counts in one paragraph."""
    attacks = (
        f"under the attacks of suite {report.suite}, which know the model and may "
        f"{_BALLS[report.threat.norm].format(eps=radius(report.threat.eps, report.threat.norm))}"
    )
    now, before = shipped(report), report.before
    total = count(now.clean.total)
    if report.after is None:
        return (
            f"Of {total} test images the model classifies {count(now.clean.correct)} correctly as they are "
            f"({percent(now.clean.accuracy)}), and {count(now.robust.correct)} ({percent(now.robust.accuracy)}) "
            f"{attacks}. It was evaluated as it came; nothing was trained."
        )
    return (
        f"Of {total} test images the hardened model classifies {count(now.clean.correct)} correctly as they are "
        f"({percent(now.clean.accuracy)}; before {percent(before.clean.accuracy)}), and {count(now.robust.correct)} "
        f"({percent(now.robust.accuracy)}; before {percent(before.robust.accuracy)}) {attacks}."
    )


def shipped(report: Report) -> Side:
    """The model that ships: the hardened one, or the uploaded one if nothing was trained."""
    return report.after or report.before


def ball(threat: ThreatModel) -> str:
    """A threat model in short."""
    return f"{threat.norm}, eps {radius(threat.eps, threat.norm)}"


def epoch_ships(report: Report) -> bool:
    """Whether what ships is of the training that the curves show: a search may ship what a rung left."""
    return report.search is None or report.search.shipped.rung is None


def selection(report: Report) -> str:
    """Which epoch ships, and by what it was chosen."""
    training = report.training
    if training is None:
        return ""
    images = f"{count(training.held_out_images)} training images that were held out from hardening"
    if not epoch_ships(report):
        return (
            f"Epoch {training.selected_epoch} of {len(training.curves)} was the best of this training on {images}; "
            "what ships is what a rung of the search left, which came nearer to the goal."
        )
    if training.selected_by == "last":
        return f"The last of {_epochs(len(training.curves))} ships; nothing was chosen."
    return (
        f"Epoch {training.selected_epoch} of {len(training.curves)} ships, selected by {training.selected_by} on "
        f"{images}."
    )


def _epochs(number: int) -> str:
    return "1 epoch" if number == 1 else f"{number} epochs"


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

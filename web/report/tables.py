"""The tables of the report page, as plain rows for its template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from core.report import AttackResult, ClassCount, Corruptions, Count, Diagnostic, EpochCurve, Report, Side, Sign
from web.report.words import attack_name, attack_remarks

_EPOCHS, _CLASSES, _CONFUSIONS = 40, 40, 10


@dataclass(frozen=True)
class Accuracy:
    """One row of before and after; None where it was not measured. ``short``: its name in the chart."""

    name: str
    short: str
    remarks: Sequence[str]
    before: Count | None
    after: Count | None
    headline: bool = False

    @property
    def delta(self) -> float | None:
        """What changed, as a difference of shares."""
        return None if self.before is None or self.after is None else self.after.accuracy - self.before.accuracy


@dataclass(frozen=True)
class ClassRow:
    """One class before and after; ``after`` is None if nothing was trained."""

    name: str
    before: ClassCount
    after: ClassCount | None

    @property
    def last(self) -> ClassCount:
        """Of the model that ships."""
        return self.after or self.before


def accuracies(report: Report) -> list[Accuracy]:
    """Clean, each attack, and the worst case. Attacks of both sides are paired by name, parameters and threat."""
    after = report.after
    rows = [Accuracy("Clean images", "clean", (), report.before.clean, after.clean if after else None)]
    left = list(after.attacks) if after else []
    for attack in report.before.attacks:
        same = next((each for each in left if _key(each) == _key(attack)), None)
        if same is not None:
            left.remove(same)
        rows.append(_of_attack(attack, report, attack, same))
    for attack in left:
        rows.append(_of_attack(attack, report, None, attack))
    rows.append(Accuracy("Robust", "robust", (), report.before.robust, after.robust if after else None, True))
    named = Counter(row.short for row in rows)
    return [row if named[row.short] == 1 else replace(row, short=row.name.removeprefix("Under ")) for row in rows]


def _of_attack(attack: AttackResult, report: Report, before: Count | None, after: Count | None) -> Accuracy:
    short = attack.name if attack.threat.eps == report.threat.eps else f"{attack.name}, {attack.threat.eps:.3g}"
    return Accuracy(f"Under {attack_name(attack)}", short, attack_remarks(attack, report), before, after)


def _key(attack: AttackResult) -> tuple[object, ...]:
    return attack.name, attack.params, attack.threat


def class_name(label: int, names: Sequence[str] | None) -> str:
    """What a class is called; its number, if nobody said."""
    return names[label] if names and label < len(names) else f"class {label}"


def classes(report: Report, names: Sequence[str] | None) -> list[ClassRow]:
    """Every class, the least robust first, at most ``_CLASSES``; those that are worst off are what matters."""
    after = {each.label: each for each in report.after.by_class} if report.after else {}
    rows = [ClassRow(class_name(each.label, names), each, after.get(each.label)) for each in report.before.by_class]
    return sorted(rows, key=lambda row: row.last.robust / row.last.total)[:_CLASSES]


def confusions(side: Side, names: Sequence[str] | None) -> list[tuple[str, str, int]]:
    """The most frequent mistakes under attack: (true class, what it is taken for, images)."""
    return [(class_name(c.true, names), class_name(c.predicted, names), c.count) for c in side.confusion[:_CONFUSIONS]]


def epochs(curves: Sequence[EpochCurve], selected: int) -> list[EpochCurve]:
    """All epochs, or some forty evenly spaced, the last one, and the one that ships."""
    step = -(-len(curves) // _EPOCHS)
    kept = {*range(0, len(curves), step), len(curves) - 1}
    return [curve for number, curve in enumerate(curves) if number in kept or curve.epoch == selected]


def raised(report: Report) -> list[Diagnostic]:
    """Checks that were raised; those of the model that ships first, the graver ones first."""
    last = "after" if report.after else "before"
    order = ("masking", "weak", "note")
    return sorted(report.diagnostics, key=lambda each: (each.side != last, order.index(each.severity)))


def checks(report: Report) -> list[tuple[str, Sequence[Sign]]]:
    """All checks of each side that was diagnosed, raised or not."""
    sides = [("Before", report.before), ("After", report.after)]
    return [(name, side.diagnosis) for name, side in sides if side is not None and side.diagnosis is not None]


def corruptions(before: Corruptions | None, after: Corruptions | None) -> list[tuple[str, float | None, float | None]]:
    """The mean accuracy under each, before and after; None where it was not measured."""
    means = [{each.name: each.mean for each in side.results} if side else {} for side in (before, after)]
    return [(name, means[0].get(name), means[1].get(name)) for name in {**means[0], **means[1]}]

"""The charts of the report page."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from core.embedding import Embedding, Placed
from core.report import ClassCount, Corruptions, Count, Curve, EpochCurve, Report
from core.stats import wilson
from web.charts import Axis, Bar, Group, Panel, Series, bars, legend, lines, scatter
from web.figures import percent, radius
from web.report.tables import Accuracy, ClassRow, class_name
from web.report.words import epoch_ships

_SHARES = Axis("accuracy", 0, 1, share=True)
_POINTS = 400  # of an embedding; more would make the page heavy and the picture no clearer
_LEGEND_CLASSES = 20
_EPOCHS_DRAWN = 300
_TRAINING = (
    ("held_out_clean", "held-out, clean", "1", 1, 0),
    ("held_out_robust", "held-out, under PGD-10", "1", 2, 2),
    ("held_out_fgsm", "held-out, under FGSM", "4", 3, 1),
    ("train_clean", "training, clean", "2", 1, 4),
    ("train_robust", "training, under PGD-10", "2", 2, 3),
)


def of_accuracies(rows: Sequence[Accuracy]) -> Markup:
    """Before and after with 95% intervals."""

    def bar(measured: Count | None) -> Bar | None:
        return None if measured is None else Bar(measured.accuracy, measured.ci95)

    groups = _sides([bar(row.before) for row in rows], [bar(row.after) for row in rows])
    said = "; ".join(
        f"{row.name}: {' to '.join(percent(c.accuracy) for c in (row.before, row.after) if c)}" for row in rows
    )
    drawn = bars("accuracies", "Accuracy before and after", f"{said}.", _SHARES, [row.short for row in rows], groups)
    return drawn + _key(groups)


def of_curves(report: Report) -> Markup | None:
    """Accuracy against eps, before and after; None if neither side has a curve."""
    found: list[tuple[str, str, int, int, Curve | None]] = (
        [("before", "before", 2, 2, report.before.curve), ("after", "after", 1, 0, report.after.curve)]
        if report.after
        else [("the model", "after", 1, 0, report.before.curve)]
    )
    series = [
        Series(name, list(zip(curve.eps, curve.accuracy, strict=True)), color, dash, marker)
        for name, color, dash, marker, curve in found
        if curve is not None
    ]
    if not series:
        return None
    eps, written = report.threat.eps, radius(report.threat.eps, report.threat.norm)
    at = "; ".join(f"{each.name} {percent(min(each.points, key=lambda p: abs(p[0] - eps))[1])}" for each in series)
    x = Axis(f"eps ({report.threat.norm})", 0, max(a for each in series for a, _ in each.points))
    said = f"Share of images that stay correct within eps. At eps {written}: {at}."
    guide = [(eps, f"eps of the job, {written}")]
    return lines("curve", "Accuracy against eps", said, x, [Panel(_SHARES, series)], guide) + legend(series)


def of_training(report: Report) -> Markup:
    """Training against held-out accuracy by epoch, the learning rate below. Raises: ValueError without training."""
    if report.training is None:
        raise ValueError("nothing was trained")
    training = report.training
    step = -(-len(training.curves) // _EPOCHS_DRAWN)
    curves: list[EpochCurve] = [*training.curves[:-1:step], training.curves[-1]]
    series = [
        Series(name, [(curve.epoch, getattr(curve, field)) for curve in curves], color, dash, marker)
        for field, name, color, dash, marker in _TRAINING
    ]
    rate = Series("learning rate", [(curve.epoch, curve.lr) for curve in curves], "9", 1, 0)
    chosen = next(curve for curve in training.curves if curve.epoch == training.selected_epoch)
    ships = "ships" if epoch_ships(report) else "was the best"
    said = (
        f"Of {len(training.curves)}, epoch {chosen.epoch} {ships}: held-out images {percent(chosen.held_out_clean)} "
        f"clean and {percent(chosen.held_out_robust)} under PGD-10, training images {percent(chosen.train_clean)} and "
        f"{percent(chosen.train_robust)}."
    )
    epochs = Axis("epoch", curves[0].epoch, curves[-1].epoch if len(curves) > 1 else curves[0].epoch + 1, whole=True)
    rates = Axis("learning rate", 0, max(curve.lr for curve in curves) or 1)
    panels = [Panel(_SHARES, series, 230), Panel(rates, [rate], 70)]
    guides = [(float(chosen.epoch), f"epoch {chosen.epoch} {ships}")]
    return lines("training", "Training curves", said, epochs, panels, guides) + legend(series)


def of_classes(rows: Sequence[ClassRow]) -> Markup:
    """Robust accuracy of each class before and after, with 95% intervals."""

    def bar(side: ClassCount | None) -> Bar | None:
        return None if side is None else Bar(side.robust / side.total, wilson(side.robust, side.total))

    before, after = [bar(row.before) for row in rows], [bar(row.after) for row in rows]
    worst = rows[0]
    said = f"Least robust is {worst.name}: {worst.last.robust} of {worst.last.total} images."
    groups = _sides(before, after)
    names = [row.name for row in rows]
    x = Axis("robust accuracy", 0, 1, share=True)
    return bars("classes", "Robust accuracy by class", said, x, names, groups) + _key(groups)


def of_corruptions(before: Corruptions | None, after: Corruptions | None) -> Markup:
    """Mean accuracy under each corruption. Raises: ValueError if neither side has any."""
    first = before or after
    if first is None:
        raise ValueError("no corruptions were measured")
    names = [each.name for each in first.results]
    sides = [[Bar(each.mean) for each in side.results] if side else [None] * len(names) for side in (before, after)]
    groups = _sides(*sides)
    said = "; ".join(f"{name} {percent(side.mean)}" for name, side in (("before", before), ("after", after)) if side)
    x = Axis("accuracy, mean of five severities", 0, 1, share=True)
    title = "Accuracy under common corruptions"
    return bars("corruptions", title, f"Mean of the 15 main ones: {said}.", x, names, groups) + _key(groups)


def of_embedding(
    before: Embedding, after: Embedding | None, names: Sequence[str] | None
) -> tuple[list[tuple[str, Markup]], Markup | None]:
    """Each panel with its caption, and one legend for all; None for too many classes."""
    panels = []
    labels = sorted(set(before.labels))
    for side, found in (("Before", before), ("After", after)):
        if found is None:
            continue
        shown = [("clean images", found.clean)]
        if found.adversarial is not None:
            shown.append(("attacked images", found.adversarial))
        x, y = _limits([placed for _, placed in shown])
        for kind, placed in shown:
            name = f"embedding-{side}-{kind.partition(' ')[0]}".lower()
            title = f"{side}, {kind}" if after else kind.capitalize()
            caption = f"{title}: {_separation(placed)}"
            said = f"{len(found.ids)} test images of {len(labels)} classes in the plane; {_separation(placed)}."
            panels.append((caption, scatter(name, title, said, x, y, _scattered(placed, found, names))))
    key = [_of_class(label, [], names) for label in labels]
    return panels, legend(key) if len(key) <= _LEGEND_CLASSES else None


def _scattered(placed: Placed, found: Embedding, names: Sequence[str] | None) -> list[Series]:
    step = -(-len(placed.points) // _POINTS)
    chosen = list(zip(placed.points, found.labels, strict=True))[::step]
    return [_of_class(label, [p for p, its in chosen if its == label], names) for label in sorted(set(found.labels))]


def _of_class(label: int, places: list[tuple[float, float]], names: Sequence[str] | None) -> Series:
    marker = (label + label // 10) % 10  # up to a hundred classes have a pair of colour and marker of their own
    return Series(class_name(label, names), places, str(label % 10 + 1), None, marker)


def _limits(shown: Sequence[Placed]) -> tuple[Axis, Axis]:
    """The same for all panels of one plane, with equal units on both axes."""
    points = [point for placed in shown for point in placed.points]
    middles, half = [], 0.0
    for axis in (0, 1):
        low, high = min(p[axis] for p in points), max(p[axis] for p in points)
        middles.append((low + high) / 2)
        half = max(half, 0.55 * (high - low))
    half = half or 1.0
    names = ("first component", "second component")
    x, y = (Axis(name, middle - half, middle + half) for name, middle in zip(names, middles, strict=True))
    return x, y


def _separation(placed: Placed) -> str:
    return "separation not defined" if placed.separation is None else f"separation {placed.separation:.2f}"


def _sides(before: Sequence[Bar | None], after: Sequence[Bar | None]) -> list[Group]:
    """Bars of both sides; of one alone, filled."""
    if all(bar is None for bar in after):
        return [Group("accuracy", before, "after")]
    return [Group("before", before, "before", filled=False), Group("after", after, "after")]


def _key(groups: Sequence[Group]) -> Markup:
    return legend(groups) if len(groups) > 1 else Markup("")

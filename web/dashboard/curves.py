"""Training so far, as a chart: accuracies on held-out images, and below them the loss and the learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from web.charts import Axis, Panel, Series, legend, lines
from web.figures import percent

_SMALL = 110
_CURVES = (("held_out_clean", "clean", "1", 1, 0), ("held_out_robust", "under PGD-10", "2", 2, 1))


def curves(epochs: Sequence[Mapping[str, Any]], planned: int) -> Markup:
    """The chart and its legend; epochs as ``core.report.EpochCurve`` has them, at least one.

    Args:
        planned: how many epochs there will be: the axis is that long from the start.
    """
    accuracy = [
        Series(name, [(row["epoch"], row[key]) for row in epochs], color, dash, marker)
        for key, name, color, dash, marker in _CURVES
    ]
    last = epochs[-1]
    reached = max(planned, last["epoch"])
    said = (
        f"After epoch {last['epoch']} of {reached}: {percent(last['held_out_clean'])} of the held-out images correct "
        f"clean, {percent(last['held_out_robust'])} under PGD-10; loss {last['train_loss']:.3g}, learning rate "
        f"{last['lr']:.3g}."
    )
    drawn = lines(
        "curves",
        "Training so far",
        said,
        Axis("epoch", 0, reached, whole=True),
        [
            Panel(Axis("held-out accuracy", 0, 1, share=True), accuracy),
            _panel("training loss", epochs, "train_loss", "5"),
            _panel("learning rate", epochs, "lr", "7"),
        ],
    )
    return Markup("{}{}<figcaption>{}</figcaption>").format(legend(accuracy), drawn, said)


def _panel(label: str, epochs: Sequence[Mapping[str, Any]], key: str, color: str) -> Panel:
    top = max(row[key] for row in epochs)
    points = [(row["epoch"], row[key]) for row in epochs]
    return Panel(Axis(label, 0, 1.1 * top or 1), [Series(label, points, color, 1, 3)], height=_SMALL)

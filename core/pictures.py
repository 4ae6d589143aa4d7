"""The pictures of a report, as SVG: the embedding before and after hardening, and the training curves.

Equal inputs give equal bytes. Text stays text: it can be read out and searched, and is set in the reader's own fonts.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from core.embedding import NAME, Embedding, Placed
from core.report import EpochCurve, Training

# ten colours told apart by eyes of all kinds: Petroff 2021, arXiv 2107.02270
_COLOURS = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#92dadd",
)
_MARKERS = ("o", "^", "s", "v", "D", "P", "<", "X", ">", "*")
_LEGEND_CLASSES = 20
_NAME_LENGTH = 24
_EPOCHS_DRAWN, _EPOCHS_MARKED = 500, 40
_CURVES = {
    "held_out_clean": "held-out images, clean",
    "held_out_fgsm": "held-out images, under FGSM",
    "held_out_robust": "held-out images, under PGD-10",
    "train_clean": "training images, clean",
    "train_robust": "training images, under PGD-10",
}
_OF_ONE_STYLE = re.compile(
    r'(<g[^>]*)>((?:\s*<use xlink:href="#\w+" x="[-.\d]+" y="[-.\d]+" (style="[^"]*")/>)+)\s*</g>'
)
_PLACE = re.compile(r'\s*(<use xlink:href="#\w+") x="([-.\d]+)" y="([-.\d]+)" style="[^"]*"/>')


def write_embedding(
    folder: Path, before: Embedding, after: Embedding | None, class_names: Sequence[str] | None
) -> list[Path]:
    """Write ``embedding.json``, to be drawn anew by anybody, and ``embedding.svg``; returns their paths."""
    data = {
        "class_names": list(class_names) if class_names else None,
        "before": before.model_dump(mode="json"),
        "after": after.model_dump(mode="json") if after else None,
    }
    return [
        _write(folder / NAME, json.dumps(data, separators=(",", ":"))),
        _write(folder / "embedding.svg", draw_embedding(before, after, class_names)),
    ]


def write_curves(folder: Path, training: Training) -> list[Path]:
    """Write ``curves.svg``, whose data are in the report; returns its path."""
    return [_write(folder / "curves.svg", draw_curves(training))]


def draw_embedding(before: Embedding, after: Embedding | None, class_names: Sequence[str] | None) -> str:
    """Before and after side by side, clean images above attacked ones; a colour and a marker for each class."""
    sides = {"before": before} | ({"after": after} if after else {})
    rows = 2 if any(side.adversarial for side in sides.values()) else 1
    labels = sorted({label for side in sides.values() for label in side.labels})
    with _settings("embedding"):
        figure = Figure(figsize=(4.2 * len(sides) + 1.8, 4.2 * rows), dpi=72, layout="constrained")
        panels = figure.subplots(rows, len(sides), squeeze=False)
        for column, (name, side) in zip(panels.T, sides.items(), strict=True):
            shown = {"clean": side.clean} | ({"attacked": side.adversarial} if side.adversarial else {})
            for axes, (kind, placed) in zip(column, shown.items(), strict=False):
                _scatter(axes, placed, side.labels, f"{name}-{kind}")
                axes.set_title(f"{name.capitalize()}, {kind} images: {_separation(placed)}")
                _square(axes, shown.values())
            for axes in column[len(shown) :]:
                axes.set_axis_off()
        if len(labels) <= _LEGEND_CLASSES:
            handles = [_marks([], [], label, size=6) for label in labels]
            figure.legend(handles, [_name(label, class_names) for label in labels], loc="outside right upper")
        return _svg(figure, "embedding", "Embedding of the test images", _describe_embedding(sides, len(labels)))


def draw_curves(training: Training) -> str:
    """Accuracies by epoch on training and held-out images, clean and attacked; below them the learning rate."""
    curves = _thinned(training.curves)
    epochs = [curve.epoch for curve in curves]
    with _settings("curves"):
        figure = Figure(figsize=(8.0, 5.0), dpi=72, layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        every = max(1, len(curves) // _EPOCHS_MARKED)
        for number, (field, name) in enumerate(_CURVES.items()):
            style = "--" if field.startswith("train") else ":" if field.endswith("fgsm") else "-"
            upper.plot(
                epochs,
                [getattr(curve, field) for curve in curves],
                color=_COLOURS[6 if field.startswith("train") else 0],
                linestyle=style,
                marker=_MARKERS[number],
                markevery=every,
                label=name,
                gid=field,
            )
        lower.plot(
            epochs,
            [curve.lr for curve in curves],
            color=_COLOURS[8],
            marker="o",
            markersize=4,
            markevery=every,
            gid="lr",
        )
        for axes, gid in ((upper, "selected"), (lower, "selected-lr")):
            axes.axvline(training.selected_epoch, color="black", linestyle="-.", linewidth=1, zorder=1, gid=gid)
        upper.set(ylim=(0, 1), ylabel="accuracy")
        upper.set_title(f"Epoch {training.selected_epoch} ships")
        lower.set(xlabel="epoch", ylabel="learning rate")
        lower.set_ylim(bottom=0)
        lower.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside right upper")
        return _svg(figure, "curves", "Training curves", _describe_curves(training))


def _scatter(axes: Axes, placed: Placed, labels: Sequence[int], gid: str) -> None:
    for label in sorted(set(labels)):
        chosen = [point for point, its in zip(placed.points, labels, strict=True) if its == label]
        axes.add_line(_marks([x for x, _ in chosen], [y for _, y in chosen], label, gid=f"{gid}-{label}"))
    axes.set(xlabel="first component", ylabel="second component")


def _marks(x: Sequence[float], y: Sequence[float], label: int, *, size: float = 3.5, gid: str | None = None) -> Line2D:
    """One class's points; up to a hundred classes have a pair of colour and marker of their own."""
    colour, marker = _COLOURS[label % 10], _MARKERS[(label + label // 10) % 10]
    return Line2D(x, y, linestyle="", marker=marker, markersize=size, color=colour, alpha=0.7, mew=0, gid=gid)


def _square(axes: Axes, shown: Iterable[Placed]) -> None:
    """The same limits for all panels of one plane, and equal units on both axes."""
    points = [point for placed in shown for point in placed.points]
    low, high = ([pick(point[axis] for point in points) for axis in (0, 1)] for pick in (min, max))
    half = 0.55 * max(high[0] - low[0], high[1] - low[1]) or 1.0
    middle = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
    axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half), box_aspect=1)


def _separation(placed: Placed) -> str:
    return "separation not defined" if placed.separation is None else f"separation {placed.separation:.2f}"


def _name(label: int, class_names: Sequence[str] | None) -> str:
    """A class's name, cut to fit, without what no XML may hold; they come from folders that users sent."""
    name = class_names[label] if class_names and label < len(class_names) else str(label)
    name = "".join(character if character.isprintable() else "?" for character in name)
    return name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "\u2026"


def _thinned(curves: Sequence[EpochCurve]) -> list[EpochCurve]:
    """At most about ``_EPOCHS_DRAWN`` epochs, evenly spaced, and the last."""
    step = -(-len(curves) // _EPOCHS_DRAWN)
    return [*curves[:-1:step], curves[-1]]


def _describe_embedding(sides: dict[str, Embedding], classes: int) -> str:
    first = next(iter(sides.values()))
    sentences = [
        f"{len(first.ids)} test images of {classes} classes: what enters the last layer, by linear discriminant "
        f"analysis and principal components fitted on {first.fitted_on} training images; units are standard "
        "deviations within a class."
    ]
    for name, side in sides.items():
        attacked = f", attacked images {_separation(side.adversarial)}" if side.adversarial else ""
        share = f"the plane shows {side.kept:.0%} of the variance"
        sentences.append(f"{name.capitalize()}: {_separation(side.clean)}{attacked}; {share}.")
    if classes > len(_COLOURS):
        sentences.append("Colours repeat with other markers; embedding.json has the labels.")
    return " ".join(sentences)


def _describe_curves(training: Training) -> str:
    chosen = next(curve for curve in training.curves if curve.epoch == training.selected_epoch)
    return (
        f"{len(training.curves)} epochs. Epoch {chosen.epoch} ships, selected by {training.selected_by}: on "
        f"{training.held_out_images} held-out images {chosen.held_out_clean:.1%} clean and "
        f"{chosen.held_out_robust:.1%} under PGD-10, on as many training images {chosen.train_clean:.1%} and "
        f"{chosen.train_robust:.1%}."
    )


@contextmanager
def _settings(name: str) -> Iterator[None]:
    """matplotlib's own defaults and ours, whatever the machine's settings are; the old ones are put back after."""
    defaults: dict[Any, Any] = {
        key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith("backend")
    }
    ours: dict[Any, Any] = {
        "svg.hashsalt": name,
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib
        "font.size": 9,
        "text.parse_math": False,
        "axes.titlesize": "medium",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
    }
    with matplotlib.rc_context({**defaults, **ours}), warnings.catch_warnings():
        # only the width of such text is guessed: the reader's fonts have the letters
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        yield


def _svg(figure: Figure, name: str, title: str, description: str) -> str:
    """The figure with title and description for screen readers; without date, generator or DTD."""
    buffer = StringIO()
    FigureCanvasSVG(figure)
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    attributes, _, content = buffer.getvalue().partition("<svg ")[2].partition(">")
    labels = f'role="img" aria-labelledby="{name}-title {name}-description"'
    texts = (
        f'<title id="{name}-title">{escape(title)}</title>\n<desc id="{name}-description">{escape(description)}</desc>'
    )
    drawing = _OF_ONE_STYLE.sub(_say_once, content)
    return f'<?xml version="1.0" encoding="utf-8"?>\n<svg {labels} {attributes}>\n{texts}{drawing}'


def _say_once(group: re.Match[str]) -> str:
    """Marks of one group have one style, which matplotlib repeats for each; and a tenth of a point is fine enough."""
    opening, marks, style = group.groups()
    places = (f'{use} x="{float(x):.1f}" y="{float(y):.1f}"/>' for use, x, y in _PLACE.findall(marks))
    return f"{opening} {style}>\n" + "\n".join(places) + "\n</g>"


def _write(path: Path, text: str) -> Path:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return path

"""Charts as inline SVG: pure functions from numbers to markup.

Each has a title and a description for who cannot see it. Colours are classes of ``temper.css`` and so follow the
reader's scheme; dashes, markers and fillings tell series apart without them. Nothing has a style attribute, which a
strict Content-Security-Policy would drop. ``legend`` stands below a chart, so that several can share one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from web.figures import percent

_WIDTH = 480
_LEFT, _RIGHT, _TOP = 52, 14, 30
_BELOW = 44  # for ticks and the label of the horizontal axis
_SQUARE = 400
_BETWEEN = 38  # panels, with room for the lower one's label
_BAR, _SPACE, _ROOM, _START = 13, 9, 140, 4  # height of a bar, between rows, for their names, above them
_LONGEST_NAME = 17  # letters that fit into it on a phone

# drawn from the middle of a point, of about ten units
_MARKERS = (
    "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "m0-5l5 9h-10z",
    "m-4-4h8v8h-8z",
    "m0 5l-5-9h10z",
    "m0-5.5l5 5.5-5 5.5-5-5.5z",
    "m-1.5-5h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5v-3h3.5z",
    "m-5 0l9-5v10z",
    "m0-2l3-3 2 2-3 3 3 3-2 2-3-3-3 3-2-2 3-3-3-3 2-2z",
    "m5 0l-9-5v10z",
    "m-2-5h4v10h-4z",
)


@dataclass(frozen=True)
class Axis:
    """What an axis measures, from where to where. ``share``: 1 is written 100%. ``whole``: only integers are ticks."""

    label: str
    low: float
    high: float
    share: bool = False
    whole: bool = False

    def ticks(self, about: int = 5) -> list[float]:
        """Round values within the axis."""
        span = self.high - self.low
        if not span > 0:
            return [self.low]
        rough = span / about
        power = 10.0 ** math.floor(math.log10(rough))
        step = power * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
        step = max(1.0, step) if self.whole else step
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]

    def written(self, value: float) -> str:
        """A tick's text."""
        if self.share:
            return percent(value, 0 if abs(100 * value - round(100 * value)) < 1e-6 else 1)
        text = f"{value:.4g}"
        if 0 < abs(value) < 0.01:  # of a learning rate: too long for the margin
            mantissa, exponent = f"{value:.2e}".split("e")
            text = f"{float(mantissa):g}e{int(exponent)}"
        return text.replace("-", "\u2212")


@dataclass(frozen=True)
class Series:
    """Points of one kind, told from others by ``color`` ("before", "after", "1" to "10"), ``dash`` and ``marker``.

    ``dash``: 1 (a plain line) to 5; None draws no line. ``marker``: 0 to 9; None draws none. ``band``: (low, high)
    around each point. ``across``: likewise along the horizontal axis; only ``scatter`` draws it.
    """

    name: str
    points: Sequence[tuple[float, float]]
    color: str
    dash: int | None = 1
    marker: int | None = None
    band: Sequence[tuple[float, float]] = ()
    across: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Panel:
    """One of several plots above each other, which share the horizontal axis."""

    y: Axis
    series: Sequence[Series]
    height: int = 210


@dataclass(frozen=True)
class Bar:
    """A value with its interval, if it has one."""

    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Group:
    """Bars of one kind, one for each row; None where there is none. ``filled``: otherwise an outline."""

    name: str
    bars: Sequence[Bar | None]
    color: str
    filled: bool = True


def lines(
    name: str, title: str, description: str, x: Axis, panels: Sequence[Panel], guides: Sequence[tuple[float, str]] = ()
) -> Markup:
    """Lines over a common horizontal axis.

    Args:
        name: of the chart in its page, unique there.
        guides: horizontal places with a vertical line through all panels, and what each stands for.
    """
    across = _scale(x, _LEFT, _WIDTH - _RIGHT)
    parts, top = [], _TOP
    for number, panel in enumerate(panels):
        bottom = top + panel.height
        up = _scale(panel.y, bottom, top)
        parts += [_vertical_axis(panel.y, up, bottom, _WIDTH - _RIGHT)]
        for place, words in guides:
            parts.append(_tag("path", d=f"M{_n(across(place))} {top}V{bottom}", class_="guide"))
            if number == 0:
                left = across(place) > _WIDTH * 0.6
                at = across(place) + (-5 if left else 5)
                parts.append(_text(words, at, top + 11, "tick", "end" if left else "start"))
        parts += [_line(series, across, up) for series in panel.series]
        top = bottom + _BETWEEN
    bottom = top - _BETWEEN
    parts.append(_horizontal_axis(x, across, bottom))
    return _svg(name, title, description, _WIDTH, bottom + _BELOW, parts)


def bars(name: str, title: str, description: str, x: Axis, rows: Sequence[str], groups: Sequence[Group]) -> Markup:
    """Horizontal bars from the axis's low end, a row for each of ``rows``, in it one bar of each group."""
    across = _scale(x, _ROOM, _WIDTH - _RIGHT)
    tall = len(groups) * (_BAR + 2) + _SPACE
    bottom = _START + tall * len(rows)
    parts = [_grid(x, across, _START, bottom)]
    for number, row in enumerate(rows):
        top = _START + tall * number + _SPACE / 2
        middle = top + (tall - _SPACE) / 2
        short = row if len(row) <= _LONGEST_NAME else row[: _LONGEST_NAME - 1] + "\u2026"
        parts.append(_text(short, _ROOM - 8, middle + 4, "", "end"))
        for below, group in enumerate(groups):
            if (bar := group.bars[number]) is not None:
                parts.append(_bar(bar, group, across, top + below * (_BAR + 2)))
    parts.append(_tag("path", d=f"M{_ROOM} {_START}V{bottom}", class_="base-line"))
    parts.append(_horizontal_axis(x, across, bottom))
    return _svg(name, title, description, _WIDTH, bottom + _BELOW, parts)


def scatter(name: str, title: str, description: str, x: Axis, y: Axis, series: Sequence[Series]) -> Markup:
    """Points in the plane with their intervals, each series with its own marker; the plot is square."""
    bottom = _TOP + _SQUARE
    across, up = _scale(x, _LEFT, _LEFT + _SQUARE), _scale(y, bottom, _TOP)
    parts = [_vertical_axis(y, up, bottom, _LEFT + _SQUARE), _horizontal_axis(x, across, bottom)]
    for each in series:
        for (a, _), (low, high) in zip(each.points, each.band, strict=False):
            parts.append(_tag("path", d=f"M{_n(across(a))} {_n(up(low))}V{_n(up(high))}", class_="interval"))
        for (_, b), (low, high) in zip(each.points, each.across, strict=False):
            parts.append(_tag("path", d=f"M{_n(across(low))} {_n(up(b))}H{_n(across(high))}", class_="interval"))
        places = "".join(f"M{_n(across(a))} {_n(up(b))}{_MARKERS[each.marker or 0]}" for a, b in each.points)
        parts.append(_tag("path", d=places, class_=_dot(each)))
    return _svg(name, title, description, _LEFT + _SQUARE + _RIGHT, bottom + _BELOW, parts)


def legend(entries: Iterable[Series | Group]) -> Markup:
    """What stands for what, as a list with a sample of each."""
    items = [Markup("<li>{}<span>{}</span></li>").format(_sample(entry), entry.name) for entry in entries]
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))


def _sample(entry: Series | Group) -> Markup:
    if isinstance(entry, Group):
        parts = [_tag("rect", x=2, y=2, width=24, height=10, class_=_filling(entry))]
    else:
        parts = [] if entry.dash is None else [_tag("path", d="M1 7H27", class_=_stroke(entry))]
        if entry.marker is not None:
            parts.append(_tag("path", d=f"M14 7{_MARKERS[entry.marker]}", class_=_dot(entry)))
    opening = Markup('<svg viewBox="0 0 28 14" width="28" height="14" aria-hidden="true" focusable="false">{}</svg>')
    return opening.format(Markup("").join(parts))


def _line(series: Series, across: Callable[[float], float], up: Callable[[float], float]) -> Markup:
    places = [(across(a), up(b)) for a, b in series.points]
    parts = []
    if series.band:
        upper = [f"{_n(a)} {_n(up(high))}" for (a, _), (_, high) in zip(places, series.band, strict=True)]
        lower = [f"{_n(a)} {_n(up(low))}" for (a, _), (low, _) in zip(places, series.band, strict=True)]
        outline = "M" + "L".join([*upper, *reversed(lower)]) + "z"
        parts.append(_tag("path", d=outline, class_=f"band color-{series.color}"))
    if len(places) > 1 and series.dash is not None:
        parts.append(_tag("path", d="M" + "L".join(f"{_n(a)} {_n(b)}" for a, b in places), class_=_stroke(series)))
    if series.marker is not None:
        every = max(1, len(places) // 24)
        shapes = "".join(f"M{_n(a)} {_n(b)}{_MARKERS[series.marker]}" for a, b in places[::every])
        parts.append(_tag("path", d=shapes, class_=_dot(series)))
    return Markup("").join(parts)


def _bar(bar: Bar, group: Group, across: Callable[[float], float], top: float) -> Markup:
    end = across(bar.value)
    drawn = _tag("rect", x=_ROOM, y=_n(top), width=_n(max(0.0, end - _ROOM)), height=_BAR, class_=_filling(group))
    if bar.interval is None:
        return drawn
    low, high = (_n(across(value)) for value in bar.interval)
    middle = top + _BAR / 2
    whisker = f"M{low} {_n(middle)}H{high}M{low} {_n(middle - 3)}v6M{high} {_n(middle - 3)}v6"
    return drawn + _tag("path", d=whisker, class_="halo") + _tag("path", d=whisker, class_="interval")  # on any colour


def _stroke(series: Series) -> str:
    return f"stroke color-{series.color} dash-{series.dash}"


def _dot(series: Series) -> str:
    return f"{'dot' if series.dash is None else 'hollow'} color-{series.color}"


def _filling(group: Group) -> str:
    return f"{'fill' if group.filled else 'outline'} color-{group.color}"


def _vertical_axis(y: Axis, up: Callable[[float], float], bottom: float, right: float) -> Markup:
    top, parts = up(y.high), []
    about = max(3, round((bottom - top) / 45))
    for tick in y.ticks(about):
        parts.append(_tag("path", d=f"M{_LEFT} {_n(up(tick))}H{right}", class_="grid-line"))
        parts.append(_text(y.written(tick), _LEFT - 7, up(tick) + 4, "tick", "end"))
    parts.append(_text(y.label, 0, top - 15, "axis", "start"))
    return Markup("").join(parts)


def _horizontal_axis(x: Axis, across: Callable[[float], float], bottom: float) -> Markup:
    left, right = across(x.low), across(x.high)
    parts = [_tag("path", d=f"M{_n(left)} {_n(bottom)}H{_n(right)}", class_="base-line")]
    for tick in x.ticks():
        parts.append(_tag("path", d=f"M{_n(across(tick))} {_n(bottom)}v4", class_="base-line"))
        parts.append(_text(x.written(tick), across(tick), bottom + 18, "tick", "middle"))
    parts.append(_text(x.label, (left + right) / 2, bottom + 37, "axis", "middle"))
    return Markup("").join(parts)


def _grid(x: Axis, across: Callable[[float], float], top: float, bottom: float) -> Markup:
    places = "".join(f"M{_n(across(tick))} {_n(top)}V{_n(bottom)}" for tick in x.ticks())
    return _tag("path", d=places, class_="grid-line")


def _scale(axis: Axis, start: float, end: float) -> Callable[[float], float]:
    """From values of the axis to places in the picture; what lies outside it is drawn at its end."""
    span = (axis.high - axis.low) or 1.0

    def place(value: float) -> float:
        return start + (end - start) * min(1.0, max(0.0, (value - axis.low) / span))

    return place


def _svg(name: str, title: str, description: str, width: float, height: float, parts: Iterable[Markup]) -> Markup:
    return Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-labelledby="{}-title {}-desc">'
        '<title id="{}-title">{}</title><desc id="{}-desc">{}</desc>{}</svg>'
    ).format(_n(width), _n(height), name, name, name, title, name, description, Markup("").join(parts))


def _text(words: str, x: float, y: float, kind: str, anchor: str) -> Markup:
    return _tag("text", words, x=_n(x), y=_n(y), class_=kind, text_anchor=anchor)


def _tag(element: str, content: str = "", **attributes: object) -> Markup:
    """An element; ``class_`` and ``text_anchor`` are written as SVG has them, empty attributes left out."""
    pairs = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value != "")
    written = Markup("").join(Markup(' {}="{}"').format(key, value) for key, value in pairs)
    return Markup("<{}{}>{}</{}>").format(element, written, content, element)


def _n(value: float) -> str:
    """A place, to a tenth of a unit, as short as can be."""
    return f"{value:.1f}".removesuffix(".0")

"""Several jobs' reports side by side: which of them no other beats, and whether they can be compared at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from core.report import Report, Side
from web.charts import Axis, Series, legend, scatter
from web.figures import percent, radius

MOST = 10  # as many as there are colours and markers
_MARGIN = 0.05


@dataclass(frozen=True)
class Compared:
    """A job that has a report."""

    id: str
    name: str
    report: Report

    @property
    def side(self) -> Side:
        """What ships: the hardened model, or for a job that only evaluates the one that came."""
        return self.report.after or self.report.before


_ALIKE: tuple[tuple[str, Callable[[Report], str]], ...] = (
    ("threat models", lambda r: f"{r.threat.norm} {radius(r.threat.eps, r.threat.norm)}"),
    ("suites of attacks", lambda r: r.suite),
    ("test images", lambda r: f"{r.images.ids_sha256} {r.inputs['data']['source']['sha256']} {_pixels(r)}"),
)


def _pixels(report: Report) -> str:
    """How images were made of files: ids name rows of one source, read in one way."""
    data = report.spec.data
    return f"{data.resize} {data.crop} {data.interpolation}"


def differences(compared: Sequence[Compared]) -> list[str]:
    """What keeps their numbers from being comparable, in words."""
    return [what for what, value in _ALIKE if len({value(each.report) for each in compared}) > 1]


def front(compared: Sequence[Compared]) -> set[str]:
    """Ids of the jobs that no other beats: none is at least as good in both accuracies and better in one."""
    places = {each.id: (each.side.clean.accuracy, each.side.robust.accuracy) for each in compared}
    return {
        one
        for one, place in places.items()
        if not any(other != place and other[0] >= place[0] and other[1] >= place[1] for other in places.values())
    }


def picture(compared: Sequence[Compared]) -> Markup:
    """Clean against robust accuracy with 95% intervals, a marker a job, and its legend."""
    series = [
        Series(
            each.name,
            [(each.side.clean.accuracy, each.side.robust.accuracy)],
            str(number % MOST + 1),
            None,
            number % MOST,
            band=[each.side.robust.ci95],
            across=[each.side.clean.ci95],
        )
        for number, each in enumerate(compared)
    ]
    words = "; ".join(
        f"{each.name}: clean {percent(each.side.clean.accuracy)}, robust {percent(each.side.robust.accuracy)}"
        for each in compared
    )
    clean = _axis("clean accuracy", [each.side.clean.ci95 for each in compared])
    robust = _axis("robust accuracy", [each.side.robust.ci95 for each in compared])
    drawn = scatter(
        "pareto", "Clean against robust accuracy", f"Up and right is better. {words}.", clean, robust, series
    )
    return legend(series) + drawn


def _axis(label: str, intervals: Sequence[tuple[float, float]]) -> Axis:
    low, high = min(low for low, _ in intervals), max(high for _, high in intervals)
    return Axis(label, max(0.0, low - _MARGIN), min(1.0, high + _MARGIN), share=True)

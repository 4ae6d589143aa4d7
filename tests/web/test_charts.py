"""Charts: where a value is drawn, what a screen reader is told, and nothing a name could break."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from web.charts import Axis, Bar, Group, Panel, Series, bars, legend, lines, scatter

HOSTILE = '<script>&"]]>'
SHARES = Axis("accuracy", 0, 1, share=True)


def drawn(kind, name=HOSTILE):
    series = [Series(name, [(0, 0.2), (5, 0.6), (10, 0.4)], "1", 2, 1, [(0.1, 0.3), (0.5, 0.7), (0.3, 0.5)])]
    group = Group(name, [Bar(0.25, (0.2, 0.4)), None], "after")
    return {
        "lines": lambda: lines("n", name, name, Axis(name, 0, 10), [Panel(SHARES, series)], [(5, name)]),
        "bars": lambda: bars("n", name, name, SHARES, [name, "other"], [group]),
        "scatter": lambda: scatter("n", name, name, Axis(name, 0, 10), SHARES, series),
    }[kind]()


@pytest.mark.parametrize("kind", ["lines", "bars", "scatter"])
def test_a_chart_is_well_formed_and_says_what_it_shows(kind):
    root = ElementTree.fromstring(str(drawn(kind)))
    assert root.get("role") == "img"
    words = {child.get("id"): child.text for child in root if child.tag in ("title", "desc")}
    assert words == {"n-title": HOSTILE, "n-desc": HOSTILE}
    assert root.get("aria-labelledby").split() == ["n-title", "n-desc"]
    assert not [element for element in root.iter() if element.get("style") or element.tag == "script"]
    assert ElementTree.fromstring(str(legend([Series(HOSTILE, [], "1")]))).findtext(".//span") == HOSTILE


def test_a_bar_is_as_long_as_its_value_and_carries_its_interval():
    root = ElementTree.fromstring(str(drawn("bars", "a")))
    ticks = {text.text: float(text.get("x")) for text in root.iter("text") if text.get("class") == "tick"}
    [bar] = root.findall("rect")
    start, whole = ticks["0%"], ticks["100%"] - ticks["0%"]
    assert float(bar.get("x")) == start
    assert float(bar.get("width")) == pytest.approx(0.25 * whole, abs=0.1)
    [whisker] = [path for path in root.iter("path") if path.get("class") == "interval"]
    low, high = (float(number) for number in re.match(r"M([\d.]+) [\d.]+H([\d.]+)", whisker.get("d")).groups())
    assert (low - start, high - start) == pytest.approx((0.2 * whole, 0.4 * whole), abs=0.2)


def test_a_line_goes_through_its_points():
    root = ElementTree.fromstring(str(drawn("lines", "a")))
    labels = [text for text in root.iter("text") if text.get("class") == "tick"]
    across = {text.text: float(text.get("x")) for text in labels if text.get("text-anchor") == "middle"}
    up = {text.text: float(text.get("y")) - 4 for text in labels if text.get("text-anchor") == "end"}
    [line] = [path for path in root.iter("path") if "stroke" in path.get("class", "").split()]
    places = [tuple(map(float, place.split())) for place in line.get("d")[1:].split("L")]
    assert [x for x, _ in places] == pytest.approx([across["0"], (across["0"] + across["10"]) / 2, across["10"]])
    expected = [up["0%"] + share * (up["100%"] - up["0%"]) for share in (0.2, 0.6, 0.4)]
    assert [y for _, y in places] == pytest.approx(expected, abs=0.1)


def test_series_differ_without_colour():
    same = {"points": [(0, 0), (1, 1)], "color": "1"}
    marks = [str(legend([Series("a", dash=1, marker=number, **same)])) for number in range(10)]
    dashes = [str(legend([Series("a", dash=number, marker=0, **same)])) for number in range(1, 6)]
    assert len(set(marks)) == 10
    assert len(set(dashes)) == 5
    assert legend([Group("a", [], "after")]) != legend([Group("a", [], "after", filled=False)])


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Axis("", 0, 1, share=True), ["0%", "20%", "40%", "60%", "80%", "100%"]),
        (Axis("", 1, 3, whole=True), ["1", "2", "3"]),
        (Axis("", -0.2, 0.2), ["\u22120.2", "\u22120.1", "0", "0.1", "0.2"]),
        (Axis("", 0, 2e-4), ["0", "5e\u22125", "1e\u22124", "1.5e\u22124", "2e\u22124"]),
        (Axis("", 3, 3), ["3"]),
    ],
)
def test_ticks_are_round(axis, ticks):
    assert [axis.written(tick) for tick in axis.ticks()] == ticks

"""The charts of the report page, read back: what is drawn where is what was measured, of the right model."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from tests.web.pages import Page
from tests.web.test_report_page import content, shown
from web.report.drawings import _TRAINING

NEAR = 0.002  # places are drawn to a tenth of a unit
BEFORE, AFTER = "outline color-before", "fill color-after"


class Chart:
    """A chart of a page: values along its axes, for the drawn things by their classes."""

    def __init__(self, markup, name):
        found = re.search(rf'<svg [^>]*aria-labelledby="{name}-title .*?</svg>', markup, re.S)
        self.root = ElementTree.fromstring(found.group())

    @property
    def said(self):
        return self.root.findtext("desc")

    def _axis(self, anchor, place):
        """Two ticks of an axis: (text, place)."""
        ticks = [text for text in self.root.iter("text") if text.get("class") == "tick"]
        ticks = [text for text in ticks if text.get("text-anchor") == anchor and re.match(r"[\d.]+%?$", text.text)]
        values = [float(text.text.rstrip("%")) / (100 if text.text.endswith("%") else 1) for text in ticks]
        places = [float(text.get(place)) for text in ticks]
        top = values.index(max(values[: values.index(0.0, 1) if 0.0 in values[1:] else None]))
        return (values[0], places[0]), (values[top], places[top])

    def across(self, place):
        (low, left), (high, right) = self._axis("middle", "x")
        return low + (place - left) / (right - left) * (high - low)

    def up(self, place):
        """Of the first panel."""
        (low, bottom), (high, top) = self._axis("end", "y")
        return low + (place + 4 - bottom) / (top - bottom) * (high - low)

    def bars(self, kind):
        """Lengths from the top down, and their intervals."""
        found = []
        children = [each for each in self.root if each.get("class") != "halo"]
        for number, each in enumerate(children):
            if each.tag == "rect" and each.get("class") == kind:
                length = self.across(float(each.get("x")) + float(each.get("width")))
                whisker = children[number + 1] if number + 1 < len(children) else each
                ends = re.match(r"M([\d.]+) [\d.]+H([\d.]+)", whisker.get("d") or "")
                drawn = whisker.get("class") == "interval"
                found.append((length, [self.across(float(end)) for end in ends.groups()] if drawn else None))
        return found

    def line(self, kind):
        """Points."""
        paths = [path.get("d") for path in self.root.iter("path") if path.get("class") == f"stroke {kind}"]
        places = [tuple(map(float, place.split())) for place in paths[0][1:].split("L")]
        return [(self.across(x), self.up(y)) for x, y in places]


def near(values):
    return pytest.approx(values, abs=NEAR)


@pytest.mark.parametrize("kind", ["hardened", "searched"])
def test_bars_of_accuracy_are_the_counts_and_their_intervals(kind):
    data = content(kind)
    chart = Chart(shown(data), "accuracies")
    for side, drawn in (("before", BEFORE), ("after", AFTER)):
        counts = [data[side]["clean"], *data[side]["attacks"], data[side]["robust"]]
        assert [length for length, _ in chart.bars(drawn)] == near([count["accuracy"] for count in counts])
        for (_, interval), count in zip(chart.bars(drawn), counts, strict=True):
            assert interval == near(count["ci95"])
    assert (
        f"Robust: {data['before']['robust']['accuracy']:.1%} to {data['after']['robust']['accuracy']:.1%}" in chart.said
    )


def test_of_one_side_the_bars_are_filled():
    data = content("evaluated")
    chart = Chart(shown(data), "accuracies")
    assert chart.bars(BEFORE) == []
    assert len(chart.bars("fill color-after")) == len(data["before"]["attacks"]) + 2
    assert chart.bars("fill color-after")[0][0] == near(data["before"]["clean"]["accuracy"])


def test_lines_of_accuracy_against_eps():
    data = content("hardened")
    chart = Chart(shown(data), "curve")
    for side, kind in (("before", "color-before dash-2"), ("after", "color-after dash-1")):
        curve = data[side]["curve"]
        assert chart.line(kind) == [(near(a), near(b)) for a, b in zip(curve["eps"], curve["accuracy"], strict=True)]
        at = min(range(len(curve["eps"])), key=lambda n: abs(curve["eps"][n] - data["threat"]["eps"]))
        assert f"{side} {curve['accuracy'][at]:.1%}" in chart.said


def test_lines_of_training():
    data = content("hardened")
    markup = shown(data)
    chart = Chart(markup, "training")
    names = {
        "held-out, clean": "held_out_clean",
        "held-out, under PGD-10": "held_out_robust",
        "held-out, under FGSM": "held_out_fgsm",
        "training, clean": "train_clean",
        "training, under PGD-10": "train_robust",
    }
    assert len(_TRAINING) == len(names)
    legend = markup.partition('aria-labelledby="training-title')[2].partition('<ul class="legend">')[2]
    samples = dict(reversed(pair) for pair in re.findall(r'class="stroke ([^"]+)".*?<span>(.*?)</span>', legend)[:5])
    assert samples.keys() == names.keys()
    for name, kind in samples.items():
        measured = [(curve["epoch"], curve[names[name]]) for curve in data["training"]["curves"]]
        assert chart.line(kind) == [(near(a), near(b)) for a, b in measured], name


def test_classes_the_least_robust_first():
    data = content("hardened")
    markup = shown(data)
    chart = Chart(markup, "classes")
    after = sorted(data["after"]["by_class"], key=lambda each: each["robust"] / each["total"])
    before = {each["label"]: each for each in data["before"]["by_class"]}
    assert [length for length, _ in chart.bars(AFTER)] == near([each["robust"] / each["total"] for each in after])
    assert [length for length, _ in chart.bars(BEFORE)] == near(
        [before[each["label"]]["robust"] / each["total"] for each in after]
    )
    assert (
        chart.said == f"Least robust is class {after[0]['label']}: {after[0]['robust']} of {after[0]['total']} images."
    )
    rows = [row for row in Page(markup).tables[""] if re.match(r"class \d+$", row[0]) and len(row) == 6]
    for row, each in zip(rows, after, strict=True):
        was = before[each["label"]]
        assert row[0] == f"class {each['label']}"
        assert [int(cell) for cell in row[1:]] == [
            each["total"], was["clean"], each["clean"], was["robust"], each["robust"]
        ]  # fmt: skip


def test_corruptions_of_both_sides():
    data = content("hardened")
    chart = Chart(shown(data), "corruptions")
    for side, kind in (("before", BEFORE), ("after", AFTER)):
        assert [length for length, _ in chart.bars(kind)] == near(
            [sum(each["accuracy"]) / 5 for each in data[side]["corruptions"]["results"]]
        )

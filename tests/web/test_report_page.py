"""The report page over real reports: whole, self-contained, and with the report's own numbers."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest

from core.examples import Example, Examples, Outcome, Picture
from core.report import Report
from tests.core.test_pictures import embedding
from tests.web.pages import Page
from web.report.page import About, Pictures, content_policy, report_page

KINDS = ("hardened", "evaluated", "searched")
ABOUT = About("job_1", None, "2026-11-22T20:54:40Z")
HOSTILE = '</title></style><script>alert(1)</script><img src=x onerror="alert(1)">\'"&{{ 7 * 7 }}'
PIXEL = Picture(media_type="image/png", content=base64.b64encode(b"\x89PNG").decode())


def content(kind):
    return json.loads((Path(__file__).parent / "reports" / f"{kind}.json").read_text())


def examples(names=None, after=True):
    def outcome(attacked):
        return Outcome(
            clean=3, clean_confidence=0.9, attacked=attacked, attacked_confidence=0.81, perturbation=PIXEL,
            adversarial=PIXEL, magnified=5.0,
        )  # fmt: skip

    chosen = Example(
        id=7, label=3, kind="withstands" if after else "fooled", picture=PIXEL, before=outcome(5),
        after=outcome(3) if after else None,
    )  # fmt: skip
    threat = {"norm": "linf", "eps": 0.1}
    return Examples(attack="pgd", steps=10, threat=threat, tried=32, class_names=names, examples=(chosen,))


def shown(data, about=ABOUT, pictures=None, alone=True):
    return report_page(Report.model_validate(data), about, pictures or Pictures(), alone=alone)


def everything(names=None):
    picture = embedding(attacked=True)
    return shown(content("hardened"), pictures=Pictures(examples(names), picture, picture))


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_alone_refers_to_nothing_outside_itself(kind):
    markup = shown(content(kind)) if kind != "hardened" else everything()
    page = Page(markup)
    assert all(address.startswith("#") for address in page.all("href"))
    assert all(address.startswith("data:image/") for address in page.all("src"))
    assert {address[1:] for address in page.all("href")} <= set(page.all("id"))
    assert not re.search(r"https?:|@import|url\(", markup)
    assert not {"script", "link", "iframe", "object", "form", "base"} & {tag for tag, _ in page.elements}
    # a strict policy drops these, so the page must not need them
    assert not [name for _, attributes in page.elements for name in attributes if name == "style" or name[:2] == "on"]
    assert len(page.all("id")) == len(set(page.all("id")))
    assert len(markup.encode()) < 300_000


def test_the_policy_admits_the_page_s_own_style_sheet_and_no_other():
    style = everything().partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in content_policy()
    assert content_policy() in Page(everything()).all("content")


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_of_the_table_is_the_report_s(kind):
    data = content(kind)
    rows = Page(shown(data)).rows("accuracy-table")
    sides = [data["before"]] + ([data["after"]] if data["after"] else [])
    measured = [[side["clean"], *side["attacks"], side["robust"]] for side in sides]
    assert len(rows) == len(measured[0])
    for row, counts in zip(rows, zip(*measured, strict=True), strict=True):
        for cell, count in zip(row[1:], counts, strict=False):
            low, high = (f"{100 * value:.1f}%" for value in count["ci95"])
            accuracy = f"{100 * count['correct'] / count['total']:.1f}%"
            assert cell == f"{accuracy} {count['correct']:,} of {count['total']:,} [{low}, {high}]"
        if len(counts) == 2:
            points = 100 * (counts[1]["correct"] - counts[0]["correct"]) / counts[0]["total"]
            assert float(row[3].replace("\u2212", "-")) == pytest.approx(points, abs=0.051)
    names = [attack["name"] for attack in data["before"]["attacks"]]
    assert [row[0].split()[1] for row in rows[1:-1]] == names


def test_the_paired_test_is_the_report_s():
    change = content("hardened")["change"]
    for row, name in zip(Page(everything()).rows("change-table"), ("clean", "robust"), strict=True):
        assert row[2:4] == [str(change[name]["gained"]), str(change[name]["lost"])]
        assert row[4] == "< 0.0001"
        assert change[name]["p_value"] < 0.0001
        assert float(row[1].replace("\u2212", "-")) == pytest.approx(100 * change[name]["delta"], abs=0.051)


@pytest.mark.parametrize("kind", ["robust", "brittle", "suspect", "unverified"])
def test_the_verdict_comes_first_with_its_reasons_and_its_limits(kind):
    data = content("hardened")
    data["verdict"] = {"kind": kind, "reasons": ["because <of> this"]}
    markup = shown(data)
    page = Page(markup)
    assert markup.index("verdict-head") < markup.index("<table")
    first = page.text.partition("Before and after")[0]
    for words in (
        f"Verdict: {kind.capitalize()}",
        "because <of> this",
        "What it does not mean",
        "221",
        "73.7%",
        "33.0%",
    ):
        assert words in first
    # "robust" is said of no other model
    assert ("withstand strong attacks" in first) == (kind == "robust")


def test_brittle_without_a_gain_is_not_called_without_robustness():
    data = content("hardened")
    data["verdict"] = {"kind": "brittle", "reasons": ["no real gain"]}
    data["change"]["robust"] |= {"delta": 0.0, "p_value": 1.0}
    text = Page(shown(data)).text
    assert "Hardening brought no real gain." in text
    assert "little or no robustness" not in text
    assert "no more than chance may explain" in text


def test_what_users_wrote_stays_text():
    data = content("hardened")
    data["spec"]["tags"] = {HOSTILE[:60]: HOSTILE}
    data["notes"] = [HOSTILE]
    data["verdict"]["reasons"] = [HOSTILE]
    data["inputs"]["checkpoint"]["filename"] = HOSTILE
    data["inputs"]["data"]["source"]["filename"] = HOSTILE
    data["before"]["attacks"][0]["adapted"] = HOSTILE
    data["output"]["snippet"] = HOSTILE
    names = tuple(f"{HOSTILE}{number}" for number in range(10))
    picture = embedding()
    markup = shown(data, About("job_1", HOSTILE, None), Pictures(examples(names), picture, picture))
    page = Page(markup)
    assert "script" not in {tag for tag, _ in page.elements}
    assert "onerror" not in {name for _, attributes in page.elements for name in attributes}
    assert all(address.startswith("data:") for address in page.all("src"))
    assert "{{ 7 * 7 }}" in page.text
    assert page.text.count(HOSTILE) > 10


def test_every_part_of_a_whole_report_is_there():
    data = content("hardened")
    page = Page(everything())
    parts = {"accuracy", "curve", "training", "examples", "classes", "corruptions", "embedding", "checks", "cost"}
    assert parts | {"load", "reproduce"} <= set(page.all("id"))
    facts = [data["images"]["ids_sha256"], data["output"]["sha256"], data["inputs"]["checkpoint"]["sha256"]]
    facts += [data["inputs"]["data"]["source"]["sha256"], data["environment"]["torch"], data["output"]["snippet"]]
    facts += [sign["sentence"] for side in ("before", "after") for sign in data[side]["diagnosis"]]
    facts += [each["name"] for each in data["after"]["corruptions"]["results"]]
    facts += [f"{data['cost']['total_fb']:,}", f"{len(data['training']['curves'])} ships", "5 times magnified"]
    for fact in facts:
        assert " ".join(fact.split()) in page.text, fact
    spec = next(text for text in page.texts if text.lstrip().startswith('{\n  "') and '"defense"' in text)
    assert json.loads(spec) == Report.model_validate(data).spec.model_dump(mode="json")


def test_what_a_job_did_not_make_is_left_out():
    page = Page(shown(content("evaluated"), pictures=Pictures(examples(after=False))))
    assert not {"training", "corruptions", "embedding", "search"} & set(page.all("id"))
    assert "change-table" not in page.tables
    assert "After" not in page.tables["accuracy-table"][0]
    assert "nothing was trained" in page.text
    assert "hardened" not in page.text.partition("Skip to the content")[2].lower()
    unchecked = content("hardened")
    unchecked["before"]["diagnosis"] = unchecked["after"]["diagnosis"] = None
    unchecked["diagnostics"] = []
    assert "Without it no model is called robust" in Page(shown(unchecked)).text


def test_the_search_is_shown():
    data = content("searched")
    page = Page(shown(data))
    trials = [trial for rung in data["search"]["rungs"] for trial in rung["trials"]] + [data["search"]["final"]]
    for row, trial in zip(page.rows("search-table"), trials, strict=True):
        assert row[0] == trial["candidate"]
        assert row[2] == f"{trial['images']:,}"
        assert row[4:6] == [f"{100 * trial[name]['accuracy']:.1f}%" for name in ("clean", "robust")]
        assert row[6].endswith(trial["reason"])
    assert f"{data['search']['winner']} won" in page.text


def test_within_the_service_it_links_to_the_job_and_to_its_file():
    links = Page(shown(content("evaluated"), alone=False)).all("href")
    assert {"/", "/jobs/job_1", "/jobs/job_1/report?download=1"} <= set(links)


def test_many_epochs_and_classes_do_not_make_it_heavy():
    data = content("hardened")
    first = data["training"]["curves"][0]
    data["training"]["curves"] = [{**first, "epoch": epoch} for epoch in range(1, 3001)]
    data["training"]["selected_epoch"] = 1777
    for side in ("before", "after"):
        data[side]["by_class"] = [{"label": n, "total": 5, "clean": 4, "robust": n % 5} for n in range(1000)]
    markup = shown(data)
    assert len(markup.encode()) < 300_000
    text = Page(markup).text
    assert "Epoch 1777 of 3000 ships" in text
    assert "40 of 1000 classes are shown" in text

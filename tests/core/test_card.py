"""The model card: what the Hub reads of it, what people read, and nothing that differs between equal jobs."""

from __future__ import annotations

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st

from core.card import model_card
from core.run import run
from tests.core.workdirs import make_workdir, small_data

NAME = "a *b* <script>alert(1)</script> | \n# x 😀 https://evil.example ```"
SPEC = {
    "name": NAME,
    "model": {"architecture": "fmnist-cnn", "mean": [0.5], "std": [0.25]},
    "defense": {"name": "aft", "steps": 1},
    "threat": {"eps": 0.02},
    "training": {"epochs": 1, "batch_size": 50, "held_out": 10},
    "evaluation": {"samples": 20, "diagnose": False, "allow_low_baseline": True},
}


@pytest.fixture(scope="module")
def job(tmp_path_factory, arrays, example):
    folder = tmp_path_factory.mktemp("card")
    data = small_data(folder / "data.npz", arrays, 110, 40)
    spec, workdir = make_workdir(folder / "run", SPEC, example / "checkpoint.pt", data)
    events = []
    report = run(spec, workdir, events.append)
    assert {"type": "artifact", "file": "model-card.md"} in events
    return report, (workdir.output / "model-card.md").read_text()


def renamed(report, **changes):
    return report.model_copy(update={"spec": report.spec.model_copy(update=changes)})


def test_the_hub_reads_it(job):
    report, text = job
    data = ModelCard(text).data
    assert (data.license, data.pipeline_tag) == ("unknown", "image-classification")
    assert {"adversarial-robustness", "defense-aft"} <= {*data.tags}
    assert data.model_name == " ".join(NAME.split())
    values = {result.metric_name: result.metric_value for result in data.eval_results}
    side = report.after
    assert values.pop("Clean accuracy") == pytest.approx(side.clean.accuracy, abs=1e-6)
    robust = values.pop("Robust accuracy (suite quick, linf eps 0.02; brittle)")
    assert robust == pytest.approx(side.robust.accuracy, abs=1e-6)
    assert [*values.values()] == [pytest.approx(attack.accuracy, abs=1e-6) for attack in side.attacks]
    assert {result.dataset_name for result in data.eval_results} == {"data.npz"}


def test_people_find_numbers_verdict_threat_loading_limits_and_reproduction(job):
    report, text = job
    for title in ("Numbers", "Verdict", "Threat model", "How to load it", "Limits", "How to reproduce it"):
        assert f"\n## {title}\n" in text
    for side in (report.before, report.after):
        for count in (side.clean, side.robust, *side.attacks):
            low, high = count.ci95
            assert f"{count.accuracy:.1%} ({low:.1%} to {high:.1%}; {count.correct} of {count.total})" in text
    assert report.output.snippet in text
    assert all(sha256 in text for sha256 in report.output.files.values())
    assert "linf eps 0.02" in text
    assert "mean [0.5] and std [0.25]" in text
    assert "20 of 40 test images" in text


def test_users_cannot_write_markup_into_it(job):
    _, text = job
    body = text.split("## How to reproduce it")[0].split("---\n")[2]
    assert "\n# a \\*b\\* \\<script\\>alert(1)\\</script\\> \\| \\# x 😀 https\\://evil.example" in body
    assert body.count("\n# ") == 1
    assert "<script" not in body.replace("\\<script", "")


def test_equal_jobs_have_equal_cards(job, tmp_path, arrays, example):
    """However long they took, and whatever they needed for it."""
    report, text = job
    slower = report.cost.model_copy(update={"total_seconds": 1e6, "peak_memory_bytes": 7})
    assert model_card(report.model_copy(update={"cost": slower})) == text
    assert str(tmp_path.parent) not in text


def test_a_license_is_told_by_a_tag(job):
    report, _ = job
    for tag, license_ in (("Apache-2.0", "apache-2.0"), ("mit\nevil: 1", "unknown"), ("", "unknown")):
        card = model_card(renamed(report, tags={"license": tag}))
        assert yaml.safe_load(card.split("---\n")[1])["license"] == license_


@settings(max_examples=100, deadline=None)
@given(name=st.text(max_size=40))
def test_whatever_the_name_the_front_matter_is_yaml(job, name):
    report, _ = job
    content = yaml.safe_load(model_card(renamed(report, name=name)).split("---\n")[1])
    shown = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    assert content["model-index"][0]["name"] == (shown or "fmnist-cnn, hardened by aft")
    assert set(content) == {"license", "pipeline_tag", "tags", "model-index"}


def test_a_job_that_only_evaluates_describes_the_upload(job):
    report, _ = job
    text = model_card(
        renamed(report.model_copy(update={"after": None, "change": None, "training": None, "output": None}))
    )
    assert "as it was uploaded" in text
    assert "| | Before |" in text
    assert len(ModelCard(text).data.eval_results) == 4

"""Recipes run for real, at a small size: from scratch, then fine-tuned from that; kept, gone on with, and tabled."""

from __future__ import annotations

import pytest
import yaml

from core.errors import Stopped
from recipes import catalog, results, studies
from recipes.catalog import RecipeError
from recipes.runner import Bench, run_recipe
from recipes.tables import comparison, mean_and_spread, repeated
from tests.core.workdirs import small_data

COMMON = {
    "model": {"architecture": "mnist-cnn", "num_classes": 10},
    "data": {"dataset": "small"},
    "threat": {"eps": 0.05},
    "evaluation": {"samples": 40, "diagnose": False, "allow_low_baseline": True},  # it learns next to nothing
}
RECIPES = {
    "our/clean": {
        "title": "from scratch",
        "spec": {**COMMON, "model": {**COMMON["model"], "weights": "random"}, "defense": "natural",
                 "training": {"epochs": 2, "batch_size": 50, "held_out": 20}},
    },
    "our/_base": {
        "start": "our/clean", "spec": {**COMMON, "training": {"epochs": 1, "batch_size": 50, "held_out": 20}},
    },
    "our/aft": {
        "extends": "our/_base", "title": "aft", "method": "AFT", "spec": {"defense": {"name": "aft", "steps": 2}},
        "published": [{"table": "1", "attack": "PGD-20", "clean": 88.15, "robust": 51.7}],
    },
    "our/fast": {"extends": "our/_base", "title": "fast", "spec": {"defense": "fast-at"}},
    "our/lonely": {"title": "no start", "spec": {**COMMON, "defense": "fast-at"}},
}  # fmt: skip
STUDY = {
    "title": "A study", "text": "Words.", "recipes": ["our/aft", "our/fast"], "standard": 10,
    "repeat": {"best": 1, "seeds": [0, 1], "samples": 30},
}  # fmt: skip


@pytest.fixture
def place(tmp_path, arrays, monkeypatch):
    """Recipes, a study, a dataset and an empty folder for results."""
    for name, content in RECIPES.items():
        path = tmp_path / "recipes" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content))
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "1-small.yaml").write_text(yaml.safe_dump(STUDY))
    (tmp_path / "datasets").mkdir()
    small_data(tmp_path / "datasets" / "small.npz", arrays)
    monkeypatch.setattr(catalog, "FOLDER", tmp_path / "recipes")
    monkeypatch.setattr(studies, "STUDIES", tmp_path / "studies")
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    catalog.load.cache_clear()
    yield tmp_path
    catalog.load.cache_clear()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def bench(place, told):
    return Bench(place / "home", place / "datasets", told.append)


def test_a_recipe_starts_from_another_and_is_not_run_twice(bench, told):
    first = run_recipe("our/aft", bench)
    assert [line for line in told if not line.startswith(" ")] == [
        "our/clean, seed 0, suite quick",
        "our/aft, seed 0, suite quick",
    ]
    clean = run_recipe("our/clean", bench)
    assert first.report.inputs["checkpoint"]["sha256"] == clean.report.output.sha256
    told.clear()
    assert run_recipe("our/aft", bench).report == first.report
    assert told == []
    another = run_recipe("our/aft", bench, seed=1)
    assert another.report.inputs["checkpoint"] == first.report.inputs["checkpoint"], "seeds share the clean checkpoint"
    assert another.report.output.sha256 != first.report.output.sha256


def test_goes_on_after_a_stop(bench, place):
    whole = run_recipe("our/aft", bench).report
    polls = iter(range(10**6))
    stopping = Bench(place / "other", place / "datasets", lambda _: None, lambda: next(polls) > 25)
    with pytest.raises(Stopped):
        run_recipe("our/aft", stopping)
    again = run_recipe("our/aft", Bench(place / "other", place / "datasets", lambda _: None)).report
    assert again.output == whole.output
    assert again.after == whole.after


def test_a_changed_recipe_begins_anew(bench, place, told):
    run_recipe("our/fast", bench)
    path = place / "recipes" / "our" / "fast.yaml"
    path.write_text(path.read_text().replace("fast-at", "fgsm-at"))
    catalog.load.cache_clear()
    told.clear()
    assert run_recipe("our/fast", bench).report.spec.defense.name == "fgsm-at"
    assert told[0] == "our/fast, seed 0, suite quick"


def test_says_what_is_missing(bench, place):
    with pytest.raises(RecipeError, match="give --checkpoint FILE"):
        run_recipe("our/lonely", bench)
    (place / "datasets" / "small.npz").unlink()
    with pytest.raises(RecipeError, match="temperd datasets fetch small"):
        run_recipe("our/clean", bench)


def test_a_study_becomes_a_page_from_kept_results(bench, place, told):
    (study,) = studies.studies()
    assert study.name == "small"
    assert "## Not run to its end yet\n\n- A study" in studies.page()
    findings = studies.run_study(study, bench)
    aft, fast = findings.results
    assert aft.standard.total == 10
    assert aft.fb == 3 * 380
    assert len(findings.repeated) == 1
    assert [result.seed for result in findings.repeated[0]] == [0, 1]
    assert {result.clean.total for result in findings.repeated[0]} == {30}
    told.clear()
    page = studies.page()
    assert told == [], "the page is made from what is kept"
    assert f"| our/aft | adam 0.001, slow-start-fast-decay | {aft.clean.accuracy:.1%} |" in page
    assert "pgd-20, step eps/4, eps 0.05, 40 images" in page
    assert "standard, 10 images" in page
    assert "88.15; PGD-20 51.7" in page
    assert f"{fast.fb:,}" in page
    for kept in (place / "results").rglob("*.json"):
        assert results.Result.model_validate_json(kept.read_bytes()).seconds > 0
    # neither is a file of another version, or one torn by a crash; and nothing is shown that was not asked for
    torn = results.kept_path("small", "our/aft", 0)
    whole = torn.read_text()
    for content in (whole.replace('"machine"', '"apparatus"'), whole[:100]):
        torn.write_text(content)
        assert studies.kept(study) is None
    torn.write_text(whole)
    assert results.read("small", "our/aft", 0, None, None).standard is None
    assert results.read("small", "our/aft", 0, 39, 10) is None
    # nor are networks compared that met different images
    digest = aft.images_sha256
    torn.write_text(whole.replace(digest, digest[::-1]))
    with pytest.raises(RecipeError, match="'small' saw different test images"):
        studies.page()
    torn.write_text(whole)
    # a result of a recipe that has changed is no result
    path = place / "recipes" / "our" / "fast.yaml"
    path.write_text(path.read_text().replace("fast-at", "fgsm-at"))
    catalog.load.cache_clear()
    assert studies.kept(study) is None


def test_tables(bench):
    result = results.obtain("our/fast", bench, seed=0, samples=20, standard=None)
    lines = comparison([result], curves=True).splitlines()
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert "standard" not in lines[0]
    assert "corruptions" not in lines[0]
    with_corruptions = comparison([result.model_copy(update={"corruptions_hou": 0.625})]).splitlines()
    assert "six corruptions" in with_corruptions[0]
    assert "| 62.5% |" in with_corruptions[2]
    assert f"| {result.fb:,} | {result.choosing_fb:,} |" in lines[2]
    assert result.choosing_fb > 0
    assert "published" not in lines[0]
    assert f"{result.curves[-1].train_robust:.1%}" in lines[2]
    assert mean_and_spread([0.5, 0.52, 0.51]) == "51.0% (2.0)"
    assert "| our/fast | 2 |" in repeated([[result, result]])


def test_identity_is_what_is_said_otherwise_than_by_default(place):
    before = results.identity("our/aft")
    assert before != results.identity("our/aft", seed=1)
    assert before != results.identity("our/fast")
    path = place / "recipes" / "our" / "aft.yaml"
    path.write_text(path.read_text().replace("title: aft", "title: another"))
    catalog.load.cache_clear()
    assert results.identity("our/aft") == before
    start = place / "recipes" / "our" / "clean.yaml"
    start.write_text(start.read_text().replace("epochs: 2", "epochs: 3"))
    catalog.load.cache_clear()
    assert results.identity("our/aft") != before, "it starts from another checkpoint now"


def test_another_spec_gets_another_folder_and_nothing_is_overwritten(bench, place):
    first = run_recipe("our/fast", bench)
    path = place / "recipes" / "our" / "fast.yaml"
    original = path.read_text()
    path.write_text(original.replace("fast-at", "fgsm-at"))
    catalog.load.cache_clear()
    second = run_recipe("our/fast", bench)
    assert first.workdir.root != second.workdir.root
    assert first.workdir.checkpoint("pt").exists()
    with pytest.raises(RecipeError, match="from scratch: leave out --checkpoint"):
        run_recipe("our/clean", bench, checkpoint=first.workdir.checkpoint("pt"))
    lonely = run_recipe("our/lonely", bench, checkpoint=first.workdir.checkpoint("pt"))
    assert lonely.report.inputs["checkpoint"]["sha256"] == first.report.output.sha256


def test_more_images_need_no_new_training(bench, told):
    run_recipe("our/fast", bench)
    told.clear()
    result = results.obtain("our/fast", bench, seed=0, samples=50, standard=None)
    assert result.clean.total == result.robust.total == 50
    assert not any("epoch" in line for line in told)


@pytest.mark.long
def test_one_failing_recipe_keeps_no_other_from_running(bench, place, told):
    path = place / "recipes" / "our" / "aft.yaml"
    content = yaml.safe_load(path.read_text())
    content["spec"]["model"] = {"num_classes": 7}  # the checkpoint has ten
    path.write_text(yaml.safe_dump(content))
    catalog.load.cache_clear()
    (study,) = studies.studies()
    assert studies.run_study(study, bench) is None
    assert any("our/aft, seed 0, failed: " in line for line in told)
    page = studies.page()
    assert "1 of 2 recipes so far. Words." in page
    assert "| our/fast |" in page

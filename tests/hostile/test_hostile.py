"""Every hostile file is refused with its own code, and nothing of it runs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.hostile.code_pickles import SINGING, code_pickles
from tests.hostile.corpus import hostile
from tests.hostile.entry import CANARY, Hostile, having
from tests.hostile.pickles import tensor, text

ENTRIES = hostile()
_BESIDE = text("a") + tensor()


def test_names_are_unique():
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_refused_with_its_code_and_nothing_runs(entry, watched):
    outcome = watched.run(entry)
    assert outcome.reports == []
    assert not outcome.canary
    assert outcome.stderr == ""
    assert outcome.status == 64
    assert outcome.failure["code"] == entry.code, outcome.failure
    assert outcome.failure["blame"] == "user"
    assert outcome.failure["hint"]
    shown = outcome.failure["detail"] + outcome.failure["hint"]
    assert "Traceback" not in shown
    assert str(outcome.target.parent) not in shown
    assert len(outcome.failure["detail"]) < 2000
    assert outcome.cpu_seconds < 5


_SING = """
import os, pickle, sys
for name in os.listdir(sys.argv[1]):
    os.chdir(os.path.join(sys.argv[1], name))
    try:
        pickle.loads(open("pickle", "rb").read())
    except Exception:
        pass
"""


def test_the_canaries_can_sing(tmp_path):
    """The payloads are real: unpickled, they touch the canary."""
    pickles = code_pickles()
    for name in SINGING:
        (tmp_path / name).mkdir()
        # the payload alone: what lies beside it would want torch
        (tmp_path / name / "pickle").write_bytes(pickles[name].replace(_BESIDE, b""))
    subprocess.run([sys.executable, "-c", _SING, tmp_path], check=True, capture_output=True)
    assert [name for name in SINGING if not (tmp_path / name / CANARY).exists()] == []


def test_the_watch_sees_what_a_careless_parser_does(watched):
    payload = code_pickles()["inst"]
    entry = Hostile("careless", "model.pt", having(payload), "", "checkpoint")
    outcome = watched.run(entry, parser="unsafe")
    assert outcome.canary
    assert any(report.startswith("os.system") for report in outcome.reports)
    assert any(report.startswith("pickle.find_class") for report in outcome.reports)


def test_the_corpus_is_made_by_a_script(tmp_path):
    subprocess.run([sys.executable, "-m", "tests.hostile.make", tmp_path], check=True, capture_output=True)
    codes = json.loads((tmp_path / "codes.json").read_text())
    assert codes == {entry.name: entry.code for entry in ENTRIES}
    assert all((tmp_path / entry.kind / entry.name / entry.filename).is_file() for entry in ENTRIES)

"""Every honest data file is accepted, with all its images, or refused with the line that mends it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.hostile.honest_data import entries

ENTRIES = entries()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_accepted_or_refused_with_the_line_that_mends(entry, watched):
    outcome = watched.run(entry)
    assert outcome.reports == []
    assert outcome.stderr == ""
    if entry.code is not None:
        assert outcome.failure["code"] == entry.code, outcome.failure
        assert entry.hint in outcome.failure["hint"]
        return
    assert outcome.status == 0, outcome.failure
    manifest = json.loads((outcome.target / "data.json").read_text())
    shape = (manifest["channels"], manifest["height"], manifest["width"])
    for split, count in manifest["counts"].items():
        x, y = (np.load(outcome.target / f"{name}_{split}.npy") for name in "xy")
        assert x.shape == (count, *shape)
        assert y.shape == (count,)
        assert np.bincount(y, minlength=manifest["num_classes"]).tolist() == manifest["per_class"][split]
        assert x.any()
    written = {path.name for path in outcome.target.iterdir()}
    assert written == {"data.json", *(f"{name}_{split}.npy" for name in "xy" for split in manifest["counts"])}

"""Which images are correct: kept without loss, compared image by image, read from a real job's table."""

from __future__ import annotations

import numpy as np
import pytest
from pyarrow import parquet, table
from scipy.stats import binomtest

from core.report import AttackResult, Count
from core.run import run
from core.threat import ThreatModel
from recipes.correct import Correct, SideMasks, above
from tests.core.workdirs import make_workdir, small_data


@pytest.mark.parametrize("total", [1, 7, 8, 9, 1000])
def test_the_mask_comes_back(total):
    mask = np.random.default_rng(total).random(total) < 0.6
    kept = Correct.model_validate_json(Correct.of(mask).model_dump_json())
    assert np.array_equal(kept.mask, mask)
    assert kept.accuracy == mask.mean()


def masks(gained: int, lost: int, both: int = 400, neither: int = 400) -> tuple[Correct, Correct]:
    ours = [True] * gained + [False] * lost + [True] * both + [False] * neither
    theirs = [False] * gained + [True] * lost + [True] * both + [False] * neither
    return Correct.of(np.array(ours)), Correct.of(np.array(theirs))


def test_only_the_images_that_differ_count():
    assert above(*masks(20, 5)) is True
    assert above(*masks(5, 20)) is False
    assert above(*masks(20, 12)) is None
    assert above(*masks(0, 0)) is None
    assert above(*masks(120, 100)) is None, "the same accuracies as 20 to 0, which is beyond chance"
    assert above(*masks(20, 0)) is True
    for gained in range(8, 21):
        expected = True if binomtest(gained, gained + 8).pvalue < 0.05 else None
        assert above(*masks(gained, 8)) is expected
    with pytest.raises(ValueError, match="10 and 825"):
        above(Correct.of(np.ones(10, dtype=bool)), masks(20, 5)[0])


def test_an_attack_that_is_cumulative_includes_all_before_it(tmp_path):
    columns = {
        "label": [0, 0, 0, 0, 0],
        "after_clean_prediction": [0, 0, 0, 0, 1],
        "after_1_fgsm_fooled": [True, False, False, False, False],
        "after_2_pgd_fooled": [False, True, False, False, False],
        "after_3_fab_fooled": [False, False, True, False, False],
        "before_3_fab_fooled": [True, True, True, True, True],
    }
    parquet.write_table(table(columns), tmp_path / "images.parquet")
    masks = SideMasks(tmp_path / "images.parquet", "after")
    threat = ThreatModel(norm="linf", eps=0.1)
    for cumulative, expected in ((True, [False, False, False, True, False]), (False, [True, True, False, True, False])):
        attack = AttackResult(name="fab", params={}, threat=threat, counted=True, cumulative=cumulative, attacked=4,
                              fooled=1, **Count.of(1, 5).model_dump())  # fmt: skip
        assert masks.under(3, attack).tolist() == expected


@pytest.mark.parametrize("suite", ["quick", pytest.param("standard", marks=pytest.mark.long)])
def test_the_masks_of_a_job_count_as_its_report(suite, tmp_path, example, arrays):
    spec = {
        "model": {"architecture": "fmnist-cnn"},
        "defense": {"name": "fast-at"},
        "threat": {"eps": 0.03},
        "training": {"epochs": 1, "batch_size": 50},
        "evaluation": {"suite": suite, "samples": 30, "diagnose": False},
    }
    data = small_data(tmp_path / "data.npz", arrays)
    report = run(*make_workdir(tmp_path / "work", spec, example / "checkpoint.pt", data), lambda _: None, lambda: False)
    for name, side in (("before", report.before), ("after", report.after)):
        masks = SideMasks(tmp_path / "work" / "output" / "images.parquet", name)
        assert masks.clean.sum() == side.clean.correct
        assert masks.robust.sum() == side.robust.correct
        assert [masks.under(i, attack).sum() for i, attack in enumerate(side.attacks, 1)] == [
            attack.correct for attack in side.attacks
        ]
    assert 0 < report.after.robust.correct < report.after.clean.correct, "else the masks could be anything"

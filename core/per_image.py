"""Per-image results as Parquet: one row an image, so that anybody can count again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from pyarrow import parquet

from core.evaluate import Bench, entries_for
from core.outcome import Outcome
from core.suites import Suite

NAME = "images.parquet"


def write_per_image(path: Path, bench: Bench, suite: Suite, before: Outcome, after: Outcome | None) -> None:
    """Columns: id, label, then for each side its clean prediction, whether it is robust, and for each attack

    ``attacked``, ``fooled``, ``queries``, ``distance`` (the norm, null without an adversarial example) and
    ``prediction`` (null without one). Attacks are numbered in the suite's order: ``before_1_fgsm_fooled``.
    """
    columns: dict[str, Any] = {"id": bench.images.ids, "label": bench.labels}
    for name, outcome in (("before", before), ("after", after)):
        if outcome is not None:
            columns |= _side(name, suite, outcome)
    table = pyarrow.table(columns)
    temporary = path.with_suffix(".tmp")
    parquet.write_table(table, temporary, compression="zstd")
    temporary.replace(path)


def _side(name: str, suite: Suite, outcome: Outcome) -> dict[str, Any]:
    columns: dict[str, Any] = {
        f"{name}_clean_prediction": outcome.predictions,
        f"{name}_robust": outcome.robust,
    }
    entries = entries_for(suite, randomised=outcome.side.randomised)
    for number, (tally, entry) in enumerate(zip(outcome.tallies, entries, strict=True), 1):
        attack = f"{name}_{number}_{entry.attack.name.replace('-', '_')}"
        columns[f"{attack}_attacked"] = tally.attacked
        columns[f"{attack}_fooled"] = tally.fooled
        columns[f"{attack}_queries"] = tally.queries
        columns[f"{attack}_distance"] = pyarrow.array(tally.distance, mask=np.isnan(tally.distance))
        columns[f"{attack}_prediction"] = pyarrow.array(tally.prediction, mask=tally.prediction < 0)
    return columns

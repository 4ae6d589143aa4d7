"""Which recipes of a study run again with more seeds."""

from __future__ import annotations

from recipes.studies import Repeat, best
from tests.recipes.test_claims import correct, result


def test_the_best_under_the_strongest_suite_are_repeated():
    found = [result("weak", 0.9, 0.5), result("best", 0.8, 0.6), result("masked", 0.9, 0.9), result("good", 0.7, 0.55)]
    found[2] = found[2].model_copy(update={"standard": correct(0.1)})
    assert best(Repeat(best=2, seeds=(1,), samples=10), found) == ["folder/best", "folder/good"]

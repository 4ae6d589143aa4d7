"""Accuracy under corruptions: every one, every severity, the published means, the same whatever the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.corruption_accuracy import PASSES, corruption_accuracy
from core.corruptions import CORRUPTIONS, HOU, MAIN, corrupt
from core.data import ImageSet
from core.evaluate import Bench
from core.rng import Rng, derive_seed


def bench_of(arrays, rows, batch_size):
    images = ImageSet(arrays["x_test"][:, None], arrays["y_test"].astype(np.int64), np.asarray(rows))
    return Bench(images, 10, 3, batch_size, torch.device("cpu"))


def test_all_corruptions_and_their_means(network, arrays):
    calls = []
    bench = bench_of(arrays, range(40), 16)
    done = {}
    result = corruption_accuracy(network, bench, done, on_each=lambda: calls.append(1))
    assert len(calls) == 19
    assert PASSES == 95
    network.cost.forwards = 0
    assert corruption_accuracy(network, bench, done) == result
    assert network.cost.forwards == 0, "what is done is not measured again"
    assert [row.name for row in result.results] == list(CORRUPTIONS)
    by_name = {row.name: row.accuracy for row in result.results}
    assert all(len(values) == 5 for values in by_name.values())
    assert result.mean == pytest.approx(np.mean([by_name[name] for name in MAIN]))
    assert result.mean_all == pytest.approx(np.mean(list(by_name.values())))
    assert result.mean_hou == pytest.approx(np.mean([by_name[name] for name in HOU]))
    assert len(HOU) == 6
    with torch.no_grad():
        x, y, ids = bench.images.batch(np.arange(40), bench.device)
        clean = (network(x).argmax(1) == y).float().mean().item()
        rng = Rng.for_images(derive_seed(3, "corruption", "contrast", 5), ids)
        by_hand = (network(corrupt("contrast", x, 5, rng)).argmax(1) == y).float().mean().item()
    assert by_name["contrast"][4] == pytest.approx(by_hand)
    assert result.mean < clean


def test_an_image_is_corrupted_alike_in_any_batch_and_order(network, arrays):
    rows = list(range(30))
    one = corruption_accuracy(network, bench_of(arrays, rows, 30), {})
    other = corruption_accuracy(network, bench_of(arrays, rows[::-1], 7), {})
    assert one == other

"""The examples to look at: what they show is what the models said, within eps, and both outcomes are there."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from core.data import ImageSet
from core.evaluate import Bench
from core.examples import choose_examples
from core.models.classifier import Classifier
from core.threat import ThreatModel

THREAT = ThreatModel(norm="linf", eps=0.03)
EVERY = np.ones(300, bool)


@pytest.fixture
def bench(arrays):
    labels = arrays["y_test"][:300].astype(np.int64)
    images = ImageSet(arrays["x_test"][:300, None], labels, np.arange(300))
    return Bench(images, 10, 0, 50, torch.device("cpu"))


@pytest.fixture
def blurred(network):
    """Withstands more: what it sees is averaged over a neighbourhood, so that single pixels count less."""

    class Blurred(torch.nn.Module):
        def forward(self, x):
            return network.net(torch.nn.functional.avg_pool2d(x, 5, 1, 2))

    return Classifier(Blurred()).eval()


def pixels(picture):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.content)))).astype(float) / 255


def test_what_is_shown_is_what_happened(network, blurred, bench, arrays):
    found = choose_examples(network, blurred, bench, THREAT, None, EVERY)
    kinds = [example.kind for example in found.examples]
    assert {"withstands", "fooled"} == set(kinds)
    assert max(kinds.count(kind) for kind in set(kinds)) <= 3
    for example in found.examples:
        assert example.label == arrays["y_test"][example.id]
        assert example.before.clean == example.after.clean == example.label
        fooled = example.after.attacked != example.label
        assert fooled == (example.kind == "fooled")
        assert fooled or example.before.attacked != example.label
        clean = pixels(example.picture)
        assert (clean * 255).round().astype(np.uint8).tolist() == arrays["x_test"][example.id].tolist()
        for model, outcome in ((network, example.before), (blurred, example.after)):
            change = pixels(outcome.adversarial) - clean
            assert 0 < np.abs(change).max() <= THREAT.eps + 1 / 255
            magnified = (pixels(outcome.perturbation) - 0.5) / outcome.magnified
            assert np.abs(magnified - change).max() < 2 / 255
            # the picture is rounded to 256 steps, the example was not
            with torch.no_grad():
                said = model(torch.tensor(clean, dtype=torch.float32)[None, None]).softmax(1)
            assert float(said[0, example.label]) == pytest.approx(outcome.clean_confidence, abs=1e-4)


def test_what_the_suite_fooled_withstands_nothing(network, blurred, bench):
    """Though this one attack did not fool it."""
    every = choose_examples(network, blurred, bench, THREAT, None, EVERY).examples
    shown = [example.id for example in every if example.kind == "withstands"]
    assert shown
    robust = ~np.isin(np.arange(300), shown)
    again = choose_examples(network, blurred, bench, THREAT, None, robust).examples
    assert not {example.id for example in again if example.kind == "withstands"} & set(shown)
    assert [example for example in again if example.kind == "fooled"] == [
        example for example in every if example.kind == "fooled"
    ]


def test_equal_inputs_give_equal_examples(network, bench):
    first = choose_examples(network, None, bench, THREAT, ["a"] * 10, EVERY)
    assert first == choose_examples(network, None, bench, THREAT, ["a"] * 10, EVERY)
    assert first.examples
    assert {example.kind for example in first.examples} == {"fooled"}
    assert all(example.after is None for example in first.examples)
    # different classes, as there are some among the images that fall
    assert len({example.label for example in first.examples}) == len(first.examples)


def test_a_model_that_is_never_right_has_none(bench):
    class Wrong(torch.nn.Module):
        def forward(self, x):
            return torch.zeros(len(x), 10) + x.mean() * 0

    labels = bench.images.labels.copy()
    labels[labels == 0] = 1
    images = ImageSet(bench.images.pixels, labels, bench.images.ids)
    always_zero = Classifier(Wrong()).eval()
    found = choose_examples(always_zero, None, Bench(images, 10, 0, 50, torch.device("cpu")), THREAT, None, EVERY)
    assert (found.tried, found.examples) == (0, ())


def test_large_colour_images_are_shown_small(bench):
    class Mean(torch.nn.Module):
        def forward(self, x):
            bright = x.mean((1, 2, 3))
            return torch.stack([bright, 1 - bright], 1)

    rng = np.random.default_rng(0)
    images = ImageSet(rng.integers(120, 136, (8, 3, 200, 300), np.uint8), np.zeros(8, np.int64), np.arange(8))
    large = Bench(images, 2, 0, 4, torch.device("cpu"))
    found = choose_examples(Classifier(Mean()).eval(), None, large, THREAT, None, EVERY)
    for example in found.examples:
        change = np.asarray(Image.open(io.BytesIO(base64.b64decode(example.before.perturbation.content))), float) - 128
        assert np.abs(change).mean() > 32, "magnified to 64, and not averaged away"
        image = Image.open(io.BytesIO(base64.b64decode(example.picture.content)))
        assert (image.mode, max(image.size)) == ("RGB", 128)
        assert example.picture.media_type == "image/jpeg"
        assert len(example.before.perturbation.content) < 40_000
    assert found.examples

"""Splits, order and augmentation: reproducible, disjoint, and as described."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.augmentation import augment
from core.data import ImageSet, epoch_batches, hold_out, sample
from core.rng import Rng


def images(count: int) -> ImageSet:
    rng = np.random.default_rng(0)
    return ImageSet(rng.integers(0, 256, (count, 3, 8, 8), np.uint8), np.arange(count) % 5, np.arange(count))


def test_held_out_images_are_never_trained_on():
    train, held_out = hold_out(images(200), 50, seed=1)
    assert len(held_out) == 20, "at most a tenth"
    assert set(train.ids) | set(held_out.ids) == set(range(200))
    assert not set(train.ids) & set(held_out.ids)
    again = hold_out(images(200), 50, seed=1)[1]
    assert np.array_equal(again.ids, held_out.ids)
    assert not np.array_equal(hold_out(images(200), 50, seed=2)[1].ids, held_out.ids)


def test_the_sample_is_frozen_by_the_seed():
    everything = images(100)
    drawn = sample(everything, 30, seed=0)
    assert len(set(drawn.ids)) == 30
    assert np.array_equal(drawn.ids, sample(everything, 30, seed=0).ids)
    assert sample(everything, 100, 0) is everything
    assert drawn.ids_sha256() != sample(everything, 30, seed=1).ids_sha256()
    assert set(drawn.ids) < set(sample(everything, 31, seed=0).ids), "one more image, not other ones"


def test_every_image_once_an_epoch_in_another_order():
    first, second = (np.concatenate(epoch_batches(100, 32, seed=0, epoch=e)) for e in (0, 1))
    assert sorted(first) == sorted(second) == list(range(100))
    assert not np.array_equal(first, second)
    assert [len(batch) for batch in epoch_batches(97, 32, 0, 0)] == [32, 32, 32], "no batch of one"
    assert [len(batch) for batch in epoch_batches(1, 32, 0, 0)] == [1]


def test_batches_are_pixels_in_zero_to_one():
    whole = images(10)
    x, y, ids = whole.choose(np.array([7, 2])).batch(np.array([0, 1]), torch.device("cpu"))
    assert ids.tolist() == [7, 2]
    assert y.tolist() == [2, 2]
    assert x.dtype == torch.float32
    assert torch.equal(x[0], torch.from_numpy(whole.pixels[7]) / 255)
    floats = ImageSet(whole.pixels.astype(np.float32) / 255, whole.labels, whole.ids)
    assert torch.equal(
        floats.batch(np.array([3]), torch.device("cpu"))[0], whole.batch(np.array([3]), torch.device("cpu"))[0]
    )


def test_crop_shifts_by_at_most_four_pixels_of_black():
    ids = torch.arange(300)
    x = torch.rand(300, 1, 10, 10, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.1
    cropped, _ = augment(x, ["crop"], Rng.for_images(0, ids))
    padded = torch.nn.functional.pad(x, [4] * 4)
    shifts = set()
    for image, source in zip(cropped, padded, strict=True):
        found = [
            (dy, dx) for dy in range(9) for dx in range(9) if torch.equal(image, source[:, dy : dy + 10, dx : dx + 10])
        ]
        assert len(found) == 1
        shifts.add(found[0])
    assert len(shifts) > 60, "all of the 81 shifts are in reach"


def test_flip_mirrors_half_of_the_images():
    ids = torch.arange(400)
    x = torch.rand(400, 1, 4, 4)
    flipped, _ = augment(x, ["flip"], Rng.for_images(0, ids))
    kept = (flipped == x).flatten(1).all(1)
    mirrored = (flipped == x.flip(3)).flatten(1).all(1)
    assert (kept ^ mirrored).all()
    assert 0.4 < mirrored.float().mean() < 0.6


def test_resized_crop_is_a_part_of_the_image():
    gradient = torch.linspace(0, 1, 32).expand(200, 1, 32, 32)  # brightness grows from left to right
    cropped, _ = augment(gradient, ["resized-crop"], Rng.for_images(0, torch.arange(200)))
    widths = cropped[:, 0, 0, -1] - cropped[:, 0, 0, 0]
    assert cropped.min() >= 0
    assert cropped.max() <= 1
    assert widths.min() > 0.15
    assert widths.max() > 0.9
    assert (cropped.diff(dim=3) >= -1e-6).all()


@pytest.mark.parametrize("operation", ["crop", "flip", "resized-crop"])
def test_an_image_is_augmented_alike_in_any_company(operation):
    x = torch.rand(10, 3, 8, 8)
    rng = Rng.for_images(3, torch.arange(10))
    whole, _ = augment(x, [operation], rng)
    rows = torch.tensor([8, 1])
    assert torch.equal(augment(x[rows], [operation], rng[rows])[0], whole[rows])

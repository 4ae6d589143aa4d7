"""The common corruptions: the published constants, closed forms, and each image by its own stream."""

from __future__ import annotations

import colorsys
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.io import decode_jpeg, encode_jpeg

from core.corruptions import CORRUPTIONS, EXTRA, HOU, MAIN, SEVERITIES, corrupt
from core.corruptions.blur import glass_blur
from core.corruptions.digital import elastic
from core.corruptions.edges import canny, distance_to
from core.corruptions.filters import convolution_matrix, correlate, disk, gaussian, motion_blur, zoomed
from core.corruptions.noise import shot_noise
from core.corruptions.plasma import plasma
from core.corruptions.spatter import _equalised, _relief
from core.corruptions.weather import frost
from core.rng import Rng

CIFAR10 = Path(__file__).parents[1] / "data" / "cifar10" / "images.npz"

# make_cifar_c.py and make_imagenet_c.py of github.com/hendrycks/robustness
E = 244 / 224
PUBLISHED = {
    "gaussian-noise": ([0.04, 0.06, 0.08, 0.09, 0.10], [0.08, 0.12, 0.18, 0.26, 0.38]),
    "shot-noise": ([500, 250, 100, 75, 50], [60, 25, 12, 5, 3]),
    "impulse-noise": ([0.01, 0.02, 0.03, 0.05, 0.07], [0.03, 0.06, 0.09, 0.17, 0.27]),
    "defocus-blur": (
        [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)],
        [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)],
    ),
    "glass-blur": (
        [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)],
        [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)],
    ),
    "motion-blur": (
        [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)],
        [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)],
    ),
    "zoom-blur": (
        [(1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)],
        [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)],
    ),
    "snow": (
        [
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ],
        [
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ],
    ),
    "frost": (
        [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)],
        [(1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)],
    ),
    "fog": (
        [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)],
        [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)],
    ),
    "brightness": ([0.05, 0.1, 0.15, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4, 0.5]),
    "contrast": ([0.75, 0.5, 0.4, 0.3, 0.15], [0.4, 0.3, 0.2, 0.1, 0.05]),
    "elastic-transform": (
        [(0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)],
        [
            (2 * E, 0.7 * E, 0.1 * E),
            (2 * E, 0.08 * E, 0.2 * E),
            (0.05 * E, 0.01 * E, 0.02 * E),
            (0.07 * E, 0.01 * E, 0.02 * E),
            (0.12 * E, 0.01 * E, 0.02 * E),
        ],
    ),
    "pixelate": ([0.95, 0.9, 0.85, 0.75, 0.65], [0.6, 0.5, 0.4, 0.3, 0.25]),
    "jpeg-compression": ([80, 65, 58, 50, 40], [25, 18, 15, 10, 7]),
    "speckle-noise": ([0.06, 0.1, 0.12, 0.16, 0.2], [0.15, 0.2, 0.35, 0.45, 0.6]),
    "gaussian-blur": ([0.4, 0.6, 0.7, 0.8, 1], [1, 2, 3, 4, 6]),
    "spatter": (
        [
            (0.62, 0.1, 0.7, 0.7, 0.5, 0),
            (0.65, 0.1, 0.8, 0.7, 0.5, 0),
            (0.65, 0.3, 1, 0.69, 0.5, 0),
            (0.65, 0.1, 0.7, 0.69, 0.6, 1),
            (0.65, 0.1, 0.5, 0.68, 0.6, 1),
        ],
        [
            (0.65, 0.3, 4, 0.69, 0.6, 0),
            (0.65, 0.3, 3, 0.68, 0.6, 0),
            (0.65, 0.3, 2, 0.68, 0.5, 0),
            (0.65, 0.3, 1, 0.65, 1.5, 1),
            (0.67, 0.4, 1, 0.65, 1.5, 1),
        ],
    ),
    "saturate": (
        [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)],
        [(0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)],
    ),
}
DETERMINISTIC = {
    "defocus-blur", "zoom-blur", "brightness", "contrast", "pixelate", "jpeg-compression", "gaussian-blur", "saturate",
}  # fmt: skip
# by the published constants: a weaker term at a higher severity, and from water to mud
NOT_MONOTONE = {"glass-blur", "frost", "elastic-transform", "spatter", "saturate"}


@pytest.fixture(scope="module")
def grey(arrays):
    return torch.from_numpy(arrays["x_test"][:100])[:, None].float() / 255


@pytest.fixture(scope="module")
def colour():
    with np.load(CIFAR10) as data:
        return torch.from_numpy(data["x"][:100]).permute(0, 3, 1, 2).float() / 255


def resized(x, *size):
    return (F.interpolate(x, size=size, mode="bilinear") * 255).round() / 255


def constant(level, *shape):
    return torch.full(shape, level / 255)


def streams(count, seed=0):
    return Rng.for_images(seed, torch.arange(count))


def in_levels(x):
    return (x.double() * 255).round().long()


def test_all_nineteen_in_the_published_order():
    assert list(CORRUPTIONS) == [*MAIN, *EXTRA] == list(PUBLISHED)
    assert (len(MAIN), len(EXTRA)) == (15, 4)
    assert len(set(HOU)) == 6
    assert set(HOU) <= set(MAIN)
    assert all(corruption.name == name for name, corruption in CORRUPTIONS.items())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_constants_are_the_published_ones(name):
    corruption = CORRUPTIONS[name]
    for severity in SEVERITIES:
        for side, published in zip((32, 224), PUBLISHED[name], strict=True):
            expected = np.atleast_1d(published[severity - 1]).tolist()
            assert list(corruption.constants(side, severity)) == pytest.approx(expected, abs=1e-12)
    assert corruption.constants(111, 1) == corruption.cifar[0]
    assert corruption.constants(112, 1) == corruption.imagenet[0]


@pytest.mark.parametrize(
    ("name", "shape", "severity", "message"),
    [
        ("rain", (2, 3, 32, 32), 1, "rain"),
        ("fog", (2, 3, 32, 32), 0, "severity"),
        ("fog", (2, 3, 32, 32), 6, "severity"),
        ("fog", (2, 4, 32, 32), 1, "expected"),
        ("fog", (3, 32, 32), 1, "expected"),
        ("fog", (3, 3, 32, 32), 1, "one for each stream"),
    ],
)
def test_what_is_none_of_these_is_refused(name, shape, severity, message):
    with pytest.raises(ValueError, match=message):
        corrupt(name, torch.zeros(shape), severity, streams(2))


def is_image(y, x):
    whole = (y.double() * 255 - in_levels(y)).abs().max() < 1e-4
    return y.dtype == torch.float32 and y.shape == x.shape and 0 <= y.min() <= y.max() <= 1 and bool(whole)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_images_of_any_kind_stay_images(name, grey, colour):
    for x in (grey[:4], colour[:4], resized(colour[:4], 28, 28), resized(grey[:4], 32, 45)):
        for severity in SEVERITIES:
            assert is_image(corrupt(name, x, severity, streams(4)), x)
    for x in (resized(grey[:1], 224, 224), resized(colour[:1], 224, 224), resized(colour[:1], 130, 112)):
        for severity in (1, 2, 5) if len(x[0]) == 1 else (4,):
            y = corrupt(name, x, severity, streams(1))
            assert is_image(y, x)
            assert (y != x).any() or (name == "saturate" and len(x[0]) == 1)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("kind", ["grey", "colour"])
def test_an_image_is_corrupted_alike_in_any_company(name, kind, grey, colour):
    small = {"grey": grey, "colour": colour}[kind][:7]
    for x, severity in ((small, 2), (small, 5), (resized(small[:3], 112, 120), 3)):
        rng = streams(len(x))
        whole = corrupt(name, x, severity, rng)
        rows = torch.tensor([2, 0])
        assert torch.equal(corrupt(name, x[rows], severity, rng[rows]), whole[rows])
        assert torch.equal(corrupt(name, x[1:2], severity, rng[torch.tensor([1])]), whole[1:2])
        other = corrupt(name, x, severity, streams(len(x), seed=1))
        assert torch.equal(other, whole) == (name in DETERMINISTIC)


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name not in NOT_MONOTONE])
def test_severity_grows(name, grey, colour):
    for x in (grey, colour, resized(colour[:6], 112, 112)):
        change = [(corrupt(name, x, s, streams(len(x))) - x).abs().mean().item() for s in SEVERITIES]
        # some neighbours of motion-blur, fog and snow differ by chance more than by their published constants
        assert all(later > 0.94 * earlier for earlier, later in itertools.pairwise(change)), change
        assert change[4] > 1.25 * change[0], change


def test_results_are_truncated_and_inputs_rounded():
    x = constant(100, 1, 1, 28, 28)
    assert (in_levels(corrupt("brightness", x, 1, streams(1))) == 112).all(), "100 + 12.75 rounded down"
    assert (in_levels(corrupt("brightness", x, 4, streams(1))) == 151).all(), "100 + 51 exactly"
    assert torch.equal(corrupt("brightness", x + 0.4 / 255, 1, streams(1)), corrupt("brightness", x, 1, streams(1)))


SMEARING = ["defocus-blur", "glass-blur", "motion-blur", "zoom-blur", "elastic-transform", "pixelate", "gaussian-blur"]


@pytest.mark.parametrize("name", [*SMEARING, "contrast"])
def test_a_constant_image_stays(name):
    for side in (32, 112):
        x = torch.cat([constant(level, 1, 3, side, side) for level in (0, 77, 201, 255)])
        for severity in SEVERITIES:
            y = corrupt(name, x, severity, streams(4))
            if name == "defocus-blur" and side == 112 and severity > 3:
                # the published kernels of radius 8 and 10 touch their border, and weigh more than 1
                gain = {4: 1.012975, 5: 1.010786}[severity]
                assert in_levels(y)[:, 0, 50, 50].tolist() == [0, int(77 * gain), int(201 * gain), 255]
            else:
                assert torch.equal(y, x)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_gaussian_and_speckle_noise_have_their_scale(severity):
    x = constant(128, 100, 3, 32, 32)
    for name, factor in (("gaussian-noise", 1), ("speckle-noise", 128 / 255)):
        y = corrupt(name, x, severity, streams(100)).double()
        scale = factor * CORRUPTIONS[name].cifar[severity - 1][0]
        # rounding down costs half a level, and adds the variance of a uniform error
        assert y.mean().item() == pytest.approx(127.5 / 255, abs=5 * scale / math.sqrt(y.numel()))
        assert y.var().item() == pytest.approx(scale**2 + 1 / (12 * 255**2), rel=0.02)


@pytest.mark.parametrize("photons", [500, 250, 100, 75, 60, 50, 25, 12, 5, 3])
def test_shot_noise_counts_as_poisson(photons):
    draws = 40 * 32 * 32
    for level in (0, 3, 128, 255):
        rate = photons * level / 255
        counts = shot_noise(constant(level, 40, 1, 32, 32).double(), streams(40), photons) * photons
        assert torch.allclose(counts, counts.round(), atol=1e-9)
        assert counts.mean().item() == pytest.approx(rate, abs=5 * math.sqrt(rate / draws))
        # the variance of a sample variance: (fourth central moment - variance^2) / n
        assert counts.var().item() == pytest.approx(rate, abs=5 * math.sqrt((rate + 2 * rate**2) / draws))
        for k in range(int(rate) + 3):
            share = math.exp(k * math.log(rate) - rate - math.lgamma(k + 1)) if rate else float(k == 0)
            found = (counts.round() == k).double().mean().item()
            assert found == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / draws) + 1e-4)


def test_the_smallest_draw_is_a_small_count():
    class Zero(Rng):
        def uniform(self, *shape):
            return torch.zeros(len(self), *shape)

    x = constant(200, 1, 1, 28, 28).double()
    for photons, rate in ((3, 2.4), (500, 392)):
        counts = shot_noise(x, Zero(torch.zeros(1, dtype=torch.int64)), photons) * photons
        assert (counts >= 0).all()
        assert (counts <= max(0, rate - 5 * math.sqrt(rate))).all()


@pytest.mark.parametrize("severity", SEVERITIES)
def test_impulses_are_half_salt_and_half_pepper(severity):
    y = corrupt("impulse-noise", constant(100, 100, 3, 32, 32), severity, streams(100))
    half = CORRUPTIONS["impulse-noise"].cifar[severity - 1][0] / 2
    for value in (0, 1):
        assert (y == value).double().mean().item() == pytest.approx(half, rel=0.06)
    assert ((y == 0).any(1) & (y == 1).any(1)).any(), "each channel by itself"


def test_severities_draw_anew():
    x = constant(100, 20, 3, 32, 32)
    few, many = (corrupt("impulse-noise", x, severity, streams(20)) != x for severity in (4, 5))
    assert (few & many).sum() < 0.2 * few.sum()


@pytest.mark.parametrize(("border", "mode"), [("edge", "edge"), ("symmetric", "symmetric"), ("mirror", "reflect")])
def test_borders_are_those_of_numpy(border, mode):
    line, weights = torch.arange(1.0, 8).double() ** 2, torch.arange(1.0, 20).double()  # wider than the line
    expected = np.correlate(np.pad(line.numpy(), 9, mode=mode), weights.numpy(), "valid")
    assert np.allclose((convolution_matrix(7, weights, border) @ line).numpy(), expected)


def test_filters_reach_as_far_as_those_of_skimage_and_opencv():
    x = torch.zeros(41, 41).double()
    x[20, 20] = 1
    assert (gaussian(x, 2)[20] > 0).nonzero().flatten().tolist() == list(range(12, 29)), "4 sigma"
    assert (gaussian(x, 2, "symmetric", 3)[20] > 0).nonzero().flatten().tolist() == list(range(14, 27))
    kernel = torch.arange(9.0).double().view(3, 3)
    spot = correlate(x[None, None], kernel)[0, 0, 19:22, 19:22]
    assert torch.allclose(spot, kernel.flip(0, 1)), "a correlation, not a convolution"
    assert disk(8, 0.5).sum().item() == pytest.approx(1.0129755, abs=1e-6), "what OpenCV gives"
    assert disk(10, 0.5).sum().item() == pytest.approx(1.0107858, abs=1e-6)


def test_gaussian_blur_of_an_impulse_is_the_kernel():
    for side, severity, sigma in ((33, 5, 1.0), (113, 3, 3.0)):
        x = torch.zeros(1, 1, side, side)
        x[..., side // 2, side // 2] = 1
        radius = int(4 * sigma + 0.5)
        taps = [
            math.exp(-(i**2) / (2 * sigma**2)) if abs(i) <= radius else 0 for i in range(-(side // 2), side // 2 + 1)
        ]
        kernel = torch.tensor(taps).double() / sum(taps)
        assert torch.equal(
            in_levels(corrupt("gaussian-blur", x, severity, streams(1)))[0, 0],
            (torch.outer(kernel, kernel) * 255).floor().long(),
        )


def test_gaussian_blur_repeats_the_border():
    x = torch.zeros(1, 1, 33, 33)
    x[..., 0] = 1
    taps = [math.exp(-(i**2) / 2) for i in range(-4, 5)]
    expected = [int(255 * sum(taps[4 + column :]) / sum(taps)) for column in range(5)]
    assert in_levels(corrupt("gaussian-blur", x, 5, streams(1)))[0, 0, 7, :5].tolist() == expected


def test_defocus_is_a_disk():
    kernel = disk(3, 0.1)
    assert kernel.sum().item() == pytest.approx(1)
    assert (kernel > 1e-9).sum() == 29, "whole points within 3 of the centre"
    assert kernel.max().item() == pytest.approx(1 / 29)
    assert disk(10, 0.5).shape == (21, 21)
    x = torch.zeros(1, 1, 112, 112)
    x[..., 50, 60] = 1
    spot = in_levels(corrupt("defocus-blur", x, 1, streams(1)))[0, 0]
    assert (spot == 255 // 29).sum() == 29
    assert spot[47, 60] == spot[53, 60] == spot[50, 57] == spot[50, 63] == 255 // 29
    edge = torch.zeros(1, 1, 112, 112)
    edge[..., 0] = 1
    seen = in_levels(corrupt("defocus-blur", edge, 1, streams(1)))[0, 0, 50, :2].tolist()
    assert seen == [7 * 255 // 29, 5 * 255 // 29], "the border is mirrored: the outermost column occurs once"


def test_motion_blur_is_half_a_gaussian_along_the_angle():
    x = torch.rand(3, 2, 20, 24, generator=torch.Generator().manual_seed(0)).double()
    angles = torch.tensor([0.0, 33.0, -100.0])
    blurred = motion_blur(x, 4, 1.5, angles)
    weights = np.exp(-0.5 * (np.arange(9) / 1.5) ** 2)
    weights /= weights.sum()
    for image, angle in enumerate(np.radians(angles.numpy())):
        expected = np.zeros((2, 20, 24))
        for tap, weight in enumerate(weights):
            rows = np.arange(20) + math.ceil(tap * math.sin(angle) - 0.5)
            columns = np.arange(24) + math.ceil(tap * math.cos(angle) - 0.5)
            expected += weight * x[image].numpy()[:, rows.clip(0, 19)][:, :, columns.clip(0, 23)]
        assert np.allclose(blurred[image].numpy(), expected)


def test_motion_blur_stays_near_the_horizontal():
    x = torch.zeros(200, 1, 41, 41)
    x[..., 20, 20] = 1
    y = corrupt("motion-blur", x, 5, streams(200))
    rows = y.amax((1, 3)) > 0
    columns = y.amax((1, 2)) > 0
    assert not columns[:, 21:].any(), "one-sided: the light at the right is seen from the left"
    assert (columns.sum(1) >= rows.sum(1) - 1).all()
    assert rows[:, :20].any(1).double().mean() == pytest.approx(0.5, abs=0.15)


def test_zooming_a_ramp_makes_it_flatter():
    ramp = torch.arange(32.0).double().expand(1, 1, 32, 32)
    for factor in (1.0, 1.1, 1.25, 2.0):
        crop = math.ceil(32 / factor)
        slope = (crop - 1) / (round(crop * factor) - 1)
        assert torch.allclose(zoomed(ramp, factor).diff(dim=3), torch.tensor(slope).double())
    x = torch.rand(1, 3, 28, 30).double()
    assert torch.equal(zoomed(x, 1), x)


@pytest.mark.parametrize(("reach", "iterations"), [(1, 1), (1, 2), (2, 3), (4, 2)])
def test_glass_copies_pixels_as_the_published_loop_does(reach, iterations):
    rng = streams(2)
    height, width = 28, 33
    x = torch.randint(0, 256, (2, 1, height, width), generator=torch.Generator().manual_seed(0)).double() / 255
    expected = x.clone()
    for iteration in range(iterations):
        shift = (rng.fork(iteration).uniform(2, height, width) * 2 * reach).long() - reach
        for image in range(2):
            for h in range(height - reach, reach, -1):
                for w in range(width - reach, reach, -1):
                    dy, dx = shift[image, :, h, w].tolist()
                    expected[image, 0, h, w] = expected[image, 0, h + dy, w + dx]
    # so narrow a filter is none
    assert torch.equal(in_levels(glass_blur(x, rng, 0.05, reach, iterations)), in_levels(expected))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_brightness_and_contrast_are_exact(severity):
    added, factor = (CORRUPTIONS[name].cifar[severity - 1][0] for name in ("brightness", "contrast"))
    x = torch.cat([constant(level, 1, 1, 28, 28) for level in (0, 10, 128, 250)])
    expected = [min(255, int(level + 255 * added + 1e-9)) for level in (0, 10, 128, 250)]
    assert in_levels(corrupt("brightness", x, severity, streams(4)))[:, 0, 3, 3].tolist() == expected
    halves = torch.cat([constant(40, 1, 3, 32, 16), constant(200, 1, 3, 32, 16)], 3)
    seen = in_levels(corrupt("contrast", halves, severity, streams(1)))[0, 1, 5]
    plain = torch.tensor([20, 100, 240]).view(1, 3, 1, 1).expand(1, 3, 32, 32) / 255
    assert torch.equal(corrupt("contrast", plain, severity, streams(1)), plain), "each channel has its own mean"
    assert (seen[0], seen[31]) == (int(120 - 80 * factor + 1e-9), int(120 + 80 * factor + 1e-9))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_hue_saturation_and_value_agree_with_colorsys(severity, colour):
    x = torch.cat([colour[:1, :, ::4, ::4], torch.tensor([[0.0, 0.4, 1.0]]).view(3, 1, 1).expand(3, 8, 8)[None]])
    x = F.interpolate(x, size=(32, 32))
    factor, more = CORRUPTIONS["saturate"].cifar[severity - 1]
    added = CORRUPTIONS["brightness"].cifar[severity - 1][0]
    saturated, brighter = (corrupt(name, x, severity, streams(2)) for name in ("saturate", "brightness"))
    for image in range(2):
        for row, column in ((0, 0), (5, 9), (30, 17), (14, 28)):
            h, s, v = colorsys.rgb_to_hsv(*(in_levels(x)[image, :, row, column] / 255).double().tolist())
            for y, hsv in (
                (saturated, (h, min(max(s * factor + more, 0), 1), v)),
                (brighter, (h, s, min(v + added, 1))),
            ):
                expected = torch.tensor(colorsys.hsv_to_rgb(*hsv)) * 255
                error = expected - in_levels(y)[image, :, row, column]
                assert error.min() > -1e-3
                assert error.max() < 1 + 1e-3


def test_saturation_reddens_grey_pixels_and_leaves_grey_images(grey):
    grey_pixels = constant(100, 1, 3, 32, 32)
    assert in_levels(corrupt("saturate", grey_pixels, 5, streams(1)))[0, :, 0, 0].tolist() == [100, 80, 80]
    for severity in SEVERITIES:
        assert torch.equal(corrupt("saturate", grey[:2], severity, streams(2)), grey[:2])


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
def test_jpeg_is_torchvision_s(grey, colour):
    for x in (grey[:3], colour[:3]):
        for severity, quality in zip(SEVERITIES, (80, 65, 58, 50, 40), strict=True):
            y = in_levels(corrupt("jpeg-compression", x, severity, streams(3)))
            expected = [decode_jpeg(encode_jpeg(image, quality)) for image in in_levels(x).to(torch.uint8)]
            assert torch.equal(y, torch.stack(expected).long())


def test_pixelate_averages_blocks(colour):
    x = resized(colour[:2], 112, 112)  # severity 2 halves it, rounding after the rows and again after the columns
    pairs = (in_levels(x).unflatten(3, (-1, 2)).sum(4) + 1) // 2
    means = (pairs.unflatten(2, (-1, 2)).sum(3) + 1) // 2
    expected = means.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(in_levels(corrupt("pixelate", x, 2, streams(2))), expected)
    small = in_levels(corrupt("pixelate", colour[:1], 5, streams(1)))[0, 0]
    assert len(torch.unique_consecutive(small, dim=0)) == int(32 * 0.65)


def test_elastic_moves_the_triangle_s_corners():
    rows, columns = torch.meshgrid(torch.arange(65.0).double(), torch.arange(65.0).double(), indexing="ij")
    rng = streams(5)
    places = torch.stack([columns, rows, rows]).expand(5, -1, -1, -1)
    assert torch.allclose(elastic(places, rng, 0, 0, 0), places)
    y = elastic(places, rng, 0, 0, 0.05)
    corners = torch.tensor([[53.0, 53], [53, 11], [11, 11]]).double()
    moved = corners + 0.05 * 65 * (2 * rng.fork("affine").uniform(3, 2).double() - 1)
    right, down = y[:, :2, 32, 33] - y[:, :2, 32, 32], y[:, :2, 33, 32] - y[:, :2, 32, 32]
    for image in range(5):
        for corner, place in zip(corners, moved[image], strict=True):
            found = y[image, :2, 32, 32] + (place[0] - 32) * right[image] + (place[1] - 32) * down[image]
            assert torch.allclose(found, corner, atol=1e-9)


def test_elastic_displaces_by_its_amplitude():
    columns = torch.arange(64.0).double().expand(20, 1, 64, 64) / 64
    rng = streams(20)
    moved = (elastic(columns, rng, 0.1, 0.03, 0) - columns)[..., 10:54] * 64
    noise = 2 * rng.fork("displacement").uniform(2, 64, 64)[:, :1].double() - 1
    smooth = gaussian(noise, 0.03 * 64, "symmetric", truncate=3)[..., 10:54]
    assert torch.allclose(moved, 0.1 * 64 * smooth, atol=1e-9)
    # noise of variance 1/3, averaged over the kernel's 4 pi sigma^2 pixels
    expected = 0.1 * 64 * math.sqrt(1 / 3 / (4 * math.pi * (0.03 * 64) ** 2))
    assert moved.std().item() == pytest.approx(expected, rel=0.1)
    assert abs(moved.mean().item()) < 0.1 * expected


def test_plasma_spans_the_square_and_averages_neighbours():
    ground = plasma(streams(3), 64, 64, 2.0)
    assert ground.amin((1, 2, 3)).tolist() == [0] * 3
    assert ground.amax((1, 2, 3)).tolist() == [1] * 3
    assert torch.equal(plasma(streams(3), 33, 50, 2.0), ground[..., :33, :50])
    smooth = plasma(streams(3), 32, 32, 1e3)[:, 0]  # the wobble is spent after the first step
    corner = smooth[:, ::2, ::2]
    corners = (corner + corner.roll(-1, 1) + corner.roll(-1, 2) + corner.roll((-1, -1), (1, 2))) / 4
    assert torch.allclose(smooth[:, 1::2, 1::2], corners)
    centre = smooth[:, 1::2, 1::2]
    across = (corner + corner.roll(-1, 2) + centre + centre.roll(1, 1)) / 4
    down = (corner + corner.roll(-1, 1) + centre + centre.roll(1, 2)) / 4
    assert torch.allclose(smooth[:, ::2, 1::2], across)
    assert torch.allclose(smooth[:, 1::2, ::2], down)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_fog_keeps_black_and_scales_to_the_maximum(severity):
    black, white = (constant(level, 3, 3, 32, 32) for level in (0, 255))
    assert torch.equal(corrupt("fog", black, severity, streams(3)), black)
    thickness = CORRUPTIONS["fog"].cifar[severity - 1][0]
    y = corrupt("fog", white, severity, streams(3))
    assert in_levels(y).amin((1, 2, 3)).tolist() == [int(255 / (1 + thickness) + 1e-9)] * 3
    assert y.amax((1, 2, 3)).tolist() == [1] * 3


def test_frost_has_the_photographs_colours():
    ice = frost(torch.zeros(600, 3, 32, 32).double(), streams(600), 1, 1) * 255
    assert ice.mean((0, 2, 3)).tolist() == pytest.approx([146.0, 167.0, 179.4], abs=6)
    assert ice.mean(1).std((1, 2)).mean().item() == pytest.approx((15 + 19 + 19 + 26 + 35) / 5, abs=2)
    tint = ice.mean((2, 3))
    teal = tint[tint[:, 2] - tint[:, 0] > 50].mean(0)
    assert teal.tolist() == pytest.approx([78, 149, 166], abs=6)
    assert tint[tint[:, 2] - tint[:, 0] > 50].mean(1).std().item() == pytest.approx(11, abs=2)
    black = torch.zeros(600, 3, 32, 32)
    assert corrupt("frost", black, 1, streams(600)).mean().item() == pytest.approx(0.2 * 164 / 255, rel=0.05)
    grey_ice = frost(torch.zeros(600, 1, 32, 32).double(), streams(600), 1, 1)
    assert grey_ice.mean().item() * 255 == pytest.approx(0.299 * 146 + 0.587 * 167 + 0.114 * 179.4, abs=6)
    neighbours = ice.mean(1).diff(dim=2).abs().mean((1, 2)) / ice.mean(1).std((1, 2))
    assert 0.7 < neighbours.mean() < 0.95, "as in the photographs, between 0.73 and 0.93"
    large = frost(torch.zeros(3, 1, 224, 224).double(), streams(3), 1, 1)[:, 0]
    neighbours = large.diff(dim=2).abs().mean((1, 2)) / large.std((1, 2))
    assert 0.4 < neighbours.mean() < 0.6, "as in the photographs at full size, between 0.43 and 0.55"


def test_snow_falls_the_same_way_up_and_down():
    for level in (0, 100):
        y = corrupt("snow", constant(level, 20, 3, 32, 32), 3, streams(20))
        assert torch.equal(y, y.flip(2, 3))
        ground = 0.9 * level / 255 + 0.1 * max(level / 255, 1.5 * level / 255 + 0.5)
        assert (in_levels(y) >= int(255 * ground + 1e-6)).all()
        assert (in_levels(y) == int(255 * ground + 1e-6)).any(), "between the flakes"
    down, across = (y.diff(dim=d).abs().mean().item() for d in (2, 3))
    assert across > 1.2 * down, "flakes are longer than wide"


def test_water_is_turquoise_and_mud_is_brown(grey):
    x = constant(60, 20, 3, 32, 32)
    wet = in_levels(corrupt("spatter", x, 3, streams(20))) - 60
    assert (wet >= 0).all()
    assert ((wet[:, 1] - wet[:, 2]) == 0).all()
    assert wet[:, 0].sum() / wet[:, 1].sum() == pytest.approx(175 / 238, abs=0.03)
    assert wet.amax((1, 2, 3)).tolist() == [119] * 20, "half of 238 where it shines most"
    muddy = in_levels(corrupt("spatter", constant(255, 20, 3, 112, 112), 5, streams(20)))
    untouched = (muddy == 255).all(1)
    assert (muddy[:, 0][~untouched] <= 255 - 0.8 * 192).all(), "a pixel is covered by 80% at least, or not at all"
    darkest = muddy.flatten(2).amin(2)
    assert (darkest[:, 0] >= 63).all()
    assert (darkest[:, 0] <= 255 - 0.8 * 192).all()
    assert ((255 - darkest[:, 2]) / (255 - darkest[:, 0])).float().mean() == pytest.approx(235 / 192, abs=0.02)
    assert (corrupt("spatter", grey[:3], 5, streams(3)) != grey[:3]).any()


def test_edges_of_a_square_are_one_pixel_wide():
    x = torch.zeros(1, 1, 20, 20, dtype=torch.long)
    x[..., 5:15, 5:15] = 200
    edges = canny(x, 50, 150)[0, 0]
    # of the two pixels at a step, which are as steep, the first one
    assert edges[10].nonzero().flatten().tolist() == [4, 14]
    assert edges[:, 10].nonzero().flatten().tolist() == [4, 14]
    assert not edges[7:13, 7:13].any()
    assert not canny(x // 8, 50, 150).any(), "no slope exceeds 150"


def test_weak_edges_count_only_next_to_strong_ones():
    x = torch.zeros(1, 1, 20, 60, dtype=torch.long)
    x[..., 10:, :20] = 20  # weak, and joined to the strong one
    x[..., 10:, 20:30] = 60
    x[..., 10:, 45:] = 20  # weak and alone
    edges = canny(x, 50, 150)[0, 0]
    assert edges[9:11, 5:15].any()
    assert not edges[:, 50:].any()


def test_distance_is_the_shortest_path_to_a_mark():
    marked = torch.rand(2, 1, 30, 26, generator=torch.Generator().manual_seed(0)) < 0.01
    found = distance_to(marked, 20)
    for image in range(2):
        places = marked[image, 0].nonzero()
        offsets = (torch.cartesian_prod(torch.arange(30), torch.arange(26))[:, None] - places).abs()
        near, far = offsets.amin(2).float(), offsets.amax(2).float()
        length = torch.where(
            2 * near <= far, (far - 2 * near) + 2.1969 * near, (far - near) * 2.1969 + (2 * near - far) * 1.4
        )
        expected = length.amin(1).clamp_max(20).view(30, 26)
        assert torch.allclose(found[image, 0], expected, atol=1e-4)
    assert (distance_to(torch.zeros(1, 1, 8, 8, dtype=torch.bool), 20) == 20).all()


def test_drops_are_lit_as_opencv_lights_them():
    drop = torch.zeros(1, 1, 20, 20).double()
    drop[..., 5:15, 5:15] = 200 / 255
    light = _relief(drop)[0, 0]
    # Canny, distanceTransform, blur, equalizeHist, filter2D, blur of OpenCV 5.0
    row = [60, 60, 0, 0, 75, 135, 189, 174, 140, 87, 26, 0, 0, 0, 85, 170, 255, 255, 248, 248]
    column = [60, 60, 0, 0, 72, 157, 242, 255, 255, 228, 174, 102, 44, 44, 116, 201, 255, 255, 248, 248]
    assert light[10].tolist() == row
    assert light[:, 7].tolist() == column


def test_equalising_spreads_the_levels():
    x = torch.tensor([3, 3, 5, 5, 5, 20, 9, 9]).view(1, 1, 2, 4)
    # six pixels lie above the lowest level: 3, 5 and 6 of them up to 5, 9 and 20
    expected = [0, 0, 128, 128, 128, 255, 212, 212]
    assert _equalised(x, 21).flatten().tolist() == expected
    flat = torch.full((1, 1, 2, 4), 20)
    assert torch.equal(_equalised(flat, 21), flat)

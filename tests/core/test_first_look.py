"""A forgotten normalisation and classes in another order are found, named, and never made up."""

import re

import numpy as np
import pytest
import torch

from core.data import ImageSet
from core.errors import BaselineTooLowError
from core.evaluate import Bench, predict
from core.first_look import check_baseline
from core.models.classifier import Classifier

IMAGES = 300


@pytest.fixture(scope="module")
def images(arrays):
    x, y = arrays["x_test"][:IMAGES, None], arrays["y_test"][:IMAGES].astype(np.int64)
    return ImageSet(x, y, np.arange(IMAGES))


def look(net, images, mean=None, std=None, seed=0):
    bench = Bench(images, 10, seed, 64, torch.device("cpu"))
    model = Classifier(net, mean=mean, std=std).eval()
    check_baseline(model, bench, predict(model, bench), chance=0.1, matched_by="name")


class Normalised(torch.nn.Module):
    """The example's network, as if it had been trained with a normalisation."""

    def __init__(self, net, mean, std):
        super().__init__()
        self.net, self.mean, self.std = net, mean, std

    def forward(self, x):
        return self.net(x * self.std + self.mean)


@pytest.mark.parametrize(
    ("mean", "std"),
    [(0.5, 0.5), (0.0, 1 / 255), (0.1307, 0.3081), (0.286, 0.353)],
    ids=["half", "bytes", "mnist", "fashion"],
)
def test_a_forgotten_normalisation_is_named(network, images, mean, std):
    net = Normalised(network.net, mean, std)
    look(net, images, [mean], [std])
    with pytest.raises(BaselineTooLowError, match="with another normalisation") as error:
        look(net, images)
    values = [float(value) for value in re.findall(r"\[([\d.]+)\]", error.value.hint)]
    assert values == pytest.approx([mean, std], abs=0.08), "another, near it, may do as well"


class OfSize(torch.nn.Module):
    """The example's network, as if it had been trained on pictures enlarged to ``side`` pixels and normalised."""

    def __init__(self, net, side):
        super().__init__()
        self.net, self.side = net, side

    def forward(self, x):
        if x.shape[-1] != self.side:
            return self.net(torch.zeros_like(x))  # takes any size, and sees nothing in another
        return self.net(torch.nn.functional.interpolate(x * 0.5 + 0.5, 28, mode="area"))


def test_a_forgotten_size_is_named_with_its_normalisation(network, images):
    with pytest.raises(
        BaselineTooLowError, match="with a shorter side of 96 pixels, normalisation pixels from -1 to 1"
    ) as error:
        look(OfSize(network.net, 96), images)
    assert "data.resize=96" in error.value.hint
    assert "model.mean=[0.5]" in error.value.hint


def test_one_that_was_given_and_is_wrong_is_named_too(network, images):
    with pytest.raises(BaselineTooLowError, match="as they are"):
        look(network.net, images, [0.5], [0.1])


class Renumbered(torch.nn.Module):
    def __init__(self, net, order):
        super().__init__()
        self.net, self.order = net, order

    def forward(self, x):
        return self.net(x)[:, self.order]


def test_classes_in_another_order_are_named(network, images):
    with pytest.raises(BaselineTooLowError, match="another order: 0 is called 1, 1 is called 2") as error:
        look(Renumbered(network.net, [9, *range(9)]), images)
    assert "number the classes" in error.value.hint


def test_two_classes_that_were_exchanged_are_found(network, images):
    """Clean accuracy is far above chance then."""
    with pytest.raises(BaselineTooLowError, match=r"another order: 8 is called 9, 9 is called 8$"):
        look(Renumbered(network.net, [*range(8), 9, 8]), images)


def test_a_sound_model_is_left_alone(network, images):
    look(network.net, images)


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_made_of_accidents(images, seed):
    """Networks that know little: no reading of the images or the answers may be called the right one."""
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    with pytest.raises(BaselineTooLowError, match="near chance"):
        look(net, images)

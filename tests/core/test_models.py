"""Architectures: parameter counts, layers as data, and any library classifier by name."""

from __future__ import annotations

import pytest
import torch

from core.errors import UnsupportedError
from core.models import ARCHITECTURES, ImageShape
from core.models.classifier import Classifier
from core.spec import ModelSpec

GREY, CIFAR = ImageShape(1, 28, 28), ImageShape(3, 32, 32)
COUNTS = {
    "fmnist-cnn": (GREY, 241_546),
    "mnist-cnn": (GREY, 21_840),
    "small-cnn": (GREY, 312_202),
    "vgg16-bn-cifar": (CIFAR, 14_728_266),
    "vgg16-cifar": (CIFAR, 14_719_818),
    "resnet18-cifar": (CIFAR, 11_173_962),
    "resnet34-cifar": (CIFAR, 21_282_122),
    "resnet50-cifar": (CIFAR, 23_520_842),
    "resnet101-cifar": (CIFAR, 42_512_970),
}


def build(architecture, image, classes=10):
    return ModelSpec(architecture=architecture).architecture.build(classes, image)


def test_every_own_architecture_is_counted():
    assert set(COUNTS) == set(ARCHITECTURES.names()) - {"sequential", "timm", "torchvision"}


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_and_output(name):
    image, count = COUNTS[name]
    net = build(name, image).eval()
    assert sum(parameter.numel() for parameter in net.parameters()) == count
    x = torch.rand(2, image.channels, image.height, image.width)
    with torch.no_grad():
        assert Classifier(net)(x).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("timm/resnet18", ImageShape(1, 64, 64)),
        ("timm/vit_tiny_patch16_224", ImageShape(3, 224, 224)),
        ("torchvision/mobilenet_v3_small", ImageShape(3, 64, 64)),
        ("torchvision/googlenet", ImageShape(3, 64, 64)),
        ("torchvision/inception_v3", ImageShape(3, 299, 299)),
    ],
)
def test_library_classifiers(name, image):
    """In train mode too: Inception and GoogLeNet then return auxiliary logits beside the main ones."""
    net = build(name, image, classes=7)
    for training in (False, True):
        model = Classifier(net).train(training)
        with torch.no_grad():
            assert model(torch.rand(2, image.channels, image.height, image.width)).shape == (2, 7)


def test_torchvision_takes_colour_only():
    with pytest.raises(UnsupportedError, match="3 channels"):
        build("torchvision/resnet18", GREY)


def test_sequential():
    layers = [
        {"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}}, "batch_norm2d", "relu",
        {"max_pool2d": {"kernel_size": 2}}, {"adaptive_avg_pool2d": {"output_size": 2}}, "flatten",
        {"dropout": {"p": 0.1}}, "gelu", {"linear": {"out_features": 10}},
    ]  # fmt: skip
    net = build({"sequential": layers}, CIFAR)
    assert list(net.state_dict())[:2] == ["0.weight", "0.bias"]
    assert net[0].in_channels == 3
    assert net[8].in_features == 16
    assert net.training


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["relu", {"linear": {"out_features": 10}}], "last layer returns shape"),
        ([{"conv2d": {"out_channels": 4, "kernel_size": 31}}], "layer 0 .Conv2d. cannot take"),
        (["flatten", {"linear": {"out_features": 9}}], "not one logit for each of 10"),
    ],
)
def test_sequential_says_which_layer_does_not_fit(layers, message):
    with pytest.raises(UnsupportedError, match=message):
        build({"sequential": layers}, GREY)


def test_normalisation_is_inside():
    net = torch.nn.Flatten()
    model = Classifier(net, mean=[0.5, 0.5, 0.5], std=[0.1, 0.2, 0.5])
    out = model(torch.ones(1, 3, 1, 1))
    assert torch.allclose(out, torch.tensor([[5.0, 2.5, 1.0]]))
    assert list(model.state_dict()) == []


def test_cost_tells_passes_apart(network, batch):
    from core.gradients import ascent_gradient
    from core.models.classifier import frozen

    x, y, _ = (t[:8] for t in batch)
    with frozen(network):
        ascent_gradient(network, x, y)
    network(x).sum().backward()
    both = network(x.clone().requires_grad_())
    both.sum().backward()
    with torch.no_grad():
        network(x)
    cost = network.cost
    assert (cost.forwards, cost.fb, cost.input_backwards, cost.weight_backwards) == (32, 24, 16, 16)


@pytest.mark.parametrize("name", ["fmnist-cnn", "mnist-cnn", "small-cnn"])
@pytest.mark.parametrize("size", [22, 26, 30, 32])
def test_small_networks_take_other_sizes(name, size):
    image = ImageShape(3, size, size + 2)
    assert build(name, image)(torch.rand(2, 3, size, size + 2)).shape == (2, 10)


def test_frozen_lets_models_drop_their_caches():
    """timm's tiny_vit keeps attention biases from evaluation mode and drops them in train()."""
    from core.models.classifier import frozen

    model = Classifier(build("timm/tiny_vit_5m_224", ImageShape(3, 64, 64))).train()
    x = torch.rand(1, 3, 64, 64)
    with frozen(model), torch.no_grad():
        before = model(x)
    with torch.no_grad():
        for key, value in model.net.named_parameters():
            if "attention_biases" in key:
                value.add_(1 + torch.arange(value.numel()).view_as(value) % 7)
    with frozen(model), torch.no_grad():
        assert not torch.allclose(model(x), before)
    fresh = Classifier(build("timm/tiny_vit_5m_224", ImageShape(3, 64, 64))).eval()
    fresh.net.load_state_dict(model.net.state_dict())
    with frozen(model), torch.no_grad():
        assert torch.allclose(model(x), fresh(x), atol=1e-5)

"""Architectures: parameter counts, layers as data, and any library classifier by name."""

from __future__ import annotations

import json

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch.nn.functional import conv2d

from core.errors import UnsupportedError
from core.models import ARCHITECTURES, AnyArchitecture, ImageShape
from core.models.classifier import Classifier
from core.models.preact_resnet18 import PreActBlock
from core.models.sequential import Layer, Sequential
from core.models.wrn import WideBlock
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
    "preact-resnet18": (CIFAR, 11_172_170),
    "wrn-28-10": (CIFAR, 36_479_194),
    "wrn-34-10": (CIFAR, 46_160_474),
}


def build(architecture, image, classes=10):
    return ModelSpec(architecture=architecture).architecture.build(classes, image)


def test_every_own_architecture_is_counted():
    assert set(COUNTS) == set(ARCHITECTURES.names()) - {"sequential", "timm", "torchvision"}


def count_parameters(*arguments, **options):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(*arguments, **options).parameters())


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_and_output(name):
    image, count = COUNTS[name]
    net = build(name, image).eval()
    assert sum(parameter.numel() for parameter in net.parameters()) == count
    x = torch.rand(2, image.channels, image.height, image.width)
    with torch.no_grad():
        assert Classifier(net)(x).shape == (2, 10)


@pytest.mark.parametrize("name", ["timm/resnet50", "torchvision/resnet50"])
def test_resnet50_with_the_classes_of_imagenet(name):
    assert count_parameters(name, ImageShape(3, 224, 224), classes=1000) == 25_557_032


@pytest.mark.parametrize("name", ["preact-resnet18", "wrn-28-10", "wrn-34-10"])
def test_classes_and_channels_are_honoured(name):
    """Grey images drop two thirds of the stem; each class more is a row of the dense layer and its bias."""
    stem, features = {"preact-resnet18": (64, 512)}.get(name, (16, 640))
    expected = COUNTS[name][1] - 2 * 9 * stem + 90 * (features + 1)
    assert count_parameters(name, GREY, classes=100) == expected


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("preact-resnet18", GREY),
        ("preact-resnet18", ImageShape(3, 8, 8)),
        ("preact-resnet18", ImageShape(3, 64, 48)),
        ("wrn-28-10", ImageShape(3, 40, 24)),
        ("wrn-28-10", ImageShape(1, 8, 9)),
    ],
)
def test_averaging_networks_take_any_size(name, image):
    net = build(name, image, classes=7).eval()
    with torch.no_grad():
        assert net(torch.rand(2, image.channels, image.height, image.width)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "side"),
    [("preact-resnet18", 7), ("wrn-28-10", 3), ("wrn-34-10", 3), ("vgg16-cifar", 31), ("vgg16-bn-cifar", 31)],
)
def test_images_that_are_too_small(name, side):
    with pytest.raises(UnsupportedError, match=f"images of 3x{side}x40 are too small"):
        build(name, ImageShape(3, side, 40))


@pytest.mark.parametrize(
    ("block", "around"),
    [(PreActBlock(4, 8, 2), "shortcut.0"), (WideBlock(4, 8, 2, 0.3), "convShortcut")],
    ids=["preact", "wide"],
)
def test_a_block_is_its_formula(block, around):
    """Normalise, activate, convolve, twice; a 1x1 convolution around starts after the first ReLU."""
    state = {key: torch.rand(value.shape) for key, value in block.state_dict().items() if value.shape}
    block.load_state_dict(state, strict=False)  # without the counters of BatchNorm
    assert list(dict.fromkeys(key.rpartition(".")[0] for key in state)) == ["bn1", "conv1", "bn2", "conv2", around]
    x = torch.rand(2, 4, 6, 6)

    def activated(x, bn):
        mean, var = (state[f"{bn}.running_{key}"][:, None, None] for key in ("mean", "var"))
        scale, shift = (state[f"{bn}.{key}"][:, None, None] for key in ("weight", "bias"))
        return torch.relu((x - mean) / (var + 1e-5).sqrt() * scale + shift)

    first = activated(x, "bn1")
    middle = conv2d(first, state["conv1.weight"], stride=2, padding=1)
    expected = conv2d(activated(middle, "bn2"), state["conv2.weight"], padding=1)
    expected += conv2d(first, state[f"{around}.weight"], stride=2)
    assert torch.allclose(block.eval()(x), expected, rtol=1e-4)


@pytest.mark.parametrize("block", [PreActBlock(4, 4, 1), WideBlock(4, 4, 1, 0.0)], ids=["preact", "wide"])
def test_a_block_that_changes_no_shape_adds_to_its_input(block):
    torch.nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(block(x), x)


def test_dropout_acts_between_the_convolutions_and_in_train_mode_only():
    torch.manual_seed(0)
    block, x = WideBlock(4, 8, 1, 0.5), torch.rand(2, 4, 6, 6)
    without = WideBlock(4, 8, 1, 0.0)
    without.load_state_dict(block.state_dict())
    seen = []
    block.conv2.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    without.conv2.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    block.train()(x)
    without.train()(x)
    dropped, kept = seen
    survived = dropped != 0
    assert 0.3 < (survived.sum() / (kept != 0).sum()).item() < 0.7
    assert torch.allclose(dropped[survived], 2 * kept[survived])
    without.load_state_dict(block.state_dict())
    assert torch.equal(block.eval()(x), without.eval()(x))


def test_dropout_is_a_parameter_of_wide_networks():
    with torch.device("meta"):
        nets = [build(a, CIFAR) for a in ("wrn-28-10", {"name": "wrn-28-10", "dropout": 0.3})]
    shares = [[m.p for m in net.modules() if isinstance(m, torch.nn.Dropout)] for net in nets]
    assert shares == [[0.0] * 12, [0.3] * 12]
    with pytest.raises(ValidationError, match="dropout"):
        build({"name": "wrn-28-10", "dropout": 1}, CIFAR)


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


def test_sequential_knows_every_kind_that_it_names():
    """As text too, and by the names of torch."""
    kinds = {each.model_fields["kind"].default: each for each in Layer.__subclasses__()}
    needed = {"conv2d": {"out_channels": 4, "kernel_size": 3}, "linear": {"out_features": 10}}
    needed |= {"group_norm": {"num_groups": 1}, "max_pool2d": {"kernel_size": 2}, "avg_pool2d": {"kernel_size": 2}}
    last = ["flatten", {"linear": {"out_features": 10}}]
    for kind, layer in kinds.items():
        for name in (kind, layer.__name__):
            text = json.dumps({"sequential": [{name: needed.get(kind, {})}, *last]})
            architecture = TypeAdapter(AnyArchitecture).validate_python(text)
            assert type(architecture.build(10, GREY)[0]) is getattr(torch.nn, layer.__name__)
    listed = Sequential.model_fields["layers"].description.partition("Kinds: ")[2].rstrip(".").split(", ")
    assert sorted(listed) == sorted(kinds)


@pytest.mark.parametrize(
    ("text", "message"),
    [("sequential", "give its layers"), ('{"sequential": [', "not JSON"), ("resnet", "does not match")],
)
def test_what_is_no_architecture_says_what_one_is(text, message):
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(AnyArchitecture).validate_python(text)


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


def test_a_checkpoint_of_trades_code_fits_with_its_unused_block():
    plain, with_block = (build(a, CIFAR) for a in ("wrn-28-10", {"name": "wrn-28-10", "unused_block": True}))
    extra = set(with_block.state_dict()) - set(plain.state_dict())
    assert {key.removeprefix("sub_") for key in extra} == {
        key for key in plain.state_dict() if key.startswith("block1.")
    }
    with_block.load_state_dict(plain.state_dict(), strict=False)
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(plain.eval()(x), with_block.eval()(x))

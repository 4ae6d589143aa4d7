"""The embedding: scikit-learn as the oracle, on Gaussian classes and on the example's features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.covariance import ledoit_wolf
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import nn

import core.embedding
from core.attacks.pgd import PGD
from core.data import ImageSet
from core.embedding import Embedding, Plane, discriminant_analysis, embed, penultimate, shrinkage
from core.errors import UnsupportedError
from core.evaluate import Bench
from core.models import ARCHITECTURES, ImageShape
from core.models.classifier import Classifier
from core.rng import Rng
from core.spec import ModelSpec
from core.threat import ThreatModel


def gaussians(classes, features, images, *, dead=0, seed=0, spread=1.5):
    """Gaussian classes of different sizes and a common, stretched covariance; the last ``dead`` features are 0."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.choice(classes, images - classes, p=_sizes(classes))])
    means, stretch = rng.normal(0, spread, (classes, features)), rng.normal(0, 1, (features, features))
    x = means[labels] + rng.normal(0, 1, (images, features)) @ stretch / np.sqrt(features)
    x[:, features - dead :] = 0
    return torch.tensor(x, dtype=torch.float32), labels


def _sizes(classes):
    sizes = np.arange(1, classes + 1, dtype=float)
    return sizes / sizes.sum()


def image_set(arrays, split, count):
    return ImageSet(arrays[f"x_{split}"][:count, None], arrays[f"y_{split}"][:count].astype(np.int64), np.arange(count))


@pytest.fixture
def train(arrays):
    return image_set(arrays, "train", 800)


@pytest.fixture
def bench(arrays):
    return Bench(image_set(arrays, "test", 300), 10, 0, 128, torch.device("cpu"))


@pytest.fixture(params=["gaussians", "unbalanced", "dead units", "wide", "two classes", "network"])
def problem(request, network, train):
    """Features and labels, to fit on and to show."""
    if request.param == "network":
        x, _, _ = train.batch(np.arange(800), torch.device("cpu"))
        features, labels = penultimate(network, [x]), train.labels
    else:
        features, labels = {
            "gaussians": lambda: gaussians(5, 12, 600),
            "unbalanced": lambda: gaussians(7, 20, 500, seed=1),
            "dead units": lambda: gaussians(6, 40, 500, dead=15, seed=2),
            "wide": lambda: gaussians(4, 300, 120, seed=3),
            "two classes": lambda: gaussians(2, 8, 200, seed=4),
        }[request.param]()
    half = len(labels) // 2
    return features[:half], labels[:half], features[half:], labels[half:]


def within(x, labels):
    """Features less their class's mean, and Ledoit and Wolf's shrinkage of them, both from scikit-learn's side."""
    x = np.asarray(x, np.float64)
    rest = x - np.stack([x[labels == label].mean(0) for label in labels])
    return rest, ledoit_wolf(rest, assume_centered=True)[1]


def test_shrinkage_is_ledoit_and_wolfs(problem):
    x, labels, _, _ = problem
    rest, amount = within(x, labels)
    assert shrinkage(torch.tensor(rest), rest.shape[1]) == pytest.approx(amount, rel=1e-8)


@pytest.mark.parametrize("solver", ["eigen", "lsqr"])
def test_distances_to_the_class_means_are_scikit_learns_scores(problem, solver):
    """Discriminant scores are -|z - mean|^2 / 2 + log prior, up to what all classes share; on unseen images."""
    x, labels, unseen, _ = problem
    _, amount = within(x, labels)
    oracle = LinearDiscriminantAnalysis(solver=solver, shrinkage=amount).fit(x.double().numpy(), labels)
    plane = Plane.fit(x, labels)
    assert plane.classes.tolist() == oracle.classes_.tolist()
    z = (unseen.double() - plane.mean) @ plane.discriminants
    squares = ((z[:, None] - plane.means) ** 2).sum(2).numpy()
    scores = -squares / 2 + np.log(oracle.priors_)
    expected = oracle.decision_function(unseen.double().numpy())
    if len(oracle.classes_) == 2:
        expected, scores = expected[:, None], scores[:, 1:] - scores[:, :1]
    else:
        expected = expected - expected.mean(1, keepdims=True)
        scores = scores - scores.mean(1, keepdims=True)
    np.testing.assert_allclose(scores, expected, atol=1e-5 * np.abs(expected).max())
    assert (plane.discriminants.shape[1], len(plane.means)) == (len(oracle.classes_) - 1, len(oracle.classes_))


@pytest.mark.parametrize("source", ["gaussians", "network"])
def test_the_plane_is_scikit_learns_lda_and_pca(source, network, train, bench, monkeypatch):
    """Without shrinkage, where both are defined alike: on live features only."""
    if source == "gaussians":
        features, labels = gaussians(5, 12, 600)
        x, y, unseen = features[:300], labels[:300], features[300:]
    else:
        x, unseen = (penultimate(network, [part.batch(np.arange(len(part)), bench.device)[0]])
                     for part in (train, bench.images))  # fmt: skip
        y = train.labels
        live = (x > 0).sum(0) > 50
        assert 20 < live.sum() < 128, "some units of the example are dead"
        x, unseen = x[:, live], unseen[:, live]
    monkeypatch.setattr(core.embedding, "shrinkage", lambda *_: 0.0)
    plane = Plane.fit(x, y)
    lda = LinearDiscriminantAnalysis(solver="eigen").fit(x.double().numpy(), y)
    scalings = lda.scalings_[:, : plane.discriminants.shape[1]]
    np.testing.assert_allclose(plane.discriminants.abs(), np.abs(scalings), atol=1e-6 * np.abs(scalings).max())
    pca = PCA(2).fit(lda.transform(x.double().numpy()))
    expected = pca.transform(lda.transform(unseen.double().numpy()))
    np.testing.assert_allclose(plane.points(unseen).abs(), np.abs(expected), atol=1e-6 * np.abs(expected).max())
    assert plane.kept == pytest.approx(pca.explained_variance_ratio_.sum())


def test_wide_features_have_the_plane_of_their_span(monkeypatch):
    """More features than images: as if the scatter matrix had been made in full."""
    x, labels = gaussians(4, 90, 60)
    x = x.double() - x.double().mean(0)
    member = torch.tensor(labels)
    narrow = discriminant_analysis(x, member)
    rest = torch.tensor(within(x, labels)[0])
    amount = shrinkage(rest, 90)
    scatter = (1 - amount) * rest.T @ rest / 60 + amount * float((rest**2).sum()) / 60 / 90 * torch.eye(90)
    torch.testing.assert_close(narrow.T @ scatter @ narrow, torch.eye(3, dtype=torch.float64))
    means = torch.stack([x[member == k].mean(0) for k in range(4)])
    full = torch.linalg.solve(scatter, (means[1:] - means[0]).T)
    rank = torch.linalg.matrix_rank(torch.cat([narrow, full], 1), rtol=1e-8)
    assert rank == 3, "the same subspace"


def test_units_are_standard_deviations_within_a_class():
    x, labels = gaussians(3, 6, 30_000)
    plane = Plane.fit(x, labels)
    points = plane.points(x)
    for label in range(3):
        torch.testing.assert_close(points[labels == label].T.cov(), torch.eye(2).double(), atol=0.05, rtol=0)


def test_two_classes_lie_on_a_line():
    x, labels = gaussians(2, 5, 100)
    plane = Plane.fit(x, labels)
    assert plane.discriminants.shape == (5, 1)
    points = plane.points(x)
    assert (points[:, 1] == 0).all()
    assert points[:, 0].std() > 0.5
    assert plane.kept == pytest.approx(1)
    one = Plane.fit(x[:, :1], labels)
    assert one.discriminants.shape == (1, 1)


def test_fewer_features_than_classes():
    x, labels = gaussians(6, 3, 300)
    assert Plane.fit(x, labels).discriminants.shape == (3, 3)


def test_a_class_that_the_training_images_lack():
    """Its images are shown, but cannot be counted for or against the separation."""
    x, labels = gaussians(4, 8, 400)
    seen = labels != 2
    plane = Plane.fit(x[seen], labels[seen])
    assert plane.classes.tolist() == [0, 1, 3]
    assert plane.discriminants.shape[1] == 2
    placed = plane.place(x, labels)
    assert len(placed.points) == 400
    assert placed.separation == plane.place(x[seen], labels[seen]).separation
    assert plane.place(x[~seen], labels[~seen]).separation is None


def test_separation_of_known_points():
    flat = torch.eye(2, dtype=torch.float64)
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    plane = Plane(torch.zeros(2, dtype=torch.float64), flat, flat, np.array([3, 7]), means, 1.0)
    places = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert plane.place(places, np.array([3, 7])).separation == 1
    assert plane.place(places, np.array([7, 3])).separation == 1 - (4 + 4) / (1 + 1)
    assert plane.place(torch.tensor([[0.0, 2.0]]), np.array([3])).separation == 1 - 5 / 4
    assert plane.place(torch.zeros(1, 2), np.array([3])).separation is None
    assert plane.place(torch.tensor([[0.123456, -0.00001]]), np.array([3])).points == ((0.1235, 0.0),)


def test_degenerate_features():
    labels = np.arange(60) % 3
    same = torch.tensor([[0.1, 0.0, 0.0], [0.0, 0.3, 0.0], [0.7, 0.1, 0.5]])[labels]
    placed = Plane.fit(same, labels).place(same, labels)
    assert np.abs(placed.points).max() < 1e6
    assert placed.separation == pytest.approx(1)
    assert len(set(placed.points)) == 3
    constant = torch.full((60, 5), 0.3)
    plane = Plane.fit(constant, labels)
    assert set(plane.place(constant, labels).points) == {(0.0, 0.0)}
    assert plane.place(constant, labels).separation is None
    few = Plane.fit(*gaussians(5, 20, 5))
    assert few.discriminants.shape == (20, 4), "one image a class"
    with pytest.raises(UnsupportedError, match="single class"):
        Plane.fit(torch.rand(10, 3), np.full(10, 4))


def test_what_enters_the_last_layer(network, batch):
    """The last layer makes the logits of it, exactly."""
    x, _, _ = batch
    network.train()
    features = penultimate(network, [x[:70], x[70:]])
    assert features.shape == (200, 128)
    with torch.no_grad():
        assert torch.equal(network.net.fc2(features[:70]), network.eval()(x[:70]))


def test_the_model_is_left_as_it_was(network, batch):
    network.train()
    network.net.fc1.weight.requires_grad_(False)
    network.net.conv1.eval()
    cost = network.cost.forwards
    penultimate(network, [batch[0]])
    assert network.net.training
    assert not network.net.conv1.training
    assert not network.net.fc1.weight.requires_grad
    assert network.net.fc2.weight.requires_grad
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert network.cost.forwards - cost == 202, "one pass, and two images to find the last layer"


@pytest.mark.parametrize(
    ("architecture", "size", "head"),
    [
        ("timm/dla46_c", 64, "fc"),
        ("torchvision/mobilenet_v3_small", 64, "classifier.3"),
        ("torchvision/googlenet", 64, "fc"),
        ("timm/vit_tiny_patch16_224", 224, "head"),
        ("timm/test_convnext", 64, "head.fc"),
    ],
)
def test_the_last_layer_of_library_classifiers(architecture, size, head):
    """A 1x1 convolution in dla; auxiliary heads in GoogLeNet."""
    torch.manual_seed(0)
    net = ModelSpec(architecture=architecture).architecture.build(7, ImageShape(3, size, size))
    model = Classifier(net).eval()
    x = torch.rand(3, 3, size, size)
    features = penultimate(model, [x])
    layer = net.get_submodule(head)
    weight = layer.weight.flatten(1)
    with torch.no_grad():
        torch.testing.assert_close(F.linear(features, weight, layer.bias), model(x), atol=1e-5, rtol=1e-5)


def test_a_head_that_classifies_every_position():
    """SqueezeNet averages logits over positions: its features are averages too."""
    net = ModelSpec(architecture="torchvision/squeezenet1_1").architecture.build(5, ImageShape(3, 64, 64))
    x = torch.rand(2, 3, 64, 64)
    net.eval()
    assert torch.equal(penultimate(Classifier(net), [x]), net.features(x).mean((2, 3)).detach())


class TwoHeads(nn.Module):
    """As in VOLO: the main head, then one that classifies every token and is added to it."""

    def __init__(self):
        super().__init__()
        self.stem, self.head, self.tokens = nn.Conv2d(1, 10, 7, 7), nn.Linear(10, 10), nn.Linear(10, 10)

    def forward(self, x):
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        return self.head(tokens.mean(1)) + 0.5 * self.tokens(tokens).amax(1)


class NoHead(nn.Module):
    """Logits that no layer returns."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(784, 12)

    def forward(self, x):
        return self.layer(x.flatten(1))[:, :10]


def test_networks_of_other_shapes(batch):
    x, _, _ = batch
    model = Classifier(TwoHeads())
    torch.testing.assert_close(penultimate(model, [x]), model.net.stem(x).flatten(2).mean(2).detach())
    with pytest.raises(UnsupportedError, match="no linear layer or convolution"):
        penultimate(Classifier(NoHead()), [x])
    layers = [
        {"conv2d": {"out_channels": 10, "kernel_size": 5}},
        {"adaptive_avg_pool2d": {"output_size": 1}},
        "flatten",
    ]
    net = ARCHITECTURES["sequential"](layers=layers).build(10, ImageShape(1, 28, 28))
    torch.testing.assert_close(penultimate(Classifier(net), [x]), x.mean((2, 3)))


def test_the_last_layer_is_the_last_to_run_and_dropout_is_off(batch):
    """Though an earlier one returns as many numbers."""
    layers = ["flatten", {"linear": {"out_features": 10}}, {"dropout": {"p": 0.5}}, {"linear": {"out_features": 10}}]
    net = ARCHITECTURES["sequential"](layers=layers).build(10, ImageShape(1, 28, 28))
    assert net.training
    torch.testing.assert_close(penultimate(Classifier(net), [batch[0]]), net[1](batch[0].flatten(1)).detach())


def test_features_that_cannot_be_used(network, batch, monkeypatch):
    with torch.no_grad():
        network.net.fc1.bias[3] = torch.nan
    with pytest.raises(UnsupportedError, match="not finite"):
        penultimate(network, [batch[0]])
    monkeypatch.setattr(core.embedding, "_WIDEST", 100)
    with pytest.raises(UnsupportedError, match="128 values"):
        penultimate(network, [batch[0]])


def test_the_example_before_and_under_attack(network, train, bench):
    """Its gradients are taken while the features are: attacked images leave their classes, and others may not move."""
    threat = ThreatModel(norm="linf", eps=0.1)

    def attack(x, y, ids):
        return PGD(steps=5).perturb(network, x, y, threat, Rng.for_images(1, ids))

    embedding = embed(network, train, bench, craft=attack)
    assert len(embedding.ids) == len(embedding.labels) == len(embedding.clean.points) == 300
    assert (embedding.features, embedding.dimensions, embedding.fitted_on) == (128, 9, 800)
    assert embedding.labels == tuple(bench.labels.tolist())
    assert 0.3 < embedding.kept < 0.95
    assert embedding.adversarial.separation < 0 < 0.7 < embedding.clean.separation < 1
    unmoved = embed(network, train, bench, craft=lambda x, y, ids: x)
    assert unmoved.adversarial == unmoved.clean == embedding.clean


def test_it_does_not_depend_on_batches_and_is_repeated_exactly(network, train, bench):
    first = embed(network, train, bench)
    assert embed(network, train, bench) == first
    assert Embedding.model_validate_json(first.model_dump_json()) == first
    other = embed(network, train, replace(bench, batch_size=37))
    np.testing.assert_allclose(other.clean.points, first.clean.points, atol=1e-3)
    loadings = Plane.fit(*gaussians(4, 6, 200))
    largest = (loadings.discriminants @ loadings.axes).abs().argmax(0)
    assert ((loadings.discriminants @ loadings.axes)[largest, [0, 1]] > 0).all()


def test_few_images_are_drawn_by_the_seed(network, train, bench, monkeypatch):
    monkeypatch.setattr(core.embedding, "FIT_IMAGES", 400)
    monkeypatch.setattr(core.embedding, "SHOWN_IMAGES", 60)
    embedding = embed(network, train, bench)
    assert (len(embedding.ids), embedding.fitted_on) == (60, 400)
    assert list(embedding.ids) == sorted(set(embedding.ids))
    assert embedding.labels == tuple(bench.images.labels[list(embedding.ids)])
    assert embed(network, train, replace(bench, seed=1)).ids != embedding.ids


def test_a_second_picture_is_mirrored_to_lie_as_the_first(network, train, bench):
    first = embed(network, train, bench)
    for flip in ([1, 1], [-1, 1], [1, -1], [-1, -1]):
        points = tuple((a * flip[0], b * flip[1]) for a, b in first.clean.points)
        like = first.model_copy(update={"clean": first.clean.model_copy(update={"points": points})})
        second = embed(network, train, bench, like=like)
        assert second.clean.points == points
        assert second.clean.separation == pytest.approx(first.clean.separation)

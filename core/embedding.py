"""The embedding picture of Jeddi, Shafiee and Wong 2020 (figure 3), https://arxiv.org/abs/2012.13628.

What enters the network's last layer, by linear discriminant analysis to classes - 1 dimensions, by principal components
to two. Everything is fitted on training images and shown for test images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from core.data import Ids, ImageSet, some
from core.errors import UnsupportedError
from core.evaluate import Bench
from core.models.classifier import Classifier, frozen

NAME = "embedding.json"
FIT_IMAGES, SHOWN_IMAGES = 2000, 1000
_WIDEST = 1 << 14  # features an image: wider ones are whole feature maps, and would take gigabytes
_DECIMALS = 4  # of a within-class standard deviation

Craft = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Adversarial images (n, c, h, w) from images, labels and ids."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Placed(_Part):
    """Where images lie in the plane, (n, 2), in units of a class's standard deviation around its mean.

    ``separation``: 1 - (squared distances to the mean of the own class) / (squared distances to the mean of all), each
    summed over the images, in all discriminant dimensions, with the means of the training images. 1: every image lies
    at its class's mean; 0: no nearer to it than to the middle of all; negative: nearer to other classes. Null if all
    lie in the middle, or are of classes that were not fitted.
    """

    points: tuple[tuple[float, float], ...]
    separation: float | None


class Embedding(_Part):
    """Test images in the plane of one model: clean, and as an attack left them.

    ``features`` are the values that enter the last layer, ``dimensions`` those that the discriminant analysis left, and
    ``kept`` is the share of these dimensions' variance, among the ``fitted_on`` training images, that the plane shows.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    clean: Placed
    adversarial: Placed | None = None
    fitted_on: int
    features: int
    dimensions: int
    kept: float


def embed(
    model: Classifier, train: ImageSet, bench: Bench, *, craft: Craft | None = None, like: Embedding | None = None
) -> Embedding:
    """The picture of one model, of at most ``SHOWN_IMAGES`` test images, fitted on at most ``FIT_IMAGES`` others.

    Args:
        train: training images, to fit on.
        bench: test images, and how to go over them.
        craft: makes the adversarial images to be shown too.
        like: another model's picture of the same images; this one is mirrored to lie as that does.
    Raises: UnsupportedError, with a reason, where there is nothing to show.
    """
    fitting = replace(bench, images=train.choose(_drawn(train, FIT_IMAGES, bench.seed)))
    shown = replace(bench, images=bench.images.choose(_drawn(bench.images, SHOWN_IMAGES, bench.seed)))
    plane = Plane.fit(penultimate(model, _batches(fitting)), fitting.labels)
    features = penultimate(model, _batches(shown))
    if like is not None:
        plane = plane.mirrored(plane.points(features), torch.tensor(like.clean.points, dtype=torch.float64))
    return Embedding(
        ids=tuple(shown.images.ids.tolist()),
        labels=tuple(shown.labels.tolist()),
        clean=plane.place(features, shown.labels),
        adversarial=plane.place(penultimate(model, _batches(shown, craft)), shown.labels) if craft else None,
        fitted_on=len(fitting.images),
        features=features.shape[1],
        dimensions=plane.discriminants.shape[1],
        kept=plane.kept,
    )


def _drawn(images: ImageSet, count: int, seed: int) -> Ids:
    return np.sort(some(images, count, seed))


def _batches(bench: Bench, craft: Craft | None = None) -> Iterator[Tensor]:
    for _, x, y, ids in bench.batches(np.arange(len(bench.images))):
        yield craft(x, y, ids) if craft else x


def penultimate(model: Classifier, batches: Iterable[Tensor]) -> Tensor:
    """What enters the last layer, (n, features) float32 on the CPU, for batches of images (n, c, h, w) in [0, 1].

    The last layer is the last linear layer or convolution to run that returns one number for each class and image. If
    there is none, the last that returns one for each class, image and position (SqueezeNet): of what enters that,
    the mean over the positions is taken.
    Raises: UnsupportedError if there is none either, or what enters it is too wide or not finite.
    """
    head, parts = None, []
    for x in batches:  # crafted on the way, perhaps: neither hooks nor no_grad may be on while that happens
        head = head or _find_head(model, x[:2])
        features = _entering(head, model, x)
        if features.shape[1] > _WIDEST:
            raise UnsupportedError(f"{features.shape[1]} values enter the last layer, the embedding takes {_WIDEST}")
        parts.append(features.to("cpu", torch.float32))
    found = torch.cat(parts)
    if not found.isfinite().all():
        raise UnsupportedError("what enters the last layer is not finite")
    return found


class _Head(NamedTuple):
    layer: nn.Linear | nn.Conv2d
    positions: bool  # whether it returns logits for each position of the image


def _find_head(model: Classifier, x: Tensor) -> _Head:
    ran: list[tuple[nn.Linear | nn.Conv2d, tuple[int, ...]]] = []

    def note(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            ran.append((layer, tuple(output.shape)))

    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                hooks.enter_context(module.register_forward_hook(note))
        images, classes = _look(model, x).shape
    ran = [(layer, shape) for layer, shape in reversed(ran) if shape[0] == images]
    for layer, shape in ran:
        if math.prod(shape) == images * classes:
            return _Head(layer, positions=False)
    for layer, shape in ran:
        if shape[-1 if isinstance(layer, nn.Linear) else 1] == classes:
            return _Head(layer, positions=True)
    raise UnsupportedError(f"no linear layer or convolution of the network returns one number for {classes} classes")


def _entering(head: _Head, model: Classifier, x: Tensor) -> Tensor:
    entered: list[Tensor] = []

    def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        entered.append(inputs[0])

    with head.layer.register_forward_pre_hook(note):
        _look(model, x)
    if not head.positions:
        return entered[-1].flatten(1)
    last = entered[-1] if isinstance(head.layer, nn.Linear) else entered[-1].movedim(1, -1)
    return last.flatten(1, -2).mean(1)


def _look(model: Classifier, x: Tensor) -> Tensor:
    with frozen(model), torch.no_grad():
        logits: Tensor = model(x)
    return logits


@dataclass(frozen=True)
class Plane:
    """A fitted plane: ``discriminants`` (features, k) map features less their ``mean``, ``axes`` (k, 2) those on.

    ``means`` (classes, k): where the means of the training images' ``classes`` lie.
    """

    mean: Tensor
    discriminants: Tensor
    axes: Tensor
    classes: Ids
    means: Tensor
    kept: float

    @classmethod
    def fit(cls, features: Tensor, labels: Ids) -> Plane:
        """From training images: features (n, features), labels (n,). Two classes have one dimension, the other is 0.

        Raises: UnsupportedError with fewer than two classes.
        """
        classes, member = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise UnsupportedError("the training images that the embedding is fitted on are of a single class")
        mean = features.mean(0, dtype=torch.float64)
        x = features.to(torch.float64) - mean
        discriminants = discriminant_analysis(x, torch.from_numpy(member))
        z = x @ discriminants
        _, size, components = torch.linalg.svd(z, full_matrices=False)
        axes = torch.zeros(z.shape[1], 2, dtype=torch.float64)
        axes[:, : len(components[:2])] = components[:2].T
        loadings = discriminants @ axes
        largest = loadings.gather(0, loadings.abs().argmax(0, keepdim=True))
        axes = axes * torch.where(largest < 0, -1.0, 1.0)
        total = float((size**2).sum())
        means = class_means(z, torch.from_numpy(member))
        return cls(mean, discriminants, axes, classes, means, float((size[:2] ** 2).sum()) / total if total else 0.0)

    def mirrored(self, points: Tensor, like: Tensor) -> Plane:
        """With each axis turned so that these points (n, 2) lie on the same side as their like."""
        return replace(self, axes=self.axes * torch.where((points * like).sum(0) < 0, -1.0, 1.0))

    def points(self, features: Tensor) -> Tensor:
        """Where images lie, (n, 2), from their features (n, features)."""
        return (features.to(torch.float64) - self.mean) @ self.discriminants @ self.axes

    def place(self, features: Tensor, labels: Ids) -> Placed:
        """Where images lie, and how well apart their classes are."""
        points = self.points(features).numpy().round(_DECIMALS) + 0.0  # no negative zero
        known = np.isin(labels, self.classes)
        z = (features[torch.from_numpy(known)].to(torch.float64) - self.mean) @ self.discriminants
        own = self.means[torch.from_numpy(np.searchsorted(self.classes, labels[known]))]
        total = float((z**2).sum())
        separation = 1 - float(((z - own) ** 2).sum()) / total if total else None
        return Placed(points=tuple((float(a), float(b)) for a, b in points), separation=separation)


def discriminant_analysis(x: Tensor, member: Tensor) -> Tensor:
    """Fisher's linear discriminants (features, k), k at most classes - 1, of centred features ``x`` (n, features).

    The scatter within classes may be singular: dead units, more features than images. It is shrunk towards a multiple
    of the identity by as much as ``shrinkage`` says. The discriminants are scaled to make it the identity.
    """
    images, features = x.shape
    basis = None
    if features > images:  # discriminants lie in the span of the images, where the scatter is a smaller matrix
        basis, triangle = torch.linalg.qr(x.T)
        x = triangle.T
    means = class_means(x, member)
    within = x - means[member]
    scatter = within.T @ within / images
    # the floor is for classes of identical images, where only the means differ
    level = max(float(scatter.trace()), 1e-9 * float((x**2).sum()) / images) / features or 1.0
    amount = shrinkage(within, features)
    scatter = (1 - amount) * scatter + amount * level * torch.eye(len(scatter), dtype=x.dtype)
    root = torch.linalg.cholesky(scatter)
    weights = torch.bincount(member).to(x.dtype).div_(images).sqrt_()
    between = torch.linalg.solve_triangular(root, (means * weights[:, None]).T, upper=False)
    directions, strength, _ = torch.linalg.svd(between, full_matrices=False)
    kept = int((strength[: len(means) - 1] > strength[0] * 1e-10).sum())
    whitened: Tensor = torch.linalg.solve_triangular(root.T, directions[:, :kept], upper=True)
    return whitened if basis is None else basis @ whitened


def shrinkage(within: Tensor, features: int) -> float:
    """How far to shrink the covariance of centred rows (n, d), in (0, 1]; Ledoit and Wolf 2004, JMVA 88, 365-411.

    ``features``: dimensions of the space that the rows come from, d or more.
    """
    images = len(within)
    squares = (within**2).sum(1)
    size = float(((within.T @ within / images) ** 2).sum())
    spread = size - float(squares.mean()) ** 2 / features
    noise = (float((squares**2).mean()) - size) / images
    return min(1.0, max(noise / spread, 1e-6)) if spread > 0 else 1.0


def class_means(x: Tensor, member: Tensor) -> Tensor:
    """Mean of the rows (n, d) of each class 0..c-1, (c, d)."""
    counts = torch.bincount(member)
    sums = torch.zeros(len(counts), x.shape[1], dtype=x.dtype).index_add_(0, member, x)
    return sums / counts[:, None]

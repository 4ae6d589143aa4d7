"""What every defense is: a way to fine-tune, as losses that the one training loop minimises."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, final

import torch.nn.functional as F
from torch import Tensor

from core.augmentation import Augmentation, View
from core.data import ImageSet
from core.losses import cross_entropy_margin
from core.models.base import Domain, ImageShape
from core.models.classifier import Classifier
from core.parallel import ALONE, Share
from core.registry import Entry
from core.rng import Rng
from core.threat import Norm, ThreatModel

State = dict[str, Tensor]
"""What a defense keeps between batches, by name; saved and restored with the weights, and the same on every device."""

CraftIn = Literal["eval", "train"]
"""The mode of BatchNorm and dropout while examples are crafted."""

AUGMENT: Mapping[Domain, tuple[Augmentation, ...]] = {
    "grey28": (),
    "cifar": ("crop", "flip"),
    "imagenet": ("resized-crop", "flip"),
    "custom": (),
}
"""What the literature uses on each kind of image."""

WHOLE = Share(ALONE, 0)


@dataclass(frozen=True)
class Batch:
    """One batch as the loop hands it over.

    ``x`` (n, c, h, w) in [0, 1], augmented; ``y`` int64 (n,); ``rows`` int64 (n,), the images' positions in the
    training set; ``view`` says how they were augmented, None if that cannot be undone. On several devices these are the
    images of one of them, and ``share`` puts together what is of the whole batch.
    """

    x: Tensor
    y: Tensor
    rng: Rng
    rows: Tensor
    view: View | None
    share: Share = WHOLE


@dataclass(frozen=True)
class Moment:
    """Where training stands: ``epoch`` is continuous, 0 <= epoch < epochs.

    ``threat`` is the job's with its eps times ``strength``, the share of full strength that the adversary has now.
    """

    epoch: float
    epochs: int
    threat: ThreatModel
    strength: float = 1.0
    label_smoothing: float = 0.0

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy with the run's label smoothing."""
        return F.cross_entropy(logits, y, label_smoothing=self.label_smoothing)

    def precise_cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """The same, where the backward pass goes on to the images: no underflow there (docs/adr/0006)."""
        loss = F.softplus(cross_entropy_margin(logits, y)).mean()
        if self.label_smoothing:
            loss = (1 - self.label_smoothing) * loss - self.label_smoothing * logits.log_softmax(1).mean()
        return loss


@dataclass(frozen=True)
class Setting:
    """What a defense may want to know before it starts."""

    images: ImageSet
    image: ImageShape
    num_classes: int
    batch_size: int
    augment: tuple[Augmentation, ...]


@dataclass(frozen=True)
class Published:
    """A defense's published training set-up; what a spec leaves out is taken from here."""

    epochs: int
    optimizer: str
    lr: Mapping[str, float]
    schedule: Mapping[str, Any]
    augment: tuple[Augmentation, ...]
    select: Literal["robust", "last"]
    batch_size: int = 128
    weight_decay: float = 0.0
    eps_schedule: Mapping[str, Any] = field(default_factory=lambda: {"name": "constant"})
    parameters: Mapping[str, Any] = field(default_factory=dict)


def fine_tuning(domain: Domain, *, small: bool, parameters: Mapping[str, Any] | None = None) -> Published:
    """Ten epochs of Adam, slow start and fast decay: the set-up of Jeddi et al. 2020, given to every defense that was
    published for training from scratch. The peak lr is about a tenth of theirs; small networks take more."""
    peak = 1e-3 if small else 5e-4
    return Published(
        epochs=10,
        optimizer="adam",
        lr={"adam": peak, "rmsprop": peak, "sgd": 10 * peak, "muon": 10 * peak},
        schedule={"name": "slow-start-fast-decay"},
        augment=AUGMENT[domain],
        select="robust",
        parameters=parameters or {},
    )


class Defense(Entry):
    """A way to fine-tune.

    ``trains`` is False for those without a loss: the one that only evaluates, and ``auto``, which ``searches``.

    A subclass writes ``adversarial_losses``; state that lives from batch to batch begins in ``start``.
    """

    trains: ClassVar[bool] = True
    searches: ClassVar[bool] = False  # True: the engine trains others in its place
    has_adversary: ClassVar[bool] = True  # False: no adversary whose strength could be scheduled
    sums_gradients: ClassVar[bool] = False  # True: one optimizer step a batch, on the sum of its losses' gradients
    undoes_augmentation: ClassVar[bool] = False  # True: it needs each batch's view
    norms: ClassVar[frozenset[Norm]] = frozenset({"linf", "l2", "l1"})

    @classmethod
    def published(cls, domain: Domain, *, small: bool) -> Published:
        """The set-up for this kind of images; ``small`` networks take larger learning rates.

        ``fine_tuning`` for all that were published for training from scratch, and for ``aft``, whose it is.
        """
        return fine_tuning(domain, small=small)

    @abstractmethod
    def adversarial_losses(self, model: Classifier, batch: Batch, moment: Moment, state: State) -> Iterator[Tensor]:
        """Yield one scalar loss for each backward pass on this batch; moment.strength is above 0.

        The model is in train mode. The loop goes back and takes an optimizer step between the yields (after the last
        one only, if the defense sums its gradients). A loss is a mean over the batch's images: several devices weigh
        theirs by their share of it.
        """

    @abstractmethod
    def adversarial_fb(self) -> int:
        """Forward-backward passes on one training example in an epoch of the loop."""

    @property
    def passes(self) -> int:
        """How often an epoch of the loop goes over the data: more than once if each batch is replayed."""
        return 1

    def check(self, model: Classifier, setting: Setting) -> None:
        """Raise UnsupportedError if the defense cannot run with this network or these data; before any work."""

    def start(self, model: Classifier, setting: Setting) -> State:
        """The state before the first batch, on the model's device."""
        return {}

    @final
    def losses(self, model: Classifier, batch: Batch, moment: Moment, state: State) -> Iterator[Tensor]:
        """See ``adversarial_losses``; while the adversary has no strength, cross-entropy on the clean images."""
        if moment.strength > 0:
            yield from self.adversarial_losses(model, batch, moment, state)
        else:
            yield moment.cross_entropy(model(batch.x), batch.y)

    @final
    def fb_per_example(self, strength: float) -> int:
        """Forward-backward passes on one training example in an epoch of the loop, at this strength."""
        return self.adversarial_fb() if strength > 0 else 1

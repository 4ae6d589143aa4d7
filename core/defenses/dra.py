"""dra: clean examples replayed with those of a dynamically regulated adversary."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from core.augmentation import augment
from core.data import some
from core.defenses.base import AUGMENT, Batch, Defense, Moment, Published, Setting, State
from core.inner_attacks.base import InnerAttack
from core.inner_attacks.dra import InnerDRA
from core.inner_attacks.pgd import InnerPGD
from core.models.base import Domain
from core.models.classifier import Classifier, frozen
from core.registry import one_of
from core.rng import Rng

if TYPE_CHECKING:
    AnyInner: TypeAlias = InnerAttack
else:
    AnyInner = one_of(InnerDRA, InnerPGD)

_MARGIN_IMAGES = 2000  # whose mean loss stands for that of all training images


class DRATraining(Defense):
    """Hou et al. 2022, "Adversarial Fine-tune with Dynamically Regulated Adversary", https://arxiv.org/abs/2204.13232.

    The network is updated on clean and adversarial samples, one to one. ``replay`` says how:
    "joint", 0.5 * CE(x) + 0.5 * CE(x_dra); "alternate", a step on the clean batch and then one on its adversarial
    examples; "dual", eq. 8-9, CE(x_dra) + lambda * (CE(x) - L_std), where lambda <- max(0, lambda + dual_step *
    (CE(x) - L_std)) grows while the clean loss is above that of the uploaded network, L_std.
    """

    title: ClassVar[str] = "Clean and dynamically regulated adversarial examples, one to one"
    paper: ClassVar[str] = "https://arxiv.org/abs/2204.13232"

    name: Literal["dra"] = "dra"
    attack: AnyInner = Field(InnerDRA(), description="What crafts the training examples.")
    replay: Literal["joint", "alternate", "dual"] = Field("joint", description="How clean images are replayed.")
    dual_step: float = Field(0.01, gt=0, le=10, description='Step of the dual variable, for replay "dual".')

    @classmethod
    def published(cls, domain: Domain, *, small: bool) -> Published:
        """60 epochs of SGD on CIFAR, the strength falling from 2 to 0.5 over 50, then clean; on MNIST 50, constant."""
        grey = domain == "grey28"
        attack = {"name": "dra", "mean_change": 0.1, "p": 2 / 3, "steps": 20}
        return Published(
            epochs=50 if grey else 60,
            optimizer="sgd",
            lr={"adam": 1e-3, "rmsprop": 1e-3, "sgd": 0.01, "muon": 0.01},
            # epochs 30 and 50 in both
            schedule={"name": "multi-step", "milestones": [0.6] if grey else [0.5, 5 / 6], "gamma": 0.1},
            augment=AUGMENT[domain],
            select="last",
            weight_decay=2e-4,
            eps_schedule={"name": "constant"} if grey else {"name": "decay", "final": 0.25, "until": 5 / 6},
            parameters={"attack": attack} if grey else {},
        )

    def start(self, model: Classifier, setting: Setting) -> State:
        """The dual variable, 1, and the clean loss of the network before training.

        That loss is measured as it is in training, augmented and in train mode, or lambda would grow by the difference.
        """
        if self.replay != "dual":
            return {}
        device, before = model.mean.device, copy.deepcopy(model).train()  # BatchNorm's statistics will move in it
        before.cost = model.cost  # its passes are booked with the others
        rows = some(setting.images, _MARGIN_IMAGES, seed=0)
        torch.manual_seed(0)
        total = 0.0
        with torch.no_grad():
            for piece in np.array_split(rows, math.ceil(len(rows) / setting.batch_size)):
                x, y, ids = setting.images.batch(np.sort(piece), device)
                x, _ = augment(x, setting.augment, Rng.for_images(0, ids))
                total += float(F.cross_entropy(before(x), y, reduction="sum"))
        return {"lambda": torch.ones((), device=device), "clean_loss": torch.tensor(total / len(rows), device=device)}

    def adversarial_losses(self, model: Classifier, batch: Batch, moment: Moment, state: State) -> Iterator[Tensor]:
        """See the class."""
        x, y = batch.x, batch.y
        if self.replay == "alternate":
            yield moment.cross_entropy(model(x), y)
        with frozen(model):
            x_adv = self.attack.craft(model, x, y, moment.threat, batch.rng, strength=moment.strength)
        if self.replay == "alternate":
            yield moment.cross_entropy(model(x_adv), y)
            return
        clean, adversarial = model(x), moment.cross_entropy(model(x_adv), y)
        if self.replay == "joint":
            yield 0.5 * moment.cross_entropy(clean, y) + 0.5 * adversarial
            return
        excess = F.cross_entropy(clean, y) - state["clean_loss"]  # neither smoothed: the two have to be comparable
        yield adversarial + state["lambda"] * excess
        state["lambda"] = (state["lambda"] + self.dual_step * batch.share.mean(excess.detach())).clamp_min(0)

    def adversarial_fb(self) -> int:
        """T + 2."""
        return self.attack.fb_per_example() + 2

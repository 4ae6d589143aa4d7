"""atta: each epoch's attack starts from the perturbations of the last one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from core.attacks.ascent import ascend
from core.augmentation import canvas_padding
from core.defenses.base import Batch, Defense, Moment, Published, Setting, State, fine_tuning
from core.errors import UnsupportedError
from core.models.base import Domain
from core.models.classifier import Classifier, frozen
from core.projections import project
from core.values import StepSize, resolve_step_size

_NOISE = 0.001
_MEMORY_SHARE = 0.5  # of the machine's, for the perturbations of all training images


class ATTA(Defense):
    """Zheng et al. 2020, "Efficient Adversarial Training with Transferable Adversarial Examples", arXiv 1912.11969.

    Adversarial examples of one epoch still fool the next epoch's network, so a few steps an epoch add up to a strong
    attack. The perturbations are kept on the padded canvas: each epoch's crop and flip is undone, and done anew.
    """

    title: ClassVar[str] = "Adversarial training that accumulates perturbations over epochs"
    paper: ClassVar[str] = "https://arxiv.org/abs/1912.11969"
    undoes_augmentation: ClassVar[bool] = True

    name: Literal["atta"] = "atta"
    steps: int = Field(1, ge=1, le=1000, description="Gradient steps for each training example in each epoch (k).")
    step_size: StepSize = Field("eps/2", description='Step, absolute or relative to eps ("eps/4").')
    reset_every: int | None = Field(10, ge=1, description="Epochs after which perturbations begin anew; null: never.")

    @classmethod
    def published(cls, domain: Domain, *, small: bool) -> Published:
        """As fine-tuning, without resized crops, which cannot be undone; on MNIST the paper never resets."""
        published = fine_tuning(domain, small=small, parameters={"reset_every": None} if domain == "grey28" else None)
        return replace(published, augment=tuple(name for name in published.augment if name != "resized-crop"))

    def check(self, model: Classifier, setting: Setting) -> None:
        """The perturbations of all training images have to fit in memory."""
        needed = 2 * len(setting.images) * _canvas_values(setting)
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if model.mean.is_cuda:
            there = torch.cuda.get_device_properties(model.mean.device).total_memory
        if needed > _MEMORY_SHARE * there:
            raise UnsupportedError(
                f"defense 'atta' keeps a perturbation of each of the {len(setting.images)} training images, "
                f"{needed / 2**30:.1f} GiB in all; this device has {there / 2**30:.1f} GiB",
                "train on fewer or smaller images, or use fast-at, which costs as much and keeps nothing",
            )

    def start(self, model: Classifier, setting: Setting) -> State:
        """No perturbation yet; in half precision, a sixteenth of an 8-bit step or finer."""
        side = [size + 2 * canvas_padding(setting.augment) for size in (setting.image.height, setting.image.width)]
        shape = (len(setting.images), setting.image.channels, *side)
        return {"delta": torch.zeros(shape, dtype=torch.float16, device=model.mean.device)}

    def adversarial_losses(self, model: Classifier, batch: Batch, moment: Moment, state: State) -> Iterator[Tensor]:
        """CE(x_adv), with the attack begun where the last epoch's ended."""
        x, threat, view, rows = batch.x, moment.threat, batch.view, batch.rows
        if view is None:
            raise UnsupportedError("defense 'atta' cannot undo this augmentation", "use crop and flip, or none")
        if self._begins_anew(moment):
            start = x + _NOISE * batch.rng.fork("start").normal(*x.shape[1:])
        else:
            start = x + view.look(state["delta"][rows], x.shape[2]).float()
        step_size = resolve_step_size(self.step_size, eps=threat.eps, steps=self.steps)
        with frozen(model):
            start = project(start, x, threat)
            x_adv = ascend(model, start, x, batch.y, threat, steps=self.steps, step_size=step_size)
        delta = view.put(state["delta"][rows], x_adv - x)
        state["delta"][batch.share.whole(rows)] = batch.share.whole(delta)
        yield moment.cross_entropy(model(x_adv), batch.y)

    def _begins_anew(self, moment: Moment) -> bool:
        epoch = int(moment.epoch)
        return epoch == 0 or (self.reset_every is not None and epoch % self.reset_every == 0)

    def adversarial_fb(self) -> int:
        """k + 1."""
        return self.steps + 1


def _canvas_values(setting: Setting) -> int:
    image = setting.image
    return (
        image.channels
        * (image.height + 2 * canvas_padding(setting.augment))
        * (image.width + 2 * canvas_padding(setting.augment))
    )

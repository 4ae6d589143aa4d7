"""The one training loop. Its full state is saved at each epoch's end, every few minutes and when it is stopped."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from core.augmentation import augment
from core.averaging import WeightAverage
from core.cost import Cost
from core.data import Ids, ImageSet, epoch_batches, sample
from core.defenses.base import Batch, Moment, Setting
from core.errors import BadLogitsError, DivergedError, Stopped
from core.models.classifier import Classifier, do_nothing
from core.parallel import ALONE, Share, Team
from core.prepared import Workdir
from core.report import EpochCurve
from core.rng import Rng, derive_seed
from core.selection import Judge, collapsed, out_of_patience
from core.spec import JobSpec, TrainingSpec
from core.training_state import Running, TrainingState, Weights, restore, save
from core.validation import Validation

SAVE_SECONDS = 120.0


@dataclass(frozen=True)
class Trained:
    """The finished state, and the weights of the epoch that ships."""

    state: TrainingState
    weights: Weights


@dataclass
class Trainer:
    """Everything the loop needs; ``train`` is the loop. ``last_good`` is what is kept when it diverges.

    ``saves``: so many states were saved by this process.
    """

    spec: JobSpec
    training: TrainingSpec
    model: Classifier
    setting: Setting
    held_out: ImageSet
    device: torch.device
    evaluation_batch: int
    workdir: Workdir
    on_event: Callable[[dict[str, Any]], None]
    on_progress: Callable[[float, int], None]
    should_stop: Callable[[], bool]
    judge: Judge
    team: Team = ALONE
    save_seconds: float = SAVE_SECONDS
    last_good: Trained | None = None
    saves: int = 0

    def train(self) -> Trained:
        """Fine-tune from the last saved state, or from the checkpoint.

        Raises: DivergedError on a NaN or infinite loss; Stopped once the state is saved.
        """
        running = self._begin()
        state, defense, epochs = running.state, self.spec.defense, self.spec.epochs
        last_save = time.monotonic()
        while state.epoch < epochs and state.stopped is None:
            started, cost = time.monotonic(), self.model.cost.copy()
            batches = epoch_batches(len(self._images), self.training.batch_size, self.spec.seed, state.epoch)
            self.model.train()
            for step in range(state.step, len(batches)):
                batch = self._batch(batches[step], state.epoch)
                moment = self._moment(state.epoch + step / len(batches))
                self._set_lr(running.optimizer, state.epoch + (step + 0.5) / len(batches))
                self._seed_dropout(state.epoch, step, batch.share)
                self.model.mixed_precision = self.training.mixed_precision
                try:
                    with batch.share.training(self.model):
                        for loss in defense.losses(self.model, batch, moment, running.defense):
                            self._backward(loss, state, batch)
                            if not defense.sums_gradients:
                                self._update(running)
                except BadLogitsError as error:  # crafting meets weights that are no longer finite before a loss does
                    raise _diverged("the model's logits or gradients became NaN or infinite", state) from error
                if defense.sums_gradients:
                    self._update(running)
                self.model.mixed_precision = False
                state.step = step + 1
                self.on_progress((state.epoch + state.step / len(batches)) / epochs, state.epoch)
                due, stop = self.team.first(partial(self._asked, last_save))
                if due or stop:
                    cost = self._account(state, cost, started)
                    started = last_save = time.monotonic()
                    self._save(running)
                    if stop:
                        raise Stopped
            self._account(state, cost, started)
            self.team.check_alike(self.model.net)
            self._choose(running, self._validate(running, len(batches)))
            state.next_epoch()
            self.last_good = Trained(state, running.best)
            last_save = time.monotonic()
            # the event first: told twice after a crash is better than never
            self.on_event({"type": "epoch", **state.curves[-1]})
            self._save(running)
            if self.team.first(self.should_stop):
                raise Stopped
        return Trained(state, running.best)

    @property
    def _images(self) -> ImageSet:
        return self.setting.images

    def _begin(self) -> Running:
        """Everything as it was last saved, or as it is at the start."""
        optimizer = self.training.optimizer.build(self.model.net.parameters())
        average = WeightAverage(self.model, self.training.ema) if self.training.ema is not None else None
        running = Running(self.model, optimizer, average, {}, TrainingState(), {})
        if restore(running, self.workdir, self.spec.digest()):
            if running.best:
                self.last_good = Trained(running.state, running.best)
        else:
            running.defense = self.spec.defense.start(self.model, self.setting)
        return running

    def _batch(self, rows: Ids, epoch: int) -> Batch:
        share = Share(self.team, len(rows))
        rows = share.of(rows)
        x, y, ids = self._images.batch(rows, self.device)
        rng = Rng.for_images(derive_seed(self.spec.seed, "train", epoch), ids)
        x, view = augment(x, self.training.augment, rng)
        return Batch(x, y, rng, torch.from_numpy(rows).to(self.device), view, share)

    def _seed_dropout(self, epoch: int, step: int, share: Share) -> None:
        """Masks of their own for each part of a batch: with equal ones, the same units would go in all parts."""
        labels = (epoch, step, share.rank) if share.rank else (epoch, step)
        torch.manual_seed(derive_seed(self.spec.seed, "dropout", *labels))

    def _moment(self, epoch: float) -> Moment:
        strength = self.training.eps_schedule.factor(epoch / self.spec.epochs)
        threat = self.spec.threat.model_copy(update={"eps": self.spec.threat.eps * strength})
        return Moment(epoch, self.spec.epochs, threat, strength, self.training.label_smoothing)

    def _lr(self, epoch: float) -> float:
        passes = self.spec.defense.passes  # schedules count passes over the data, as the papers do
        return self.training.optimizer.lr * self.training.schedule.factor(epoch * passes, self.spec.epochs * passes)

    def _set_lr(self, optimizer: torch.optim.Optimizer, epoch: float) -> None:
        """The rate in the middle of a step: at their very start some schedules are zero."""
        for group in optimizer.param_groups:
            group["lr"] = self._lr(epoch)

    def _backward(self, loss: Tensor, state: TrainingState, batch: Batch) -> None:
        """Of a part of the batch, the gradient is what this part adds to that of the batch."""
        share = batch.share
        value = share.mean(loss).item()
        if not math.isfinite(value):
            raise _diverged(f"the training loss became {value}", state)
        loss = loss if share.weight == 1 else loss * share.weight
        loss.backward()  # type: ignore[no-untyped-call]
        state.loss_sum += value * share.count
        state.loss_count += share.count

    def _update(self, running: Running) -> None:
        """One optimizer step on the gradients there are."""
        self.team.sum_gradients(self.model.net.parameters())
        if self.training.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.net.parameters(), self.training.clip_norm)
        running.optimizer.step()
        running.optimizer.zero_grad(set_to_none=True)
        if running.average:
            running.average.update(self.model)

    def _validate(self, running: Running, steps: int) -> EpochCurve:
        """The curve of an epoch of so many steps; asked to stop meanwhile, it saves the state before it."""
        state, started, cost = running.state, time.monotonic(), self.model.cost.copy()
        validation = Validation(
            probe=sample(self._images, len(self.held_out), self.spec.seed),
            held_out=self.held_out,
            num_classes=self.setting.num_classes,
            seed=self.spec.seed,
            batch_size=self.evaluation_batch,
            device=self.device,
            threat=self.spec.threat,
            team=self.team,
        )
        shipping = running.shipping
        shipping.on_forward = self._stop_if_asked
        try:
            if running.average:
                with self.team.booked_once(self.model.cost):
                    running.average.settle(self._images)
            accuracies = validation.measure(shipping)
            if self.judge.enough(shipping, accuracies):
                state.stopped = "goal"
        except BadLogitsError as error:
            raise _diverged("the model's logits became NaN or infinite", state) from error
        except Stopped:
            self._save(running)
            raise
        finally:
            shipping.on_forward = do_nothing
        _add(state.validation_cost, self.team.total(self.model.cost - cost))
        state.validation_seconds += time.monotonic() - started
        return EpochCurve(
            epoch=state.epoch + 1,
            lr=self._lr(state.epoch + 1 - 0.5 / steps),
            train_loss=state.loss_sum / max(1, state.loss_count),
            strength=self._moment(state.epoch + (steps - 1) / steps).strength,
            seconds=state.seconds,
            **accuracies,
        )

    def _asked(self, last_save: float) -> tuple[bool, bool]:
        """Whether to save now, and whether to stop."""
        return time.monotonic() - last_save > self.save_seconds, self.should_stop()

    def _stop_if_asked(self) -> None:
        if self.should_stop():
            raise Stopped

    def _choose(self, running: Running, curve: EpochCurve) -> None:
        """Keep this epoch's weights if they are the best so far, and see whether training should end."""
        state = running.state
        earlier = state.history()
        state.curves.append(curve.model_dump())
        if self.spec.defense.has_adversary and collapsed(curve, earlier, held_out=len(self.held_out)):
            state.stopped = "catastrophic-overfitting"
            return
        if state.stopped == "goal" or self.judge.better(curve, state.best):
            state.best_epoch = curve.epoch
            weights = running.shipping.net.state_dict()
            running.best = {key: value.detach().clone() for key, value in weights.items()}
        if out_of_patience([*earlier, curve], self.training.patience):
            state.stopped = "patience"

    def _account(self, state: TrainingState, since: Cost, started: float) -> Cost:
        """Book the passes and seconds since the last time."""
        _add(state.training_cost, self.team.total(self.model.cost - since))
        state.seconds += time.monotonic() - started
        return self.model.cost.copy()

    def _save(self, running: Running) -> None:
        if not self.team.leads:  # all have the same
            return
        file = save(running, self.workdir, self.spec.digest())
        place = {"epoch": running.state.epoch, "step": running.state.step}
        # by turns: if one of the last two is damaged where they are stored, there is the other
        self.saves += 1
        self.on_event({"type": "state", "file": file, "slot": f"training-{self.saves % 2}.pt", **place})


def _add(total: dict[str, int], cost: Cost) -> None:
    for key, value in asdict(cost).items():
        total[key] += value


def _diverged(what: str, state: TrainingState) -> DivergedError:
    return DivergedError(
        f"{what} in epoch {state.epoch + 1}, step {state.step + 1}",
        "lower training.optimizer.lr; the last good epoch is kept",
    )

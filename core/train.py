"""The one training loop. Its full state is saved at each epoch's end, every few minutes and when it is stopped."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from core.attacks.pgd import PGD
from core.cost import Cost
from core.data import ImageSet, augment, epoch_batches, sample
from core.defenses.base import Batch, Moment
from core.errors import BadLogitsError, DivergedError, Stopped
from core.evaluate import Bench, predict, survivors
from core.models.classifier import Classifier
from core.prepared import Workdir
from core.report import EpochCurve
from core.rng import Rng, derive_seed
from core.selection import better
from core.spec import JobSpec, TrainingSpec

SAVE_SECONDS = 120.0
_JUDGE = PGD(steps=10, step_size="eps/4")  # the attack of the curves and of the choice of epoch


@dataclass
class TrainingState:
    """Where training stands. Weights and optimizer are saved beside it.

    Random numbers are functions of (seed, epoch, step, image id), so the position is the state of every
    generator and of the sampler: ``step`` counts the batches done in ``epoch``.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    seconds: float = 0.0
    curves: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    training_cost: dict[str, int] = field(default_factory=lambda: asdict(Cost()))
    validation_cost: dict[str, int] = field(default_factory=lambda: asdict(Cost()))
    validation_seconds: float = 0.0


@dataclass(frozen=True)
class Trained:
    """The finished state, and the weights of the epoch that ships."""

    state: TrainingState
    weights: dict[str, torch.Tensor]


@dataclass
class Trainer:
    """Everything the loop needs; ``train`` is the loop. ``last_good`` is what is kept when it diverges."""

    spec: JobSpec
    training: TrainingSpec
    model: Classifier
    train_images: ImageSet
    held_out: ImageSet
    num_classes: int
    device: torch.device
    evaluation_batch: int
    workdir: Workdir
    on_event: Callable[[dict[str, Any]], None]
    on_progress: Callable[[float, int], None]
    should_stop: Callable[[], bool]
    save_seconds: float = SAVE_SECONDS
    last_good: Trained | None = None

    def train(self) -> Trained:
        """Fine-tune from the last saved state, or from the checkpoint.

        Raises: DivergedError on a NaN or infinite loss; Stopped once the state is saved.
        """
        optimizer = self.training.optimizer.build(self.model.net.parameters())
        state, best_weights = self._restore(optimizer)
        last_save = time.monotonic()
        while state.epoch < self.training.epochs:
            started = time.monotonic()
            batches = epoch_batches(len(self.train_images), self.training.batch_size, self.spec.seed, state.epoch)
            cost = self.model.cost.copy()
            lr = 0.0
            self.model.train()
            for step in range(state.step, len(batches)):
                x, y, ids = self.train_images.batch(batches[step], self.device)
                rng = Rng.for_images(derive_seed(self.spec.seed, "train", state.epoch), ids)
                x = augment(x, self.training.augment, rng)
                t = state.epoch + step / len(batches)
                lr = self.training.optimizer.lr * self.training.schedule.factor(t, self.training.epochs)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                torch.manual_seed(derive_seed(self.spec.seed, "dropout", state.epoch, step))
                moment = Moment(t, self.training.epochs, self.spec.threat)
                for loss in self.spec.defense.losses(self.model, Batch(x, y, rng), moment):
                    value = loss.item()
                    if not math.isfinite(value):
                        raise _diverged(f"the training loss became {value}", state.epoch, step)
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    state.loss_sum += value * len(x)
                    state.loss_count += len(x)
                state.step = step + 1
                self.on_progress((state.epoch + state.step / len(batches)) / self.training.epochs, state.epoch)
                due = time.monotonic() - last_save > self.save_seconds
                stop = self.should_stop()
                if (due or stop) and state.step < len(batches):
                    cost = self._account(state, cost, started)
                    started = last_save = time.monotonic()
                    self._save(state, optimizer, best_weights)
                    if stop:
                        raise Stopped
            self._account(state, cost, started)
            try:
                curve = self._validate(state, lr)
            except BadLogitsError as error:
                raise _diverged("the model's logits became NaN or infinite", state.epoch, len(batches) - 1) from error
            state.curves.append(curve.model_dump())
            best = EpochCurve(**state.curves[state.best_epoch - 1]) if state.best_epoch else None
            if better(curve, best, self.training.select):
                state.best_epoch = curve.epoch
                best_weights = {key: value.detach().clone() for key, value in self.model.net.state_dict().items()}
            state.epoch, state.step, state.loss_sum, state.loss_count, state.seconds = (
                state.epoch + 1,
                0,
                0.0,
                0,
                0.0,
            )
            self.last_good = Trained(state, best_weights)
            last_save = time.monotonic()
            # the event first: told twice after a crash is better than never
            self.on_event({"type": "epoch", **curve.model_dump()})
            self._save(state, optimizer, best_weights)
            if self.should_stop():
                raise Stopped
        return Trained(state, best_weights)

    def _validate(self, state: TrainingState, lr: float) -> EpochCurve:
        """Clean and PGD-10 accuracy on the held-out images and on as many training images."""
        started, cost = time.monotonic(), self.model.cost.copy()
        probe = sample(self.train_images, len(self.held_out), self.spec.seed)
        shares = []
        for images in (probe, self.held_out):
            bench = Bench(images, self.num_classes, self.spec.seed, self.evaluation_batch, self.device)
            clean = predict(self.model, bench) == bench.labels
            robust = survivors(self.model, bench, clean, _JUDGE, self.spec.threat)
            shares += [float(clean.mean()), float(robust.mean())]
        _add(state.validation_cost, self.model.cost - cost)
        state.validation_seconds += time.monotonic() - started
        return EpochCurve(
            epoch=state.epoch + 1,
            lr=lr,
            train_loss=state.loss_sum / max(1, state.loss_count),
            train_clean=shares[0],
            train_robust=shares[1],
            held_out_clean=shares[2],
            held_out_robust=shares[3],
            seconds=state.seconds,
        )

    def _account(self, state: TrainingState, since: Cost, started: float) -> Cost:
        """Book the passes and seconds since the last time."""
        _add(state.training_cost, self.model.cost - since)
        state.seconds += time.monotonic() - started
        return self.model.cost.copy()

    def _save(
        self, state: TrainingState, optimizer: torch.optim.Optimizer, best_weights: dict[str, torch.Tensor]
    ) -> None:
        """Write the state to a temporary name and rename it, then say so; the newest two are kept."""
        content = {
            "spec": self.spec.digest(),
            "state": asdict(state),
            "model": self.model.net.state_dict(),
            "optimizer": optimizer.state_dict(),
            "best": best_weights,
        }
        path = self.workdir.training(state.epoch, state.step)
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_suffix(".tmp")
        torch.save(content, temporary)
        temporary.replace(path)
        for older in self.workdir.saved_training()[2:]:
            older.unlink()
        place = {"epoch": state.epoch, "step": state.step}
        self.on_event({"type": "state", "file": path.name, "slot": "training.pt", **place})

    def _restore(self, optimizer: torch.optim.Optimizer) -> tuple[TrainingState, dict[str, torch.Tensor]]:
        states = self.workdir.saved_training()
        if not states:
            return TrainingState(), {}
        saved = torch.load(states[0], map_location="cpu", weights_only=True)
        if saved["spec"] != self.spec.digest():
            raise ValueError("the saved training state belongs to another spec")
        self.model.net.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        if saved["best"]:
            self.last_good = Trained(TrainingState(**saved["state"]), saved["best"])
        return TrainingState(**saved["state"]), saved["best"]


def _add(total: dict[str, int], cost: Cost) -> None:
    for key, value in asdict(cost).items():
        total[key] += value


def _diverged(what: str, epoch: int, step: int) -> DivergedError:
    return DivergedError(
        f"{what} in epoch {epoch + 1}, step {step + 1}",
        "lower training.optimizer.lr; the last good epoch is kept",
    )

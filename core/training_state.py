"""Where training stands, and how that is saved: all of it, so that a resumed run gives the same bits."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from core.averaging import WeightAverage
from core.cost import Cost
from core.defenses.base import State
from core.models.classifier import Classifier
from core.prepared import Workdir
from core.report import EpochCurve

Weights = dict[str, Tensor]


@dataclass
class TrainingState:
    """The position and what was measured. Weights, optimizer and the defense's own state are saved beside it.

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
    stopped: str | None = None
    training_cost: dict[str, int] = field(default_factory=lambda: asdict(Cost()))
    validation_cost: dict[str, int] = field(default_factory=lambda: asdict(Cost()))
    validation_seconds: float = 0.0

    @property
    def best(self) -> EpochCurve | None:
        """The epoch that would ship now."""
        return EpochCurve(**self.curves[self.best_epoch - 1]) if self.best_epoch else None

    def history(self) -> list[EpochCurve]:
        """All epochs so far."""
        return [EpochCurve(**curve) for curve in self.curves]

    def next_epoch(self) -> None:
        """Stand at the beginning of the next epoch."""
        self.epoch, self.step, self.loss_sum, self.loss_count, self.seconds = self.epoch + 1, 0, 0.0, 0, 0.0


@dataclass
class Running:
    """Everything that changes while training."""

    model: Classifier
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    defense: State
    state: TrainingState
    best: Weights

    @property
    def shipping(self) -> Classifier:
        """The network that is validated and may ship: the average, where one is kept."""
        return self.average.model if self.average else self.model


def save(running: Running, workdir: Workdir, digest: str) -> str:
    """Write to a temporary name and rename it; the newest two are kept. Returns the file's name."""
    state = running.state
    content = {
        "spec": digest,
        "state": asdict(state),
        "model": running.model.net.state_dict(),
        "optimizer": running.optimizer.state_dict(),
        "average": running.average.state_dict() if running.average else None,
        "defense": running.defense,
        "best": running.best,
    }
    path = workdir.training(state.epoch, state.step)
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:  # torch's own would not say why it failed
        torch.save(content, file)
    temporary.replace(path)
    for older in workdir.saved_training()[2:]:
        older.unlink()
    return path.name


def forget_others(workdir: Workdir, digest: str) -> None:
    """Remove the saved states of other trainings of the same job."""
    for path in workdir.saved_training():
        if torch.load(path, map_location="cpu", weights_only=True)["spec"] != digest:
            path.unlink()


def restore(running: Running, workdir: Workdir, digest: str) -> bool:
    """Put the newest saved state into ``running``; False if there is none.

    Raises: ValueError if it was saved under another spec.
    """
    states = workdir.saved_training()
    if not states:
        return False
    saved = torch.load(states[0], map_location="cpu", weights_only=True)
    if saved["spec"] != digest:
        raise ValueError("the saved training state belongs to another spec")
    device = running.model.mean.device
    running.model.net.load_state_dict(saved["model"])
    running.optimizer.load_state_dict(saved["optimizer"])
    if running.average:
        running.average.load_state_dict(saved["average"])
    running.defense = {name: value.to(device) for name, value in saved["defense"].items()}
    running.state = TrainingState(**saved["state"])
    running.best = saved["best"]
    return True

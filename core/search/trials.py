"""One training within a search: by the one loop, measured on held-out images, and gone on with after a kill."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from core.attacks.pgd import PGD
from core.data import ImageSet
from core.errors import Stopped
from core.evaluate import Bench, predict, survivors
from core.inputs import Inputs
from core.models.classifier import Classifier
from core.prepared import Workdir
from core.search.state import FILE, SearchState, Tried
from core.selection import Judge
from core.spec import JobSpec
from core.train import Trained, Trainer
from core.training_state import forget_others

ATTACK = PGD(steps=20, step_size="eps/4")
"""What judges the candidates: stronger than what chooses epochs, and than what most of them train on."""


@dataclass
class Trials:
    """Trains, measures, and keeps where the search stands. ``too_late``: the last training ended by its clock."""

    inputs: Inputs
    held_out: ImageSet
    workdir: Workdir
    on_event: Callable[[dict[str, Any]], None]
    should_stop: Callable[[], bool]
    clock: Callable[[], float] = time.monotonic
    too_late: bool = False
    state: SearchState = field(init=False)

    def __post_init__(self) -> None:
        self.state = SearchState.restore(self.workdir.root / "state", self.inputs.spec.digest())
        self._resumed_at, self._spent = self.clock(), self.state.seconds
        self._asked = False

    @property
    def elapsed(self) -> float:
        """Seconds of the budget that are spent, over all attempts."""
        return self._spent + self.clock() - self._resumed_at

    def begin(self, what: str) -> None:
        """Note when a training begins, once; a resumed one began before."""
        if self.state.current != what:
            self.state.current, self.state.begun = what, self.elapsed
            self.save(0, self.state.steps)

    def trainer(
        self,
        spec: JobSpec,
        images: ImageSet,
        judge: Judge,
        *,
        final: bool,
        on_progress: Callable[[float, int], None],
        is_late: Callable[[], bool],
    ) -> Trainer:
        """The one training loop over ``images``, which raises Stopped when asked to and when it is late.

        ``final``: the winner's, whose events are the job's.
        """
        inputs = replace(self.inputs, spec=spec, train=images)
        if spec.training is None or inputs.setting is None:
            raise TypeError("a candidate trains")
        forget_others(self.workdir, spec.digest())
        self.too_late = False
        per_epoch = batches(spec, images)

        def watch(event: dict[str, Any]) -> None:
            if event["type"] == "state":
                # places grow over the whole job: how far it has got must be told from where it was before
                epoch, step = event["epoch"], event["step"]
                if not final:
                    epoch, step = 0, epoch * per_epoch + step
                if epoch == 0:
                    step += self.state.steps
                self.save(epoch, step)
                self.on_event({**event, "epoch": epoch, "step": step})
            elif final:
                self.on_event(event)

        def stop() -> bool:
            self._asked = self._asked or self.should_stop()
            self.too_late = not self._asked and (self.too_late or is_late())
            return self._asked or self.too_late

        return Trainer(
            spec=spec,
            training=spec.training,
            model=inputs.uploaded(self.workdir),
            setting=inputs.setting,
            held_out=self.held_out,
            device=inputs.device,
            evaluation_batch=inputs.evaluation_batch,
            workdir=self.workdir,
            on_event=watch,
            on_progress=on_progress,
            should_stop=stop,
            judge=judge,
        )

    def measure(self, number: int, name: str, images: ImageSet, trained: Trained | None, failed: str | None) -> Tried:
        """What a candidate has come to in a rung; ``trained`` is None if it ``failed``. Raises: Stopped."""
        clean, robust, epochs, fb = None, None, 0, 0
        if trained is not None:
            model = self.inputs.build()
            model.net.load_state_dict(trained.weights)
            clean, robust = self.count(model)
            epochs, fb = len(trained.state.curves), trained.state.training_cost["fb"]
        return Tried(name, number, len(images), epochs, clean, robust, self.elapsed - self.state.begun, fb, failed)

    def accuracies(self, model: Classifier) -> tuple[float, float]:
        """As ``count``, in shares."""
        clean, robust = self.count(model)
        return clean / len(self.held_out), robust / len(self.held_out)

    def count(self, model: Classifier) -> tuple[int, int]:
        """Held-out images that are correct, clean and under the search's attack. Raises: Stopped if asked to."""
        inputs, earlier, before = self.inputs, model.on_forward, model.cost.copy()
        bench = Bench(self.held_out, inputs.num_classes, inputs.spec.seed, inputs.evaluation_batch, inputs.device)
        model.on_forward = self._stop_if_asked
        try:
            clean = predict(model, bench) == bench.labels
            robust = survivors(model, bench, clean, ATTACK, inputs.spec.threat)
        finally:
            model.on_forward = earlier
        self.state.book(model.cost - before)
        return int(clean.sum()), int(robust.sum())

    def keep_best(self, trained: Trained) -> None:
        """The best model so far, in case the winner's whole training comes to less."""
        temporary = self._best.with_suffix(".tmp")
        torch.save(trained.weights, temporary)
        temporary.replace(self._best)
        name = self._best.name
        self.on_event({"type": "state", "file": name, "slot": name, "epoch": 0, "step": self.state.steps})

    def best(self) -> dict[str, Any] | None:
        """Its weights, if one was kept."""
        if not self._best.exists():
            return None
        weights: dict[str, Any] = torch.load(self._best, map_location=self.inputs.device, weights_only=True)
        return weights

    def save(self, epoch: int, step: int) -> None:
        """Where the search stands; ``epoch`` and ``step``: how far the whole job is by that."""
        self.state.seconds = self.elapsed
        self.state.save(self.workdir.root / "state", self.inputs.spec.digest())
        self.on_event({"type": "state", "file": FILE, "slot": FILE, "epoch": epoch, "step": step})

    @property
    def _best(self) -> Path:
        return self.workdir.root / "state" / "search-best.pt"

    def _stop_if_asked(self) -> None:
        self._asked = self._asked or self.should_stop()
        if self._asked:
            raise Stopped


def batches(spec: JobSpec, images: ImageSet) -> int:
    """Of an epoch."""
    return -(-len(images) // spec.training.batch_size) if spec.training else 0

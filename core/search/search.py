"""The search: rung after rung by the one training loop, then the winner's whole training (docs/adr/0021)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from core.cost import Cost
from core.data import ImageSet, sample
from core.defenses.auto import Auto
from core.errors import DivergedError, Stopped, UnsupportedError
from core.inputs import Inputs
from core.prepared import Workdir
from core.progress import Progress
from core.search.candidates import candidate, with_epochs
from core.search.goal import GoalJudge, Target
from core.search.plan import Rung, cost, plan
from core.search.state import SearchState, Tried
from core.search.trials import Trials, batches
from core.spec import JobSpec
from core.train import Trained

_SEARCH_SHARE = 0.6  # of the budget; the rest is the winner's
_LEAST_SCALE = 1 / 64


@dataclass
class Search:
    """One ``auto`` job's search.

    ``clean_before``: clean accuracy of the uploaded model on test images: its own training images would flatter it.
    ``fb_per_second``: how fast its evaluation was, None if nobody knows. ``last_good``: see Trainer.
    """

    inputs: Inputs
    workdir: Workdir
    on_event: Callable[[dict[str, Any]], None]
    progress: Progress
    should_stop: Callable[[], bool]
    clean_before: float
    fb_per_second: float | None
    clock: Callable[[], float] = time.monotonic
    last_good: Trained | None = None
    trials: Trials = field(init=False)
    state: SearchState = field(init=False)
    auto: Auto = field(init=False)
    target: Target = field(init=False)
    held_out: ImageSet = field(init=False)
    rungs: list[Rung] = field(init=False)
    refused: dict[str, str] = field(default_factory=dict)
    winner: JobSpec = field(init=False)
    shipped: Tried = field(init=False)
    planned: int = 0  # epochs of the winner's whole training, had the budget not cut it

    def __post_init__(self) -> None:
        auto, held_out, train = self.inputs.spec.defense, self.inputs.held_out, self.inputs.train
        if not isinstance(auto, Auto) or held_out is None or train is None:
            raise TypeError("a search needs defense auto and training images")
        self.auto, self.held_out, self._train = auto, held_out, train
        self.target = Target(auto.goal.robust, self.clean_before - auto.goal.max_clean_drop)
        self.trials = Trials(self.inputs, held_out, self.workdir, self.on_event, self.should_stop, self.clock)
        self.state = self.trials.state

    def run(self) -> Trained:
        """Search, then train the winner on all images; goes on where it was stopped.

        Raises: Stopped once the state is saved; UnsupportedError if no candidate can do the job; DivergedError.
        """
        field = self._able()
        self._plan(len(field))
        for number, rung in enumerate(self.rungs):
            for name in field:
                if self.state.find(number, name) is None and self.state.cut is None:
                    self._try(number, rung, name)
            if self.state.cut is not None:
                break
            ranked = self.ranked(field)
            best = self.violation(self.state.find(number, ranked[0]))
            last = best == 0 or number + 1 == len(self.rungs)
            kept = ranked[: 1 if last else self.rungs[number + 1].candidates]
            if number == self.state.rungs:
                self.state.rungs += 1
                self.trials.save(0, self.state.steps)
                dropped = [name for name in field if name not in kept]
                counted = {"rung": number + 1, "rungs": len(self.rungs)}
                self.on_event({"type": "rung", **counted, "kept": kept, "dropped": dropped})
            field = kept
            if best == float("inf"):
                raise DivergedError("every candidate diverged", "name others in defense.candidates")
            if last:
                break
        return self._train_winner(self.ranked(field)[0])

    def ranked(self, names: list[str]) -> list[str]:
        """Who got furthest first; of those the nearest to the goal, then the cheapest, then the first named."""

        def key(name: str) -> tuple[float, ...]:
            latest = self.state.latest(name)
            if latest is None:
                return (1,)  # it may yet do better than one that failed
            return (2,) if latest.failed else (0, -latest.rung, *self.rank(latest))

        return sorted(names, key=key)

    def rank(self, tried: Tried) -> tuple[float, float]:
        """The smaller, the better: what is missing, then the cost."""
        return (self.violation(tried), tried.fb)

    def violation(self, tried: Tried | None) -> float:
        """By how much a model misses the goal on the held-out images; infinite if there is none."""
        if tried is None or tried.clean is None or tried.robust is None:
            return float("inf")
        total = len(self.held_out)
        return self.target.violation(tried.clean / total, tried.robust / total)

    @property
    def budget(self) -> float:
        """Seconds."""
        return 60 * self.auto.goal.budget_minutes

    def _able(self) -> list[str]:
        """The candidates that can do this job; why the others cannot is kept for the report."""
        for name in self.auto.candidates:
            try:
                spec = candidate(self.inputs.spec, name, fb=0, images=1)
                inputs = replace(self.inputs, spec=spec)
                inputs.try_training()
                if inputs.setting is not None:
                    spec.defense.check(inputs.uploaded(self.workdir), inputs.setting)
            except UnsupportedError as error:
                self.refused[name] = error.detail
        able = [name for name in self.auto.candidates if name not in self.refused]
        if not able:
            raise UnsupportedError(
                "no candidate can do this job: " + "; ".join(self.refused.values()), "name others in defense.candidates"
            )
        return able

    def _plan(self, candidates: int) -> None:
        """The rungs: those that were begun, or all that the search's share of the budget seems to pay for."""

        def rungs(scale: float) -> list[Rung]:
            return plan(
                candidates,
                eta=self.auto.eta,
                images=len(self._train),
                fb_per_image=self.auto.fb_per_image,
                scale=scale,
            )

        if self.state.scale is None:
            self.state.scale = 1.0
            payable = _SEARCH_SHARE * self.budget * self.fb_per_second if self.fb_per_second else float("inf")
            while cost(rungs(self.state.scale)) > payable and self.state.scale > _LEAST_SCALE:
                self.state.scale /= 2
        self.rungs = rungs(self.state.scale)

    def _try(self, number: int, rung: Rung, name: str) -> None:
        spec = candidate(self.inputs.spec, name, fb=rung.fb, images=rung.images, samples=rung.images)
        images = sample(self._train, rung.images, spec.seed)
        before = sum(each.candidates * each.fb for each in self.rungs[:number])
        before += rung.fb * sum(t.rung == number for t in self.state.tried)
        report = self.progress.reporter("search", self.on_event)
        trainer = self.trials.trainer(
            spec,
            images,
            GoalJudge(self.target),
            final=False,
            on_progress=lambda share, _: report((before + share * rung.fb) / cost(self.rungs), 0),
            is_late=lambda: self.trials.elapsed > _SEARCH_SHARE * self.budget,
        )
        self.trials.begin(f"{number + 1}-{name}")
        try:
            trained = trainer.train()
        except DivergedError as error:
            self._record(number, name, spec, images, None, error.detail)
            return
        except Stopped:
            if not self.trials.too_late:
                raise
            self.state.cut = f"in rung {number + 1} of {len(self.rungs)}, while {name} was trained"
            self.trials.save(0, self.state.steps)
            return
        self.state.book(Cost(**trained.state.training_cost) + Cost(**trained.state.validation_cost))
        self._record(number, name, spec, images, trained, None)

    def _record(
        self, number: int, name: str, spec: JobSpec, images: ImageSet, trained: Trained | None, failed: str | None
    ) -> None:
        """Measure what a candidate has come to, note it, and tell it."""
        tried = self.trials.measure(number, name, images, trained, failed)
        self.state.steps += spec.epochs * batches(spec, images)
        if trained is not None and all(self.violation(tried) < self.violation(other) for other in self.state.tried):
            self.trials.keep_best(trained)
        self.state.tried.append(tried)
        self.state.current = None
        self.trials.save(0, self.state.steps)
        self._tell(tried)

    def _shipping(self, winner: Trained, final: Tried) -> Trained:
        """The winner, or what a rung left if that is nearer to the goal: the budget may have cut the winner short."""
        best = min(self.state.tried, key=self.violation, default=final)
        weights = self.trials.best() if self.violation(best) < self.violation(final) else None
        self.shipped = final if weights is None else best
        return winner if weights is None else replace(winner, weights=weights)

    def _tell(self, tried: Tried) -> None:
        total, missing = len(self.held_out), self.violation(tried)
        self.on_event(
            {
                "type": "candidate",
                "name": tried.candidate,
                "rung": tried.rung + 1,
                "rungs": len(self.rungs),
                "images": tried.images,
                "epochs": tried.epochs,
                "clean": None if tried.clean is None else tried.clean / total,
                "robust": None if tried.robust is None else tried.robust / total,
                "violation": None if tried.failed else missing,
                "failed": tried.failed,
                "seconds": round(tried.seconds, 2),
            }
        )

    def _train_winner(self, name: str) -> Trained:
        """All images, as many epochs as are left of the budget, and no more than it takes to meet the goal."""
        images = self._train
        planned = candidate(self.inputs.spec, name, fb=self.auto.fb_per_image * len(images), images=len(images))
        if self.state.epochs is None:
            self.state.epochs = self._payable_epochs(planned, name)
        self.planned, self.winner = planned.epochs, with_epochs(planned, self.state.epochs)
        spec = self.winner
        self.progress.epochs = spec.epochs
        report = self.progress.reporter("training", self.on_event)
        trainer = self.trials.trainer(
            spec,
            images,
            GoalJudge(self.target, self.trials.accuracies),
            final=True,
            on_progress=report,
            is_late=lambda: self.trials.elapsed > self.budget and trainer.last_good is not None,
        )
        self.trials.begin("winner")
        try:
            trained = trainer.train()
        except Stopped:
            if not self.trials.too_late or trainer.last_good is None:
                raise
            trained = trainer.last_good
            trained.state.stopped = "budget"
        finally:
            self.last_good = trainer.last_good
        if self.state.final is None:
            self.state.final = self.trials.measure(len(self.rungs), name, images, trained, None)
            self.trials.save(spec.epochs, 0)
        return self._shipping(trained, self.state.final)

    def _payable_epochs(self, planned: JobSpec, name: str) -> int:
        """By the time that the candidate's last training took; all if it has had none."""
        latest = self.state.latest(name)
        if latest is None or latest.failed or not latest.seconds:
            return planned.epochs
        per_epoch = latest.seconds / (latest.images * latest.epochs) * len(self._train)
        return max(1, min(planned.epochs, int((self.budget - self.trials.elapsed) / per_epoch)))

"""The search: rung after rung by the one training loop, then the winner's whole training (docs/adr/0021)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from core.attacks.pgd import PGD
from core.cost import Cost
from core.data import ImageSet, sample
from core.defenses.auto import Auto
from core.errors import DivergedError, Stopped, UnsupportedError
from core.evaluate import Bench, predict, survivors
from core.inputs import Inputs
from core.models.classifier import Classifier
from core.prepared import Workdir
from core.progress import Progress
from core.search.candidates import candidate, with_epochs
from core.search.goal import GoalJudge, Target
from core.search.plan import Rung, cost, plan
from core.search.state import FILE, SearchState, Tried
from core.selection import Judge
from core.spec import JobSpec
from core.train import Trained, Trainer
from core.training_state import forget_others

ATTACK = PGD(steps=20, step_size="eps/4")
"""What judges the candidates: stronger than what chooses epochs, and than what most of them train on."""

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
        self.state = SearchState.restore(self.workdir.root / "state", self.inputs.spec.digest())
        self._resumed_at, self._spent = self.clock(), self.state.seconds
        self._asked = self._too_late = False
        self._best = self.workdir.root / "state" / "search-best.pt"

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
            last = number + 1 == len(self.rungs)
            kept = self.ranked(field)[: 1 if last else self.rungs[number + 1].candidates]
            if number == self.state.rungs:
                self.state.rungs += 1
                self._save(0, self.state.steps)
                dropped = [name for name in field if name not in kept]
                counted = {"rung": number + 1, "rungs": len(self.rungs)}
                self.on_event({"type": "rung", **counted, "kept": kept, "dropped": dropped})
            field = kept
            best = self.violation(self.state.find(number, field[0]))
            if best == 0:
                break
            if best == float("inf"):
                raise DivergedError("every candidate diverged", "name others in defense.candidates")
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
    def elapsed(self) -> float:
        """Seconds of the budget that are spent, over all attempts."""
        return self._spent + self.clock() - self._resumed_at

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
        trainer = self._trainer(
            spec,
            images,
            GoalJudge(self.target),
            final=False,
            on_progress=lambda share, _: report((before + share * rung.fb) / cost(self.rungs), 0),
            is_late=lambda: self.elapsed > _SEARCH_SHARE * self.budget,
        )
        self._begin(f"{number + 1}-{name}")
        try:
            trained = trainer.train()
        except DivergedError as error:
            self._record(number, name, spec, images, None, error.detail)
            return
        except Stopped:
            if not self._too_late:
                raise
            self.state.cut = f"in rung {number + 1} of {len(self.rungs)}, while {name} was trained"
            self._save(0, self.state.steps)
            return
        self.state.book(Cost(**trained.state.training_cost) + Cost(**trained.state.validation_cost))
        self._record(number, name, spec, images, trained, None)

    def _record(
        self, number: int, name: str, spec: JobSpec, images: ImageSet, trained: Trained | None, failed: str | None
    ) -> None:
        """Measure what a candidate has come to, note it, and tell it."""
        tried = self._judge(number, name, images, trained, failed)
        self.state.steps += spec.epochs * self._batches(spec, images)
        if trained is not None and all(self.violation(tried) < self.violation(other) for other in self.state.tried):
            self._keep(trained)
        self.state.tried.append(tried)
        self.state.current = None
        self._save(0, self.state.steps)
        self._tell(tried)

    def _keep(self, trained: Trained) -> None:
        """The best model so far, in case the winner's whole training comes to less."""
        path = self._best
        temporary = path.with_suffix(".tmp")
        torch.save(trained.weights, temporary)
        temporary.replace(path)
        self.on_event({"type": "state", "file": path.name, "slot": path.name, "epoch": 0, "step": self.state.steps})

    def _shipping(self, winner: Trained, final: Tried) -> Trained:
        """The winner, or what a rung left if that is nearer to the goal: the budget may have cut the winner short."""
        best = min(self.state.tried, key=self.violation, default=final)
        self.shipped = best if self.violation(best) < self.violation(final) and self._best.exists() else final
        if self.shipped is final:
            return winner
        weights = torch.load(self._best, map_location=self.inputs.device, weights_only=True)
        return replace(winner, weights=weights)

    def _judge(self, number: int, name: str, images: ImageSet, trained: Trained | None, failed: str | None) -> Tried:
        clean, robust, epochs, fb = None, None, 0, 0
        if trained is not None:
            model = self.inputs.build()
            model.net.load_state_dict(trained.weights)
            clean, robust = self.count(model)
            epochs, fb = len(trained.state.curves), trained.state.training_cost["fb"]
        return Tried(name, number, len(images), epochs, clean, robust, self.elapsed - self.state.begun, fb, failed)

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
        trainer = self._trainer(
            spec,
            images,
            GoalJudge(self.target, self._accuracies),
            final=True,
            on_progress=report,
            is_late=lambda: self.elapsed > self.budget and trainer.last_good is not None,
        )
        self._begin("winner")
        try:
            trained = trainer.train()
        except Stopped:
            if not self._too_late or trainer.last_good is None:
                raise
            trained = trainer.last_good
            trained.state.stopped = "budget"
        finally:
            self.last_good = trainer.last_good
        if self.state.final is None:
            self.state.final = self._judge(len(self.rungs), name, images, trained, None)
            self._save(spec.epochs, 0)
        return self._shipping(trained, self.state.final)

    def _payable_epochs(self, planned: JobSpec, name: str) -> int:
        """By the time that the candidate's last training took; all if it has had none."""
        latest = self.state.latest(name)
        if latest is None or latest.failed or not latest.seconds:
            return planned.epochs
        per_epoch = latest.seconds / (latest.images * latest.epochs) * len(self._train)
        return max(1, min(planned.epochs, int((self.budget - self.elapsed) / per_epoch)))

    def _trainer(
        self,
        spec: JobSpec,
        images: ImageSet,
        judge: Judge,
        *,
        final: bool,
        on_progress: Callable[[float, int], None],
        is_late: Callable[[], bool],
    ) -> Trainer:
        inputs = replace(self.inputs, spec=spec, train=images)
        if spec.training is None or inputs.setting is None:
            raise TypeError("a candidate trains")
        forget_others(self.workdir, spec.digest())
        self._too_late = False
        batches = self._batches(spec, images)

        def watch(event: dict[str, Any]) -> None:
            if event["type"] == "state":
                # places grow over the whole job: how far it has got must be told from where it was before
                epoch, step = event["epoch"], event["step"]
                if not final:
                    epoch, step = 0, epoch * batches + step
                if epoch == 0:
                    step += self.state.steps
                self._save(epoch, step)
                self.on_event({**event, "epoch": epoch, "step": step})
            elif final:
                self.on_event(event)

        def stop() -> bool:
            self._asked = self._asked or self.should_stop()
            self._too_late = not self._asked and (self._too_late or is_late())
            return self._asked or self._too_late

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

    def _batches(self, spec: JobSpec, images: ImageSet) -> int:
        return -(-len(images) // spec.training.batch_size) if spec.training else 0

    def _begin(self, what: str) -> None:
        """Note when a training begins, once; a resumed one began before."""
        if self.state.current != what:
            self.state.current, self.state.begun = what, self.elapsed
            self._save(0, self.state.steps)

    def _accuracies(self, model: Classifier) -> tuple[float, float]:
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

    def _stop_if_asked(self) -> None:
        self._asked = self._asked or self.should_stop()
        if self._asked:
            raise Stopped

    def _save(self, epoch: int, step: int) -> None:
        self.state.seconds = self.elapsed
        self.state.save(self.workdir.root / "state", self.inputs.spec.digest())
        self.on_event({"type": "state", "file": FILE, "slot": FILE, "epoch": epoch, "step": step})

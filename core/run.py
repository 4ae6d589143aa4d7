"""run(): one job from prepared inputs to a report, phase by phase, from wherever it was stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from core import artifacts, card
from core.assemble import assemble
from core.cost import Cost
from core.errors import DivergedError, RunError, Stopped
from core.evaluate import Bench, predict_once
from core.export import load_exported, to_uploaded_form, write_checkpoints
from core.first_look import check_baseline
from core.inputs import Inputs, load_inputs
from core.models.classifier import Classifier, do_nothing
from core.outcome import Outcome, evaluate_side, ledger_path, preview
from core.parallel import ALONE, Team
from core.prepared import FORMATS, Workdir
from core.progress import Progress
from core.report import PhaseCost, Report, Search, Side
from core.scratch import write_random_weights
from core.search import search as searching
from core.search.account import found, remarks
from core.selection import Judge
from core.spec import JobSpec
from core.tally import Ledger
from core.train import Trained, Trainer

OnEvent = Callable[[dict[str, Any]], None]
SAVE_SECONDS = 30.0  # between two saves of an evaluation


def run(
    spec: JobSpec,
    workdir: Workdir,
    on_event: OnEvent,
    should_stop: Callable[[], bool] = lambda: False,
    team: Team = ALONE,
) -> Report:
    """Validate, attack, fine-tune, export, attack the exported file, report.

    Args:
        spec: the resolved job.
        workdir: prepared inputs; state is kept and output left in it.
        on_event: told phases, progress, results and saved state, as plain dicts with a "type".
        should_stop: polled after each batch; once true, the state is saved.
        team: the ranks that run the job together, each in a process of its own that calls this; rank 0 alone writes.
    Raises: RunError with code and hint; Stopped after saving.
    """
    torch.backends.cudnn.allow_tf32 = False  # ten bits of mantissa: predictions would depend on device and batch
    job = _Run(spec, workdir, on_event, should_stop, team)
    with job.phase("validating"):
        model = job.load()
    with job.phase("baseline"):
        before = job.baseline(model)
    if not (spec.defense.trains or spec.defense.searches):
        job.leave_artifacts(before, None, None)
        return job.report(before, None, None)
    with job.phase("training"):
        trained = job.search(before.side) if spec.defense.searches else job.train(model)
    with job.phase("exporting"):
        team.first(lambda: job.export(trained))
    with job.phase("evaluating"):
        after = job.evaluate_exported(before.side)
    job.leave_artifacts(before, after, trained)
    return job.report(before, after, trained)


@dataclass
class _Run:
    """One run's phases, and what they share."""

    spec: JobSpec
    workdir: Workdir
    on_event: OnEvent
    should_stop: Callable[[], bool]
    team: Team = ALONE
    costs: dict[str, PhaseCost] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    found: Search | None = None
    inputs: Inputs = field(init=False)
    progress: Progress = field(init=False)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Announce a phase; its seconds are booked unless it books its own cost."""
        self.on_event({"type": "phase", "phase": name})
        started = time.monotonic()
        yield
        self.costs.setdefault(name, PhaseCost(seconds=time.monotonic() - started))

    def load(self) -> Classifier:
        """Check the inputs and load the uploaded weights."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self.spec.model.weights == "random":
            self.team.first(lambda: write_random_weights(self.spec, self.workdir))
        self.inputs = load_inputs(self.spec, self.workdir, device)
        self.progress = Progress(
            self.spec,
            images=len(self.inputs.images),
            num_classes=self.inputs.num_classes,
            suite=self.inputs.suite,
            train_images=len(self.inputs.train or ()),
            held_out=len(self.inputs.held_out or ()),
        )
        model = self.inputs.uploaded(self.workdir)
        if self.inputs.setting is not None:
            self.inputs.try_training()
            self.spec.defense.check(model, self.inputs.setting)
        return model

    def baseline(self, model: Classifier) -> Outcome:
        """The uploaded checkpoint under the suite; kept, so that a resumed run does not repeat it."""
        path = self.workdir.baseline
        if path.exists():
            saved = json.loads(path.read_text())
            if saved["spec"] != self.spec.digest():
                raise ValueError("the saved baseline belongs to another spec")
            self.costs["baseline"] = PhaseCost.model_validate(saved["cost"])
            before = Outcome.from_json(saved["outcome"])
        else:
            before = self._evaluate(model, "baseline", deployed=self.inputs.uploaded(self.workdir))
            self.on_event({"type": "result", "side": "before", **before.side.model_dump(mode="json")})
            content = {
                "spec": self.spec.digest(),
                "cost": self.costs["baseline"].model_dump(),
                "outcome": before.to_json(),
            }
            if self.team.leads:
                path.parent.mkdir(exist_ok=True)
                _write_atomically(path, json.dumps(content))
                self.on_event({"type": "state", "file": path.name, "slot": path.name, "epoch": 0, "step": 0})
        return before

    def _first_look(self, model: Classifier, ledger: Ledger) -> None:
        """A first answer before the whole baseline, which may take long; it ends here if nothing was learnt."""
        inputs, started, bench = self.inputs, time.monotonic(), self._bench
        predictions = predict_once(model, bench, ledger)
        side = preview(model, bench, inputs.headline)
        shown = side.model_dump(mode="json", include={"clean", "attacks", "robust"})
        self.on_event({"type": "preview", "seconds": round(time.monotonic() - started, 2), **shown})
        if not (self.spec.evaluation.allow_low_baseline or self.spec.model.weights == "random"):
            check_baseline(model, bench, predictions, chance=inputs.chance, matched_by=inputs.match.by)

    def train(self, model: Classifier) -> Trained:
        """Fine-tune; a run that diverges leaves its last good epoch in output/."""
        inputs, training, setting = self.inputs, self.spec.training, self.inputs.setting
        if training is None or setting is None or inputs.held_out is None:
            raise RunError(f"defense {self.spec.defense.name!r} has nothing to train with")
        trainer = Trainer(
            spec=self.spec,
            training=training,
            model=model,
            setting=setting,
            held_out=inputs.held_out,
            device=inputs.device,
            evaluation_batch=inputs.evaluation_batch,
            workdir=self.workdir,
            on_event=self.on_event,
            on_progress=self.progress.reporter("training", self.on_event),
            should_stop=self.should_stop,
            judge=Judge(training.select),
            team=self.team,
        )
        return self._book(self._or_last_good(trainer.train, trainer))

    def search(self, before: Side) -> Trained:
        """Let ``auto`` find the defense and train it; a winner that diverges leaves its last good epoch, too."""
        fb, seconds = self.costs["baseline"].fb, self.costs["baseline"].seconds
        search = searching.Search(
            inputs=self.inputs,
            workdir=self.workdir,
            on_event=self.on_event,
            progress=self.progress,
            should_stop=self.should_stop,
            clean_before=before.clean.accuracy,
            fb_per_second=fb / seconds if seconds else None,
        )
        trained = self._book(self._or_last_good(search.run, search))
        self.found = found(search, trained)
        self.notes += remarks(self.found)
        tried = sum(each.seconds for each in search.state.tried)
        self.costs["search"] = PhaseCost(seconds=tried, **search.state.cost)
        return trained

    def _or_last_good(self, train: Callable[[], Trained], trainer: Trainer | searching.Search) -> Trained:
        try:
            return train()
        except DivergedError:
            if trainer.last_good is not None and self.team.leads:
                self.export(trainer.last_good)
            raise

    def _book(self, trained: Trained) -> Trained:
        state = trained.state
        seconds = sum(curve["seconds"] for curve in state.curves)
        self.costs["training"] = PhaseCost(seconds=seconds, **state.training_cost)
        self.costs["validation"] = PhaseCost(seconds=state.validation_seconds, **state.validation_cost)
        return trained

    def export(self, trained: Trained) -> None:
        """Write the chosen epoch's weights in the form that came in."""
        manifest = self.inputs.manifest
        write_checkpoints(to_uploaded_form(trained.weights, self.inputs.match, manifest), manifest, self.workdir)
        for kind in FORMATS:
            self.on_event({"type": "artifact", "file": self.workdir.checkpoint(kind).name})

    def evaluate_exported(self, before: Side) -> Outcome:
        """The exported file, loaded again into a fresh network, under the suite."""
        model, again = self.exported(), self.exported()
        uploaded = self.inputs.uploaded(self.workdir)
        after = self._evaluate(model, "evaluating", deployed=again, surrogate=uploaded, before=before)
        self.on_event({"type": "result", "side": "after", **after.side.model_dump(mode="json")})
        return after

    @property
    def _bench(self) -> Bench:
        return replace(self.inputs.bench, team=self.team)

    def exported(self) -> Classifier:
        """The network as it ships, loaded from the exported file."""
        model = self.inputs.build()
        load_exported(self.workdir, self.inputs.match, self.inputs.manifest, model.net)
        return model

    def _evaluate(
        self,
        model: Classifier,
        phase: str,
        *,
        deployed: Classifier,
        surrogate: Classifier | None = None,
        before: Side | None = None,
    ) -> Outcome:
        report = self.progress.reporter(phase, self.on_event)
        last = phase == "evaluating"
        epochs = self.progress.epochs if last else 0
        path = ledger_path(self.workdir.root / "state", "after" if last else "before")
        ledger = Ledger.restore(path, self.spec.digest())
        models = [each for each in (model, deployed, surrogate) if each is not None]
        started, earlier = time.monotonic(), (ledger.seconds, ledger.cost)
        last_save = started

        def save() -> None:
            nonlocal last_save
            if not self.team.leads:  # all have the same
                return
            ledger.save(path, self.spec.digest())
            last_save = time.monotonic()
            # how far the job has got: a baseline comes before the first epoch, the last evaluation after the last
            place = {"epoch": epochs if last else -1, "step": ledger.steps}
            self.on_event({"type": "state", "file": path.name, "slot": path.name, **place})

        def on_step(fraction: float) -> None:
            # booked with each step: what a kill undoes is not paid twice
            ledger.seconds = earlier[0] + time.monotonic() - started
            ledger.cost = earlier[1] + self.team.total(sum((each.cost for each in models), Cost()))
            report(fraction, epochs)
            stop_if_asked()
            if time.monotonic() - last_save > SAVE_SECONDS:
                save()

        def stop_if_asked() -> None:
            if self.should_stop():
                raise Stopped

        inputs = self.inputs
        # asked before every pass too: a batch of a slow network may take minutes
        for each in models:
            each.cost, each.on_forward = Cost(), stop_if_asked
        try:
            if not last and "looked" not in ledger.extras:
                self._first_look(model, ledger)
                ledger.extras["looked"] = True
            outcome = evaluate_side(
                model,
                self._bench,
                inputs.suite,
                inputs.headline,
                self.spec.evaluation,
                ledger=ledger,
                on_step=on_step,
                deployed=deployed,
                surrogate=surrogate,
                before=before,
            )
        except Stopped:
            save()
            raise
        finally:
            for each in models:
                each.on_forward = do_nothing
        self.costs[phase] = _phase_cost(ledger.seconds, ledger.cost)
        return outcome

    def leave_artifacts(self, before: Outcome, after: Outcome | None, trained: Trained | None) -> None:
        """The files to look at and to compute with."""
        if not self.team.leads:
            return
        inputs, workdir = self.inputs, self.workdir
        uploaded, exported = inputs.uploaded(workdir), self.exported() if after else None
        paths = [artifacts.write_images(inputs, workdir, before, after)]
        if exported is not None and trained is not None:
            pictures, notes = artifacts.write_pictures(inputs, workdir, trained, uploaded, exported)
            paths += pictures
            self.notes += notes
        paths.append(artifacts.write_examples_of(inputs, workdir, uploaded, exported, (after or before).robust))
        for path in paths:
            self.on_event({"type": "artifact", "file": path.name})

    def report(self, before: Outcome, after: Outcome | None, trained: Trained | None) -> Report:
        """The report, and beside it the model card that says the same in Markdown."""
        report = assemble(self.inputs, self.workdir, before, after, trained, self.costs, self.notes, self.found)
        if self.team.leads:
            path = self.workdir.output / card.NAME
            path.write_text(card.model_card(report), encoding="utf-8")
            self.on_event({"type": "artifact", "file": path.name})
        return report


def _phase_cost(seconds: float, cost: Cost) -> PhaseCost:
    return PhaseCost(seconds=seconds, **asdict(cost))


def _write_atomically(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)

"""run(): one job from prepared inputs to a report, phase by phase, from wherever it was stopped."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core import __version__
from core.cost import Cost
from core.data import ImageSet, hold_out, load_split, sample
from core.errors import BaselineTooLowError, DataMismatchError, DivergedError, RunError, Stopped
from core.evaluate import Outcome, evaluate
from core.export import (
    file_sha256,
    load_exported,
    load_weights,
    loading_snippet,
    to_uploaded_form,
    write_checkpoints,
)
from core.matching import KeyMatch, count_classes, match_keys, nearest_architecture
from core.models.base import ImageShape
from core.models.classifier import Classifier, frozen
from core.prepared import FORMATS, CheckpointManifest, DataManifest, Workdir
from core.progress import Progress
from core.report import (
    Change,
    EpochCurve,
    Images,
    Output,
    PairedChange,
    PhaseCost,
    Report,
    Training,
)
from core.report import Cost as ReportCost
from core.spec import JobSpec
from core.suites import SUITES, Entry
from core.threat import ThreatModel
from core.train import Trained, Trainer, TrainingState, last_good_weights
from core.verdict import judge

OnEvent = Callable[[dict[str, Any]], None]
_NEAR_CHANCE = 0.1  # clean accuracy less than this far on the way from chance to 1 is near chance


def run(spec: JobSpec, workdir: Workdir, on_event: OnEvent, should_stop: Callable[[], bool] = lambda: False) -> Report:
    """Validate, attack, fine-tune, export, attack the exported file, report.

    Args:
        spec: the resolved job.
        workdir: prepared inputs; state is kept and output left in it.
        on_event: told phases, progress, results and saved state, as plain dicts with a "type".
        should_stop: polled after each batch; once true, the state is saved.
    Raises: RunError with code and hint; Stopped after saving.
    """
    job = _Run(spec, workdir, on_event, should_stop)
    with job.phase("validating"):
        job.load()
    with job.phase("baseline"):
        before = job.baseline()
    if not spec.defense.trains:
        return job.report(before, None, None)
    with job.phase("training"):
        trained = job.train()
    with job.phase("exporting"):
        job.export(trained)
    with job.phase("evaluating"):
        after = job.evaluate_exported()
    return job.report(before, after, trained)


@dataclass
class _Run:
    """One run's parts, in the order in which the phases make them."""

    spec: JobSpec
    workdir: Workdir
    on_event: OnEvent
    should_stop: Callable[[], bool]
    costs: dict[str, PhaseCost] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    device: torch.device = field(default_factory=lambda: torch.device("cuda" if torch.cuda.is_available() else "cpu"))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.on_event({"type": "phase", "phase": name})
        started = time.monotonic()
        yield
        if name not in self.costs:
            self.costs[name] = PhaseCost(seconds=time.monotonic() - started)

    def load(self) -> None:
        """Inputs, network and frozen test images; everything that can be wrong with them is found here."""
        self.manifest: CheckpointManifest = self.workdir.checkpoint_manifest()
        self.data: DataManifest = self.workdir.data_manifest()
        self.image = ImageShape(self.data.channels, self.data.height, self.data.width)
        self.num_classes = self._resolve_classes()
        self._check_channels()
        self.match: KeyMatch = self._match()
        self.model = self._build()
        load_weights(self.workdir.input / "checkpoint.safetensors", self.match, self.model.net)
        self.images: ImageSet = sample(load_split(self.workdir, "test"), self.spec.evaluation.samples, self.spec.seed)
        self._try_two_images()
        self.suite: list[Entry] = SUITES[self.spec.evaluation.suite](self.spec.threat, self.image)
        self.headline: ThreatModel = max((entry.threat for entry in self.suite), key=lambda threat: threat.eps)
        for attack, threat in self.suite:
            attack.check(threat)
        if self.spec.defense.trains:
            self.train_images, self.held_out = hold_out(
                load_split(self.workdir, "train"), self._training().held_out, self.spec.seed
            )
        self.progress = Progress(
            self.spec,
            images=len(self.images),
            suite=self.suite,
            train_images=len(self.train_images) if self.spec.defense.trains else 0,
            held_out=len(self.held_out) if self.spec.defense.trains else 0,
        )
        if self.match.by == "order":
            self.notes.append(
                "The checkpoint's keys differ from the architecture's and were matched by order and shape."
            )
        if self.manifest.dropped:
            self.notes.append("Not carried over from the uploaded file: " + ", ".join(self.manifest.dropped) + ".")
        if self.headline != self.spec.threat:
            self.notes.append(
                f"Suite {self.spec.evaluation.suite!r} attacks with its paper's own eps {self.headline.eps:.4g}; "
                f"training used {self.spec.threat.eps:.4g}."
            )

    def _training(self) -> Any:
        if self.spec.training is None:
            raise RunError(f"defense {self.spec.defense.name!r} needs training")
        return self.spec.training

    def _resolve_classes(self) -> int:
        classes = self.spec.model.num_classes or count_classes(self.manifest)
        if classes is None:
            raise DataMismatchError("the checkpoint has no weight matrix to read the class count from")
        names = self.data.class_names
        if names is not None and len(names) != classes:
            raise DataMismatchError(
                f"{self.data.source.filename} has {len(names)} classes, the checkpoint {classes}",
                "the data needs one folder for each class of the model, empty ones too in train/",
            )
        if self.data.num_classes > classes:
            raise DataMismatchError(
                f"{self.data.source.filename} has labels up to {self.data.num_classes - 1}, "
                f"but the checkpoint has {classes} classes",
                "labels are 0 to classes - 1; check y_train and y_test, or model.num_classes",
            )
        return classes

    def _check_channels(self) -> None:
        weights = [entry for entry in self.manifest.tensors if len(entry.shape) == 4]
        mean = self.spec.model.mean
        if mean is not None and len(mean) not in (1, self.image.channels):
            raise DataMismatchError(
                f"model.mean has {len(mean)} values, the images of {self.data.source.filename} have "
                f"{self.image.channels} channels"
            )
        # the first convolution of a .pt file takes the image's channels; safetensors lost the order
        if self.manifest.format == "pt" and weights and weights[0].shape[1] != self.image.channels:
            raise DataMismatchError(
                f"{self.data.source.filename} has {self.image.channels} channel(s), but the checkpoint's first "
                f"convolution {weights[0].key!r} takes {weights[0].shape[1]}",
                "send images with the channels that the model was trained on",
            )

    def _match(self) -> KeyMatch:
        net = self.spec.model.architecture.build(self.num_classes, self.image)
        try:
            return match_keys(self.manifest, net)
        except RunError as error:
            nearest = nearest_architecture(self.manifest, self.image, self.num_classes)
            error.hint = f"the nearest architecture is {nearest!r}" if nearest else "check model.architecture"
            raise

    def _build(self) -> Classifier:
        net = self.spec.model.architecture.build(self.num_classes, self.image)
        return Classifier(net, mean=self.spec.model.mean, std=self.spec.model.std).to(self.device)

    def _try_two_images(self) -> None:
        """A pass over two images, to find before any work that the architecture cannot take their size."""
        x, _, _ = self.images.batch(np.arange(min(2, len(self.images))), self.device)
        try:
            with frozen(self.model), torch.no_grad():
                self.model(x)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError, ValueError) as error:
            raise DataMismatchError(
                f"{self.spec.model.architecture.name} cannot take images of {self.image}: {error}",
                "check model.architecture, and the size of the images (data.resize, data.crop for image folders)",
            ) from error

    def baseline(self) -> Outcome:
        """The uploaded checkpoint under the suite; kept, so that a resumed run does not repeat it."""
        if self.workdir.baseline.exists():
            saved = json.loads(self.workdir.baseline.read_text())
            self.costs["baseline"] = PhaseCost.model_validate(saved["cost"])
            before = Outcome.from_json(saved["outcome"])
        else:
            started = time.monotonic()
            before = self._evaluate(self.model, "baseline")
            self.costs["baseline"] = self._phase_cost(time.monotonic() - started, self.model.cost)
            self.workdir.baseline.parent.mkdir(exist_ok=True)
            content = {"cost": self.costs["baseline"].model_dump(), "outcome": before.to_json()}
            _write_atomically(self.workdir.baseline, json.dumps(content))
            self.on_event({"type": "state", "file": self.workdir.baseline.name, "epoch": 0, "step": 0})
        self.on_event({"type": "result", "side": "before", **before.side.model_dump(mode="json")})
        self._check_baseline(before)
        return before

    def _check_baseline(self, before: Outcome) -> None:
        accuracy = before.side.clean.accuracy
        shares = np.bincount(self.images.labels[self.images.ids]) / len(self.images)
        chance = max(1 / self.num_classes, float(shares.max()))  # a model that always names one class reaches this
        if accuracy < chance + _NEAR_CHANCE * (1 - chance) and not self.spec.evaluation.allow_low_baseline:
            raise BaselineTooLowError(
                f"clean accuracy of the uploaded checkpoint is {accuracy:.1%}, near chance ({chance:.1%})",
                "wrong normalisation (model.mean, model.std), class order, or key match "
                f"(keys were matched by {self.match.by})? evaluation.allow_low_baseline goes on all the same",
            )

    def train(self) -> Trained:
        """Fine-tune; a run that diverges leaves its last good epoch in output/."""
        trainer = Trainer(
            spec=self.spec,
            training=self._training(),
            model=self.model,
            train_images=self.train_images,
            held_out=self.held_out,
            num_classes=self.num_classes,
            device=self.device,
            state_path=self.workdir.training,
            on_event=self.on_event,
            on_progress=self.progress.reporter("training", self.on_event),
            should_stop=self.should_stop,
        )
        try:
            trained = trainer.train()
        except DivergedError:
            if good := last_good_weights(self.workdir.training):
                self.export(Trained(*good))
            raise
        state = trained.state
        seconds = sum(curve["seconds"] for curve in state.curves)
        self.costs["training"] = self._phase_cost(seconds, Cost(**state.training_cost))
        self.costs["validation"] = self._phase_cost(state.validation_seconds, Cost(**state.validation_cost))
        return trained

    def export(self, trained: Trained) -> None:
        """Write the chosen epoch's weights in the form that came in."""
        tensors = to_uploaded_form(trained.weights, self.match, self.manifest)
        write_checkpoints(tensors, self.manifest, self.workdir)
        for kind in FORMATS:
            self.on_event({"type": "artifact", "file": self.workdir.checkpoint(kind).name})

    def evaluate_exported(self) -> Outcome:
        """The exported file, loaded again into a fresh network, under the suite."""
        model = self._build()
        load_exported(self.workdir, self.match, self.manifest, model.net)
        started = time.monotonic()
        after = self._evaluate(model, "evaluating")
        self.costs["evaluating"] = self._phase_cost(time.monotonic() - started, model.cost)
        self.on_event({"type": "result", "side": "after", **after.side.model_dump(mode="json")})
        return after

    def _evaluate(self, model: Classifier, phase: str) -> Outcome:
        report = self.progress.reporter(phase, self.on_event)
        epochs = self.spec.training.epochs if self.spec.training and phase == "evaluating" else 0

        def on_progress(share: float) -> None:
            report(share, epochs)
            if self.should_stop():
                raise Stopped

        return evaluate(
            model,
            self.images,
            self.suite,
            num_classes=self.num_classes,
            headline=self.headline,
            seed=self.spec.seed,
            batch_size=self.spec.evaluation.batch_size,
            device=self.device,
            on_progress=on_progress,
        )

    @staticmethod
    def _phase_cost(seconds: float, cost: Cost) -> PhaseCost:
        return PhaseCost(seconds=seconds, **asdict(cost))

    def report(self, before: Outcome, after: Outcome | None, trained: Trained | None) -> Report:
        """Put the report together."""
        change = _change(before, after) if after else None
        return Report(
            verdict=judge(
                suite=self.spec.evaluation.suite,
                num_classes=self.num_classes,
                before=before.side,
                after=after.side if after else None,
                change=change,
            ),
            threat=self.headline,
            suite=self.spec.evaluation.suite,
            images=Images(count=len(self.images), ids_sha256=self.images.ids_sha256()),
            before=before.side,
            after=after.side if after else None,
            change=change,
            training=self._training_report(trained.state) if trained else None,
            notes=tuple(self.notes),
            cost=ReportCost(
                phases=self.costs,
                total_fb=sum(phase.fb for phase in self.costs.values()),
                total_seconds=sum(phase.seconds for phase in self.costs.values()),
                peak_memory_bytes=_peak_memory(self.device),
            ),
            inputs=self._inputs(),
            output=self._output() if trained else None,
            environment=_environment(self.device),
            spec=self.spec,
        )

    def _training_report(self, state: TrainingState) -> Training:
        return Training(
            curves=tuple(EpochCurve(**curve) for curve in state.curves),
            selected_epoch=state.best_epoch,
            selected_by=self._training().select,
            train_images=len(self.train_images),
            held_out_images=len(self.held_out),
        )

    def _inputs(self) -> dict[str, Any]:
        return {
            "checkpoint": {
                **self.manifest.source.model_dump(),
                "format": self.manifest.format,
                "tensors": len(self.manifest.tensors),
                "matched_by": self.match.by,
            },
            "data": self.data.model_dump(exclude={"class_names"}),
        }

    def _output(self) -> Output:
        files = {self.workdir.checkpoint(kind).name: file_sha256(self.workdir.checkpoint(kind)) for kind in FORMATS}
        return Output(
            sha256=files[self.workdir.checkpoint(self.manifest.format).name],
            format=self.manifest.format,
            files=files,
            tensors=len(self.manifest.tensors),
            snippet=loading_snippet(self.manifest),
        )


def _change(before: Outcome, after: Outcome) -> Change:
    def paired(was: Any, now: Any) -> PairedChange:
        return PairedChange.of(int((~was & now).sum()), int((was & ~now).sum()), len(was))

    return Change(clean=paired(before.clean, after.clean), robust=paired(before.robust, after.robust))


def _write_atomically(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def _peak_memory(device: torch.device) -> int:
    """Device memory on CUDA, else the process's peak resident size."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # not on every platform that has CUDA

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _environment(device: torch.device) -> dict[str, Any]:
    return {
        "temper": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": sys.platform,
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
    }

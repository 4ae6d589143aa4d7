"""What a run starts from, checked: everything that can be wrong with checkpoint and data is found here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from core.data import ImageSet, hold_out, load_split, sample
from core.defenses.base import Setting
from core.errors import DataMismatchError, RunError, UnsupportedError, is_out_of_memory
from core.evaluate import Bench
from core.export import load_weights
from core.matching import KeyMatch, count_classes, find_tensor, match_keys
from core.models.base import Architecture, ImageShape
from core.models.classifier import Classifier, frozen
from core.nearest import nearest_architecture
from core.prepared import CheckpointManifest, DataManifest, Workdir
from core.spec import JobSpec
from core.suites import SUITES, Suite
from core.threat import ThreatModel

_SIDES = (28, 32, 48, 64, 96, 128, 160, 224)  # of images, as they are usual


@dataclass(frozen=True)
class Inputs:
    """A checked job. ``images`` are the frozen test images; ``train`` and ``held_out`` are None if nothing trains."""

    spec: JobSpec
    manifest: CheckpointManifest
    data: DataManifest
    image: ImageShape
    num_classes: int
    match: KeyMatch
    device: torch.device
    images: ImageSet
    train: ImageSet | None
    held_out: ImageSet | None
    suite: Suite
    headline: ThreatModel

    @property
    def bench(self) -> Bench:
        """The frozen test images, as every attack goes over them."""
        return Bench(self.images, self.num_classes, self.spec.seed, self.evaluation_batch, self.device)

    @property
    def evaluation_batch(self) -> int:
        """The spec's batch size; where it names none, what suits the device and the images."""
        given = self.spec.evaluation.batch_size
        return given or _suitable_batch(self.device, self.image)

    @property
    def setting(self) -> Setting | None:
        """What a defense may want to know before it starts; None if nothing trains."""
        if self.spec.training is None or self.train is None:
            return None
        training = self.spec.training
        return Setting(self.train, self.image, self.num_classes, training.batch_size, training.augment)

    @property
    def chance(self) -> float:
        """The accuracy of a guess: one class of all, or always the largest class."""
        counts = np.bincount(self.images.labels)  # of the whole test split, not of the few that are evaluated
        return max(1 / self.num_classes, float(counts.max() / counts.sum()))

    def build(self) -> Classifier:
        """A fresh network behind the spec's normalisation, on the device."""
        net = self.spec.model.architecture.build(self.num_classes, self.image)
        return Classifier(net, mean=self.spec.model.mean, std=self.spec.model.std).to(self.device)

    def uploaded(self, workdir: Workdir) -> Classifier:
        """The network with the uploaded weights.

        Raises: DataMismatchError if it cannot take the images.
        """
        model = self.build()
        load_weights(workdir.input / "checkpoint.safetensors", self.match, model.net)
        self._try_two_images(model)
        return model

    def _try_two_images(self, model: Classifier) -> None:
        """A pass over two images, to find before any work that the architecture cannot take their size."""
        x, _, _ = self.images.batch(np.arange(min(2, len(self.images))), self.device)
        with frozen(model), self._refused():
            model(x)

    def try_training(self) -> None:
        """As ``uploaded`` tries, but in train mode: auxiliary heads run, and BatchNorm needs more than one value.

        Raises: DataMismatchError if training would fail on batches of this size.
        """
        if self.spec.training is None or self.train is None:
            return
        count = min(2, self.spec.training.batch_size, len(self.train))
        x, _, _ = self.train.batch(np.arange(count), self.device)
        with self._refused(f" in batches of {count} while it trains" if count == 1 else " while it trains"):
            self.build().train()(x)

    @contextmanager
    def _refused(self, when: str = "") -> Iterator[None]:
        try:
            with torch.no_grad():
                yield
        except (RuntimeError, AssertionError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            raise DataMismatchError(
                f"{self.spec.model.architecture.name} cannot take images of {self.image}{when}: {error}",
                "check model.architecture, the size of the images (data.resize, data.crop for image folders) and "
                "training.batch_size",
            ) from error

    def notes(self) -> list[str]:
        """What the user should know about how the inputs were read."""
        notes = []
        if self.spec.model.weights == "random":
            notes.append("Trained from scratch: the model before hardening has random weights.")
        if self.match.by == "order":
            notes.append(
                "The checkpoint's keys differ from the architecture's and were matched by order and shape; "
                "what ships has the checkpoint's."
            )
        if self.manifest.dropped:
            notes.append("Not carried over from the uploaded file: " + ", ".join(self.manifest.dropped) + ".")
        if self.data.stratified:
            notes.append(
                f"{self.data.source.filename} has no test split: {self.data.counts['test']} of its images, drawn from "
                "each class, are the test split. Every job with this data takes the same ones."
            )
        if self.data.leaks:
            notes.append(
                f"{self.data.leaks} of {self.data.counts['test']} test images are in the training split too, pixel for "
                "pixel: accuracy on them says nothing about new images."
            )
        if self.headline != self.spec.threat:
            notes.append(
                f"Suite {self.spec.evaluation.suite!r} attacks with its paper's own {self.headline.norm} eps "
                f"{self.headline.eps:.4g}; the job's is {self.spec.threat.norm} {self.spec.threat.eps:.4g}."
            )
        return notes


def load_inputs(spec: JobSpec, workdir: Workdir, device: torch.device) -> Inputs:
    """Read the prepared inputs and check them against the spec.

    Raises: RunError with code, detail and hint.
    """
    manifest, data = workdir.checkpoint_manifest(), workdir.data_manifest()
    image = ImageShape(data.channels, data.height, data.width)
    num_classes = _resolve_classes(spec, manifest, data, image)
    mean = spec.model.mean
    if mean is not None and len(mean) not in (1, data.channels):
        raise DataMismatchError(
            f"model.mean has {len(mean)} values, the images of {data.source.filename} have {data.channels} channels"
        )
    suite = SUITES[spec.evaluation.suite](spec.threat, image)
    for attack, threat in suite.entries:
        attack.check(threat)
    if spec.evaluation.corruptions and data.channels not in (1, 3):
        raise UnsupportedError(
            f"evaluation.corruptions needs grey or colour images, {data.source.filename} has {data.channels} channels",
            "leave evaluation.corruptions out",
        )
    train = held_out = None
    if spec.held_out is not None:
        train = load_split(workdir, "train")
        if len(train) < 2:
            raise DataMismatchError(
                f"{data.source.filename} has {len(train)} training image(s)", "at least 2: one of them is held out"
            )
        samples = spec.training.samples if spec.training else None
        train = sample(train, samples or len(train), spec.seed)
        train, held_out = hold_out(train, spec.held_out, spec.seed)
    return Inputs(
        spec=spec,
        manifest=manifest,
        data=data,
        image=image,
        num_classes=num_classes,
        match=_match(spec, manifest, data, num_classes),
        device=device,
        images=sample(
            load_split(workdir, "test"), spec.evaluation.samples, seed=0
        ),  # comparable whatever the job's seed
        train=train,
        held_out=held_out,
        suite=suite,
        headline=max((entry.threat for entry in suite.entries), key=lambda threat: threat.eps),
    )


def _suitable_batch(device: torch.device, image: ImageShape) -> int:
    """On a CPU a batch whose activations stay in the caches; on a GPU one that keeps it busy and fits its memory."""
    if device.type == "cpu":
        return 128
    return max(32, min(1024, 40_000_000 // (image.channels * image.height * image.width)))


def _resolve_classes(spec: JobSpec, manifest: CheckpointManifest, data: DataManifest, image: ImageShape) -> int:
    classes = spec.model.num_classes or count_classes(manifest, spec.model.architecture, image)
    if classes is None:
        raise DataMismatchError("the checkpoint has no weight matrix to read the class count from", "set num_classes")
    names = data.class_names
    if names is not None and len(names) != classes:
        raise DataMismatchError(
            f"{data.source.filename} has {len(names)} classes, the checkpoint {classes}",
            "the data needs one folder for each class of the model",
        )
    if data.num_classes > classes:
        raise DataMismatchError(
            f"{data.source.filename} has labels up to {data.num_classes - 1}, but the checkpoint has {classes} classes",
            "labels are 0 to classes - 1; check y_train and y_test, or model.num_classes",
        )
    return classes


def _match(spec: JobSpec, manifest: CheckpointManifest, data: DataManifest, num_classes: int) -> KeyMatch:
    image = ImageShape(data.channels, data.height, data.width)
    net = spec.model.architecture.build(num_classes, image)
    try:
        return match_keys(manifest, net)
    except RunError as error:
        _check_channels(manifest, data, net)
        _check_size(spec.model.architecture, manifest, data, num_classes)
        nearest = nearest_architecture(manifest, image, num_classes)
        requested = getattr(spec.model.architecture, "model", spec.model.architecture.name)
        if nearest is not None and nearest.rpartition("/")[2] != requested:
            error.hint = f"the nearest architecture is {nearest!r}"
        else:
            error.hint = f"check model.architecture and model.num_classes ({num_classes} here)"
            if manifest.format != "pt":
                error.hint += "; if only the names differ, send a .pt file, which keeps the order of the layers"
        raise


def _check_size(architecture: Architecture, manifest: CheckpointManifest, data: DataManifest, num_classes: int) -> None:
    """Say so where the network fits for images of another size: linear layers behind a flattening know it."""
    if not architecture.small:
        return
    for side in _SIDES:
        try:
            match_keys(manifest, architecture.build(num_classes, ImageShape(data.channels, side, side)))
        except RunError:
            continue
        raise DataMismatchError(
            f"the checkpoint is of a network for images of {side} x {side}, and {data.source.filename} has "
            f"{data.height} x {data.width}",
            f"send images of that size; of image files, data.resize {side} and data.crop {side} make them",
        )


def _check_channels(manifest: CheckpointManifest, data: DataManifest, net: nn.Module) -> None:
    """Say so where the first convolution differs in nothing but its input channels."""
    first = next(((name, m) for name, m in net.named_modules() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        return
    expected = tuple(first[1].weight.shape)
    entry = find_tensor(manifest, f"{first[0]}.weight")
    if entry is None and manifest.format == "pt":
        entry = next((e for e in manifest.tensors if len(e.shape) == 4), None)
    if entry is None or len(entry.shape) != 4 or entry.shape[1] == expected[1]:
        return
    if (entry.shape[0], *entry.shape[2:]) == (expected[0], *expected[2:]):
        raise DataMismatchError(
            f"{data.source.filename} has {data.channels} channel(s), but the checkpoint's first "
            f"convolution {entry.key!r} takes {entry.shape[1]}",
            "send images with the channels that the model was trained on",
        )

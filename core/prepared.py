"""The run's work folder, and the prepared inputs that ingest leaves in it.

Layout: ``spec.json``; ``input/`` from ingest; ``state/`` to resume from; ``output/`` what ships.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

CheckpointFormat = Literal["safetensors", "pt"]
FORMATS: tuple[CheckpointFormat, ...] = ("safetensors", "pt")


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceFile(_Manifest):
    """The file a user sent."""

    filename: str
    sha256: str
    size: int


class TensorEntry(_Manifest):
    """One tensor of the uploaded checkpoint; dtype as safetensors spells it (F32, BF16, ...)."""

    key: str
    dtype: str
    shape: tuple[int, ...]


class CheckpointManifest(_Manifest):
    """What the uploaded checkpoint looked like, so that the output can look the same.

    ``wrapper`` is the path of keys to the state dict ("state_dict", "model"); ``extras`` the plain values
    (epoch numbers and the like) beside it; ``dropped`` what could not be kept, an optimizer's state for one.
    """

    source: SourceFile
    format: CheckpointFormat
    tensors: tuple[TensorEntry, ...]
    wrapper: tuple[str, ...] = ()
    extras: dict[str, Any] = {}
    dropped: tuple[str, ...] = ()
    metadata: dict[str, str] = {}


class DataManifest(_Manifest):
    """What the prepared arrays hold: (n, c, h, w), uint8, or float32 in [0, 1]; labels int64.

    ``per_class``: images of each class by split. ``duplicates``: images by split that repeat another one of it pixel
    for pixel; ``leaks``: test images that are in the train split too. ``stratified``: the data came with one split, of
    which a part of each class became the test split. ``left_out``: images by split that are not used.
    """

    source: SourceFile
    format: str
    channels: int
    height: int
    width: int
    counts: dict[str, int]
    num_classes: int
    class_names: tuple[str, ...] | None = None
    per_class: dict[str, tuple[int, ...]] = {}
    duplicates: dict[str, int] = {}
    leaks: int = 0
    stratified: bool = False
    left_out: dict[str, int] = {}


@dataclass(frozen=True)
class Workdir:
    """Paths of one run."""

    root: Path

    @property
    def spec(self) -> Path:
        """The resolved spec."""
        return self.root / "spec.json"

    @property
    def input(self) -> Path:
        """Prepared inputs."""
        return self.root / "input"

    @property
    def baseline(self) -> Path:
        """Results of the baseline phase."""
        return self.root / "state" / "baseline.json"

    def training(self, epoch: int, step: int) -> Path:
        """Full training state after so many steps of an epoch; each save has a name of its own."""
        return self.root / "state" / f"training-{epoch}-{step}.pt"

    def saved_training(self) -> list[Path]:
        """Saved training states, newest first; restored ones are called training-0.pt, training-1.pt."""
        return sorted((self.root / "state").glob("training*.pt"), key=lambda p: p.stat().st_mtime_ns, reverse=True)

    @property
    def output(self) -> Path:
        """What ships."""
        return self.root / "output"

    def checkpoint(self, kind: CheckpointFormat) -> Path:
        """The hardened checkpoint in one format."""
        return self.output / f"checkpoint.{kind}"

    def checkpoint_manifest(self) -> CheckpointManifest:
        """Read the manifest of the uploaded checkpoint."""
        return CheckpointManifest.model_validate_json((self.input / "checkpoint.json").read_bytes())

    def data_manifest(self) -> DataManifest:
        """Read the manifest of the data."""
        return DataManifest.model_validate_json((self.input / "data.json").read_bytes())

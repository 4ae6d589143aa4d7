"""JobSpec: everything a run is asked to do. Validated here and nowhere else."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from core.augmentation import Augmentation
from core.defenses import DEFENSES, AnyDefense, Defense
from core.defenses.auto import Auto
from core.defenses.base import Published
from core.eps_schedules import AnyEpsSchedule
from core.models import AnyArchitecture, Architecture
from core.optimizers import AnyOptimizer
from core.registry import Entry
from core.schedules import AnySchedule
from core.suites import SuiteName
from core.threat import Norm, ThreatModel

DEFAULT_EPS: dict[str, dict[str, Any]] = {
    "grey28": {"eps": 0.1},
    "cifar": {"eps": "8/255"},
    "imagenet": {"eps": "2/255"},
    "custom": {},
}
"""Linf radius by kind of image where the spec is silent: Fashion-MNIST, CIFAR, and the ImageNet rows of the papers."""

Channel = Annotated[float, Field(ge=-1000, le=1000)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelSpec(_Part):
    """The network and the normalisation it was trained with."""

    architecture: AnyArchitecture = Field(
        description='A name from GET /architectures, "timm/NAME", "torchvision/NAME" or {"sequential": [...]}.'
    )
    weights: Literal["uploaded", "random"] = Field(
        "uploaded", description='What training starts from: the checkpoint, or "random", training from scratch.'
    )
    num_classes: int | None = Field(None, ge=2, le=100_000, description="Read from the checkpoint if left out.")
    mean: tuple[Channel, ...] | None = Field(
        None, max_length=16, description="Normalisation, one value a channel or one for all; none if left out."
    )
    std: tuple[Annotated[float, Field(gt=0, le=1000)], ...] | None = Field(None, max_length=16, description="See mean.")

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _of_one_channel(cls, value: Any) -> Any:
        return (value,) if isinstance(value, (int, float)) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _one_value_a_channel(self) -> ModelSpec:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together: give both, or neither")
        if self.mean is not None and self.std is not None and len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} values and std {len(self.std)}; give one a channel")
        return self


class DataSpec(_Part):
    """Where images and labels come from and how they are brought to one size."""

    format: Literal["npz", "imagefolder", "parquet", "webdataset"] | None = Field(
        None, description="Format of the uploaded data; told from the file if left out."
    )
    dataset: str | None = Field(None, max_length=200, description="A name from GET /datasets, in place of an upload.")
    resize: int | None = Field(None, ge=8, le=1024, description="Image files: shorter side after resizing.")
    crop: int | None = Field(None, ge=8, le=1024, description="Image files: side of the central crop.")
    interpolation: Literal["bilinear", "bicubic", "nearest"] = Field("bilinear", description="For resize.")


class TrainingSpec(_Part):
    """How to fine-tune; what is left out is the defense's published set-up."""

    epochs: int = Field(ge=1, le=10_000, description="Passes over the training data.")
    samples: int | None = Field(
        None, ge=2, description="Training images to use, drawn by the seed; null: all, without those held out."
    )
    batch_size: int = Field(ge=1, le=65_536, description="Images in a batch.")
    optimizer: AnyOptimizer
    schedule: AnySchedule
    eps_schedule: AnyEpsSchedule = Field(description="Strength of the training adversary over the run.")
    augment: tuple[Augmentation, ...] = Field(description="Drawn anew for every training batch.")
    label_smoothing: float = Field(0, ge=0, lt=1, description="Share of the target spread over all classes.")
    clip_norm: float | None = Field(None, gt=0, description="Largest norm of the whole gradient; null: not clipped.")
    ema: float | None = Field(
        None, gt=0, lt=1, description="Decay of the moving average of the weights, which then ships; null: no average."
    )
    mixed_precision: bool = Field(False, description="Train in bfloat16 where that is safe; worth it on CUDA.")
    patience: int | None = Field(
        None, ge=1, description="End after so many epochs without better held-out robustness; null: run to the end."
    )
    select: Literal["robust", "last"] = Field(
        description='Which epoch ships: "robust", best PGD-10 accuracy on held-out training images; or "last".'
    )
    held_out: int = Field(
        500,
        ge=1,
        le=100_000,
        description="Training images held out for curves and choice; at most a tenth of them.",
    )

    @field_validator("augment")
    @classmethod
    def _each_once(cls, augment: tuple[Augmentation, ...]) -> tuple[Augmentation, ...]:
        if len(set(augment)) < len(augment):
            raise ValueError("name each augmentation once")
        return augment


class EvaluationSpec(_Part):
    """How robustness is measured, before and after."""

    suite: SuiteName = Field("quick", description="A named list of attacks.")
    samples: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="Test images to evaluate; all, if there are fewer. Every job with the same data takes the same "
        "ones, and a larger number takes them and more.",
    )
    batch_size: int | None = Field(
        None, ge=1, le=65_536, description="Images in a batch; results do not depend on it. Chosen by device if null."
    )
    corruptions: bool = Field(False, description="Also measure accuracy under 19 common corruptions.")
    diagnose: bool = Field(True, description="Check whether the robustness is real; no verdict of robust without.")
    allow_low_baseline: bool = Field(
        False,
        description="Go on even if the uploaded checkpoint's clean accuracy is near chance, or far better with another "
        "normalisation, image size or order of the classes.",
    )


class JobSpec(_Part):
    """A whole job. The stored form shows every default."""

    name: str | None = Field(None, max_length=200, description="For people.")
    tags: dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=256)]] = Field(
        default_factory=dict, max_length=32, description="For people and filters."
    )
    model: ModelSpec
    data: DataSpec = DataSpec()
    threat: ThreatModel
    defense: AnyDefense
    training: TrainingSpec | None = Field(None, description="null for a defense that does not train.")
    evaluation: EvaluationSpec = EvaluationSpec()
    seed: int = Field(0, ge=0, lt=2**53, description="Everything random follows from it.")
    queue: Literal["cpu", "gpu", "gpu-large"] | None = Field(
        None, description="Which workers may run it; null: those that the service uses by default."
    )
    max_minutes: float | None = Field(
        None, gt=0, le=100_000, description="The job fails once it has run this long, over all attempts; null: no end."
    )
    expires_after: int | None = Field(
        None,
        ge=1,
        le=10 * 366 * 86400,
        description="Seconds after its end until the job and its files are deleted; null: as the service is set.",
    )
    devices: int = Field(
        1, ge=1, le=64, description="GPUs to share the work of a batch; without any GPU, as many processes."
    )

    @model_validator(mode="before")
    @classmethod
    def _published_defaults(cls, data: Any) -> Any:
        """Fill what the spec leaves out, before the fields are validated one by one."""
        if not isinstance(data, dict):
            return data
        architecture, defense = _architecture(data), _defense_class(data)
        if architecture is None or defense is None:
            # the fields' own validation says what is wrong; a missing eps is not among it
            return {"threat": {"eps": 0}, **data}
        published = defense.published(architecture.domain, small=architecture.small)
        filled = dict(data)
        filled["defense"] = merge(merge(_inner_names(defense), published.parameters), _as_dict(data["defense"]))
        filled["threat"] = _fill_threat(architecture, data.get("threat"))
        if defense.trains:
            filled["training"] = _fill_training(published, data.get("training"))
        elif defense.searches and data.get("training") is not None:
            raise ValueError(
                f"defense {defense.names()[0]!r} chooses how each candidate is trained: leave out training"
            )
        elif data.get("training") is not None:
            raise ValueError(f"defense {defense.names()[0]!r} does not train: leave out training")
        return filled

    @model_validator(mode="after")
    def _fits_together(self) -> JobSpec:
        """Refuse what the defense cannot do, before anything is stored."""
        defense, training = self.defense, self.training
        if self.threat.norm == "linf" and self.threat.eps > 1:
            meant = f"; {self.threat.eps:g} levels of 255 are {self.threat.eps:g}/255" if self.threat.eps < 255 else ""
            raise ValueError(f"threat.eps: pixels are from 0 to 1, and an eps of 1 changes any image into any{meant}")
        if defense.searches and self.devices > 1:
            raise ValueError(f"defense {defense.name!r} runs on one device: set devices to 1")
        if not (defense.trains or defense.searches) and self.model.weights == "random":
            raise ValueError('defense "none" only evaluates: random weights (model.weights) have nothing to show')
        if self.model.weights == "random" and self.model.num_classes is None:
            raise ValueError("model.num_classes: without a checkpoint to read it from, say how many classes there are")
        if defense.trains and self.threat.norm not in defense.norms:
            known = ", ".join(sorted(defense.norms))
            raise ValueError(f"defense {defense.name!r} does not support norm {self.threat.norm!r}; it knows: {known}")
        if training is None:
            return self
        if not defense.has_adversary and training.eps_schedule.name != "constant":
            raise ValueError(f"defense {defense.name!r} has no adversary: leave out training.eps_schedule")
        if not defense.has_adversary and training.patience is not None:
            raise ValueError(
                f"defense {defense.name!r} has no adversary, and training.patience waits for robustness: leave it out"
            )
        if defense.undoes_augmentation and "resized-crop" in training.augment:
            raise ValueError(
                f"defense {defense.name!r} has to undo the augmentation, which resized-crop does not allow; "
                'use training.augment ["crop", "flip"], or none'
            )
        return self

    @property
    def epochs(self) -> int:
        """Epochs of the training loop: fewer than ``training.epochs`` for a defense that replays each batch."""
        return math.ceil(self.training.epochs / self.defense.passes) if self.training else 0

    @property
    def held_out(self) -> int | None:
        """Training images to hold out, at most; None if nothing is trained."""
        if isinstance(self.defense, Auto):
            return self.defense.held_out
        return self.training.held_out if self.training else None

    def fb_per_example(self, epoch: int) -> int:
        """Forward-backward passes on one training example in an epoch of the loop, by its strength at the start."""
        if self.training is None:
            return 0
        return self.defense.fb_per_example(self.training.eps_schedule.factor(epoch / self.epochs))

    def computation(self) -> dict[str, Any]:
        """What the job computes: its algorithms with all their fields, of the rest what differs from the defaults.

        Names and where it runs change nothing, and neither does a field that a later version adds.
        """
        said: dict[str, Any] = {"defense": self.defense.model_dump(mode="json"), "seed": self.seed}
        for name in ("model", "data", "threat", "training", "evaluation"):
            part = getattr(self, name)
            if part is not None:
                content = part.model_dump(mode="json")
                defaults = {key: field.default for key, field in type(part).model_fields.items()}
                said[name] = {key: value for key, value in content.items() if getattr(part, key) != defaults[key]}
        return said

    def digest(self) -> str:
        """SHA-256 of what the job computes: saved state belongs to exactly one."""
        return hashlib.sha256(json.dumps(self.computation(), sort_keys=True).encode()).hexdigest()


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid over ``base``, objects merged key by key.

    A bare string below an object is the name of an algorithm. An object with another ``name`` replaces the one below:
    its fields belong to another algorithm.
    """
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(value, dict) and isinstance(below, str):
            below = {"name": below}
        if isinstance(below, dict) and isinstance(value, dict):
            other = "name" in value and value["name"] != below.get("name")
            value = value if other else merge(below, value)
        result[key] = value
    return result


def _as_dict(value: Any) -> dict[str, Any]:
    return {"name": value} if isinstance(value, str) else dict(value)


def _inner_names(defense: type[Defense]) -> dict[str, Any]:
    """The names of the algorithms inside a defense, so that their parameters can be given alone."""
    defaults = {key: field.default for key, field in defense.model_fields.items()}
    return {key: {"name": default.name} for key, default in defaults.items() if isinstance(default, Entry)}


def _fill_threat(architecture: Architecture, given: Any) -> Any:
    if given is not None and not isinstance(given, dict):
        return given
    threat = {"norm": "linf", **(given or {})}
    if not isinstance(threat["norm"], str):
        return threat
    # the defaults are linf radii: another norm has to bring its own
    brings_its_own = threat["norm"] in set(get_args(Norm)) - {"linf"}
    return threat if brings_its_own else {**DEFAULT_EPS[architecture.domain], **threat}


def _architecture(data: dict[str, Any]) -> Architecture | None:
    model = data.get("model")
    if not isinstance(model, dict) or "architecture" not in model:
        return None
    try:
        architecture: Architecture = TypeAdapter(AnyArchitecture).validate_python(model["architecture"])
    except ValidationError:
        return None
    return architecture


def _defense_class(data: dict[str, Any]) -> type[Defense] | None:
    given = data.get("defense")
    name = given.get("name") if isinstance(given, dict) else given
    return DEFENSES[name] if isinstance(name, str) and name in DEFENSES else None


def _fill_training(published: Published, given: Any) -> Any:
    if given is not None and not isinstance(given, dict):
        return given
    training = dict(given or {})
    optimizer = training.get("optimizer", published.optimizer)
    optimizer = {"name": optimizer} if isinstance(optimizer, str) else optimizer
    if isinstance(optimizer, dict) and (lr := published.lr.get(str(optimizer.get("name", published.optimizer)))):
        optimizer = {
            "name": published.optimizer,
            "lr": lr,
            "weight_decay": published.weight_decay,
            **optimizer,
        }
    defaults = {
        "epochs": published.epochs,
        "batch_size": published.batch_size,
        "schedule": dict(published.schedule),
        "eps_schedule": dict(published.eps_schedule),
        "augment": published.augment,
        "select": published.select,
    }
    return merge(defaults, {**training, "optimizer": optimizer})

"""The jobs that stand for a candidate of ``auto``: its published set-up, with the rates that were measured to pay."""

from __future__ import annotations

from typing import Any

from core.defenses.auto import Auto
from core.errors import UnsupportedError
from core.models import Architecture
from core.spec import JobSpec
from core.threat import ThreatModel

_UNDER_MUON = ("aft", "ifgsm-at", "mart", "mixed", "pgd-at", "rst", "trades")
_UNDER_ADAM = {"atta": 0.02, "dra": 0.01, "fast-at": 0.02, "fgsm-at": 0.02, "free-at": 0.005, "yopo": 0.02}
_FEW_STEPS: dict[str, dict[str, Any]] = {
    "aft": {"steps": 5},
    "mart": {"attack": {"name": "pgd", "steps": 4}},
    "mixed": {"attack": {"name": "pgd", "steps": 4}},
    "rst": {"attack": {"name": "pgd", "steps": 4}},
    "trades": {"attack": {"name": "kl-pgd", "steps": 4}},
}


def candidate(job: JobSpec, name: str, *, fb: float, images: int, samples: int | None = None) -> JobSpec:
    """The job that trains one candidate of an ``auto`` job with about ``fb`` passes on so many images.

    ``samples``: they are a part of all, and as many; the same epochs on more images are another training.

    Raises: UnsupportedError if the candidate cannot do what the job asks.
    """
    auto = job.defense
    if not isinstance(auto, Auto):
        raise TypeError(f"defense {auto.name!r} has no candidates")
    content = job.model_dump(mode="json", exclude={"defense", "training"})
    content["defense"] = {"name": name, **_FEW_STEPS.get(name, {}), **_dra(name, job.threat)}
    fixed = {"epochs": 1, "held_out": auto.held_out, "select": "robust", "samples": samples}
    training = {**set_up(name, job.model.architecture), **fixed}
    try:
        spec = JobSpec.model_validate({**content, "training": training})
    except ValueError as error:  # pydantic's own is one
        raise UnsupportedError(f"candidate {name!r} cannot do this job: {error}") from error
    return _as_long_as(spec, fb / images)


def set_up(name: str, architecture: Architecture) -> dict[str, Any]:
    """What a candidate's training has in place of the published set-up; docs/results.md has the measurements.

    They are of small networks: larger ones take a fifth of Muon's rate, as ``temper`` does, and published Adam.
    """
    small = architecture.small
    batch: dict[str, Any] = {"batch_size": 64} if small else {}
    if name in _UNDER_MUON:
        return {"optimizer": {"name": "muon", "lr": 1e-2 if small else 2e-3}, "schedule": "cyclic", **batch}
    if name in _UNDER_ADAM:
        rate = {"lr": _UNDER_ADAM[name]} if small else {}
        schedule = "cyclic" if name == "fast-at" else "slow-start-fast-decay"
        decay = {"eps_schedule": {"name": "decay", "final": 0.4, "until": 1}} if name == "dra" else {}
        return {"optimizer": {"name": "adam", "weight_decay": 0, **rate}, "schedule": schedule, **decay, **batch}
    return batch


def _dra(name: str, threat: ThreatModel) -> dict[str, Any]:
    """DRA is not bound by the threat: its mean change follows the radius, as it does where it was measured."""
    if name != "dra" or threat.norm != "linf":
        return {}
    return {"attack": {"name": "dra", "mean_change": min(1.0, 0.4 * threat.eps), "p": 1 / 3, "steps": 4}}


def _as_long_as(spec: JobSpec, fb_per_image: float) -> JobSpec:
    """The same with as many epochs as ``fb_per_image`` passes on each image pay for, and at least one."""
    longest = spec
    while fb_of(spec) <= fb_per_image:
        longest, spec = spec, with_epochs(spec, spec.epochs + 1)
    return longest


def with_epochs(spec: JobSpec, epochs: int) -> JobSpec:
    """The same job with so many epochs of the loop."""
    if spec.training is None:
        raise TypeError("nothing is trained")
    training = spec.training.model_copy(update={"epochs": epochs * spec.defense.passes})
    return spec.model_copy(update={"training": training})


def fb_of(spec: JobSpec) -> int:
    """Passes on each training image in the whole training."""
    return sum(spec.fb_per_example(epoch) for epoch in range(spec.epochs))

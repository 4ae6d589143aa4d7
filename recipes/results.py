"""What a run of a recipe came to, as JSON that is kept, and as rows of a table."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from core.report import EpochCurve, Report
from core.spec import TrainingSpec
from recipes.catalog import RecipeError, load
from recipes.correct import Correct, Mask, SideMasks
from recipes.runner import ROOT, Bench, Ran, evaluate, run_recipe

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


def identity(name: str, seed: int = 0) -> str:
    """SHA-256 of what a recipe, and what it starts from, compute."""
    recipe = load(name)
    said = recipe.resolve({"seed": seed}).computation()
    said["start"] = identity(recipe.start) if recipe.start else None
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


class UnderAttack(BaseModel):
    """One attack of the recipe's own suite."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    params: dict[str, Any]
    eps: float
    correct: Correct


class Result(BaseModel):
    """One recipe, one seed. ``samples``: the test images asked for. ``standard`` is null if it was not asked for.

    ``commit``: of this repository when it ran. ``choosing_fb``: spent on choosing the epoch, beside ``fb``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str
    title: str
    defense: str
    optimizer: str
    seed: int
    spec_sha256: str
    commit: str | None
    samples: int
    images_sha256: str
    before_clean: Correct
    clean: Correct
    attacks: tuple[UnderAttack, ...]
    robust: Correct
    standard: Correct | None
    before_corruptions_hou: float | None = None
    corruptions_hou: float | None
    verdict: str
    stopped: str | None
    selected_epoch: int
    curves: tuple[EpochCurve, ...]
    fb: int
    choosing_fb: int
    seconds: float
    machine: str
    torch: str

    @property
    def strongest(self) -> Correct:
        """The worst case of the strongest suite that it went through."""
        return self.standard or self.robust

    def under(self, name: str, eps: float) -> Correct:
        """What is left under an attack of its suite."""
        return next(a.correct for a in self.attacks if a.name == name and abs(a.eps - eps) < 1e-9)


def obtain(
    name: str, bench: Bench, *, seed: int, samples: int | None, standard: int | None, checkpoint: Path | None = None
) -> Result:
    """Run a recipe, or take its finished run.

    Args:
        samples: test images for the recipe's own suite, in place of its own number.
        standard: test images for suite ``standard``; None: not run.
    """
    ran = run_recipe(name, bench, seed=seed, checkpoint=checkpoint)
    if ran.report.after is None:
        raise RecipeError(f"recipe {name!r} trains nothing, so there is nothing to compare")
    measured = evaluate(ran, ran.report.suite, samples, bench) if samples else ran
    strong = evaluate(ran, "standard", standard, bench) if standard else None
    return _result(ran, measured, _masks(strong, "before").robust if strong else None)


def _masks(ran: Ran, side: str) -> SideMasks:
    return SideMasks(ran.workdir.output / "images.parquet", side)


def _result(ran: Ran, measured: Ran, standard: Mask | None) -> Result:
    report, training, spec = ran.report, ran.report.training, ran.report.spec
    side, masks = measured.report.before, _masks(measured, "before")
    if measured is ran and report.after is not None:
        side, masks = report.after, _masks(ran, "after")
    cost, validation = report.cost.phases["training"], report.cost.phases.get("validation")
    attacks = (
        UnderAttack(name=a.name, params=a.params, eps=a.threat.eps, correct=Correct.of(masks.under(number, a)))
        for number, a in enumerate(side.attacks, 1)
    )
    return Result(
        recipe=ran.recipe.name,
        title=ran.recipe.title,
        defense=spec.defense.name,
        optimizer=_optimizer(spec.training) if spec.training else "",
        seed=ran.seed,
        spec_sha256=identity(ran.recipe.name, ran.seed),
        commit=_commit(),
        samples=measured.report.spec.evaluation.samples,
        images_sha256=measured.report.images.ids_sha256,
        before_clean=Correct.of(_masks(ran, "before").clean),
        clean=Correct.of(masks.clean),
        attacks=tuple(attacks),
        robust=Correct.of(masks.robust),
        standard=Correct.of(standard) if standard is not None else None,
        before_corruptions_hou=report.before.corruptions.mean_hou if report.before.corruptions else None,
        corruptions_hou=side.corruptions.mean_hou if side.corruptions else None,
        verdict=report.verdict.kind,
        stopped=training.stopped if training else None,
        selected_epoch=training.selected_epoch if training else 0,
        curves=training.curves if training else (),
        fb=cost.fb,
        choosing_fb=validation.fb if validation else 0,
        seconds=cost.seconds,
        machine=_machine(report),
        torch=report.environment["torch"],
    )


def _optimizer(training: TrainingSpec) -> str:
    return f"{training.optimizer.name} {training.optimizer.lr:g}, {training.schedule.name}"


def _machine(report: Report) -> str:
    environment = report.environment
    return f"{environment['device']}, {platform.machine()}, {os.cpu_count()} cores, {environment['threads']} thread(s)"


def _commit() -> str | None:
    """None outside a checkout of the repository."""
    asked = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=ROOT)  # noqa: S607
    return asked.stdout.strip() or None


def keep(result: Result, study: str) -> Path:
    """Write it where results are kept."""
    path = kept_path(study, result.recipe, result.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(result.model_dump_json(indent=1) + "\n")
    temporary.replace(path)
    return path


def kept_path(study: str, recipe: str, seed: int) -> Path:
    """Where the result of a recipe in a study is kept."""
    return RESULTS / study / f"{recipe.replace('/', '.')}.seed-{seed}.json"


def read(study: str, recipe: str, seed: int, samples: int | None, standard: int | None) -> Result | None:
    """A kept result; None if there is none, if the recipe has changed since, or if it saw other numbers of images."""
    try:
        result = Result.model_validate_json(kept_path(study, recipe, seed).read_bytes())
    except (FileNotFoundError, ValidationError):  # missing, or written by another version: made again
        return None
    asked = samples or load(recipe).resolve().evaluation.samples
    if result.spec_sha256 != identity(recipe, seed) or result.samples != asked:
        return None
    if standard is None:
        return result.model_copy(update={"standard": None})
    return result if result.standard is not None and result.standard.total == standard else None

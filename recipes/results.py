"""What a run of a recipe came to, as JSON that is kept, and as rows of a table."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from core.report import Count, EpochCurve, Side
from recipes.catalog import PublishedRow, RecipeError, load
from recipes.runner import Bench, Ran, evaluate, run_recipe

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


def identity(name: str, seed: int = 0) -> str:
    """SHA-256 of what a recipe, and what it starts from, say otherwise than by default.

    A new field with a default changes nothing. Algorithms (defense, optimizer, schedules, architecture) count with all
    their fields.
    """
    recipe = load(name)
    spec = recipe.resolve({"seed": seed})
    said: dict[str, Any] = {"defense": spec.defense.model_dump(mode="json"), "seed": seed}
    said["start"] = identity(recipe.start) if recipe.start else None
    for part_name in ("model", "data", "threat", "training", "evaluation"):
        part = getattr(spec, part_name)
        if part is not None:
            content = part.model_dump(mode="json")
            defaults = {key: field.default for key, field in type(part).model_fields.items()}
            said[part_name] = {key: value for key, value in content.items() if getattr(part, key) != defaults[key]}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


class AttackAccuracy(BaseModel):
    """Accuracy under one attack of the recipe's own suite."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    eps: float
    count: Count


class Result(BaseModel):
    """One recipe, one seed. ``standard`` is null if it was not asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str
    title: str
    method: str | None
    defense: str
    seed: int
    spec_sha256: str
    published: tuple[PublishedRow, ...]
    before_clean: Count
    clean: Count
    attacks: tuple[AttackAccuracy, ...]
    robust: Count
    standard: Count | None
    corruptions_hou: float | None
    verdict: str
    stopped: str | None
    selected_epoch: int
    curves: tuple[EpochCurve, ...]
    fb: int
    seconds: float
    machine: str
    torch: str

    @property
    def strongest(self) -> Count:
        """The worst case of the strongest suite that it went through."""
        return self.standard or self.robust


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
    side = evaluate(ran, ran.report.suite, samples, bench).before if samples else ran.report.after
    strong = evaluate(ran, "standard", standard, bench).before.robust if standard else None
    return _result(ran, side, strong)


def _result(ran: Ran, side: Side, standard: Count | None) -> Result:
    report, training = ran.report, ran.report.training
    cost = report.cost.phases["training"]
    return Result(
        recipe=ran.recipe.name,
        title=ran.recipe.title,
        method=ran.recipe.method,
        defense=report.spec.defense.name,
        seed=ran.seed,
        spec_sha256=identity(ran.recipe.name, ran.seed),
        published=ran.recipe.published,
        before_clean=report.before.clean,
        clean=side.clean,
        attacks=tuple(
            AttackAccuracy(name=a.name, eps=a.threat.eps, count=Count.of(a.correct, a.total)) for a in side.attacks
        ),
        robust=side.robust,
        standard=standard,
        corruptions_hou=side.corruptions.mean_hou if side.corruptions else None,
        verdict=report.verdict.kind,
        stopped=training.stopped if training else None,
        selected_epoch=training.selected_epoch if training else 0,
        curves=training.curves if training else (),
        fb=cost.fb,
        seconds=cost.seconds,
        machine=f"{report.environment['device']}, {platform.machine()}, {os.cpu_count()} cores, "
        f"{report.environment['threads']} thread(s)",
        torch=report.environment["torch"],
    )


def keep(result: Result, study: str) -> Path:
    """Write it where results are kept."""
    path = kept_path(study, result.recipe, result.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(result.model_dump_json(indent=1) + "\n")
    return path


def kept_path(study: str, recipe: str, seed: int) -> Path:
    """Where the result of a recipe in a study is kept."""
    return RESULTS / study / f"{recipe.replace('/', '.')}.seed-{seed}.json"


def read(study: str, recipe: str, seed: int, samples: int | None, standard: int | None) -> Result | None:
    """A kept result; None if there is none, if the recipe has changed since, or if it saw other numbers of images."""
    path = kept_path(study, recipe, seed)
    if not path.exists():
        return None
    result = Result.model_validate_json(path.read_bytes())
    as_asked = standard is None or (result.standard is not None and result.standard.total == standard)
    as_asked &= samples is None or result.clean.total == samples
    return result if as_asked and result.spec_sha256 == identity(recipe, seed) else None

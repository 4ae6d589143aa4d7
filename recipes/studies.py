"""docs/results.md: studies run, and written down, by one command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field

from core.errors import RunError
from recipes.catalog import RecipeError
from recipes.claims import CLAIMS
from recipes.results import Result, keep, obtain, read
from recipes.runner import Bench
from recipes.tables import comparison, repeated

STUDIES = Path(__file__).parent / "_studies"
PAGE = Path(__file__).parents[1] / "docs" / "results.md"

_HEAD = """# Results

Written by `python -m recipes results`; every number comes from `benchmarks/results/`, every run from a recipe. Under
each title it says how many test images were attacked; an accuracy on 1,000 images has a 95% interval of at most 3.1
points to either side, on 400 images of 4.9. All networks of a study meet the same images, and the 400 are among the
1,000. "standard" is AutoAttack's standard version as this project implements it. FB counts forward and backward
passes on one example in training; "choosing FB" those that choose among the epochs by held-out images, which are
beside the budget. The same command gives the same numbers on the same kind of processor; another one rounds
otherwise, which changes them as another seed would. Seconds were measured on shared cores and are no benchmark.
Fine-tuning holds images out of its own training set; the clean checkpoint has seen them.

What the papers claim **holds** or **does not hold** here if the difference on the same test images is beyond chance
(McNemar's exact test, 95%), and is **undecided** otherwise. That knows the chance in the draw of the images; how much
another seed of the training changes is measured only where seeds are named.
"""


class Repeat(BaseModel):
    """Which recipes of a study are run with more seeds, on how many test images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    best: int = Field(ge=1, description="How many, by the worst case of the strongest suite at seed 0.")
    seeds: tuple[int, ...]
    samples: int


class Study(BaseModel):
    """Recipes that are compared under one evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    text: str
    recipes: tuple[str, ...]
    standard: int | None = Field(None, description="Test images for suite standard; null: not run.")
    curves: bool = Field(False, description="Also robustness on training and held-out images after the last epoch.")
    repeat: Repeat | None = None


def studies() -> list[Study]:
    """All studies, in the order of their files."""
    return [
        Study.model_validate({**yaml.safe_load(path.read_text()), "name": path.stem.partition("-")[2]})
        for path in sorted(STUDIES.glob("*.yaml"))
    ]


@dataclass(frozen=True)
class Findings:
    """All results of a study: one a recipe, and those of the repeated ones by seed."""

    results: tuple[Result, ...]
    repeated: tuple[tuple[Result, ...], ...] = ()


def kept(study: Study) -> Findings | None:
    """The findings from the kept results alone; None if one is missing."""
    results = _read_all(study.name, [(name, 0) for name in study.recipes], None, study.standard)
    if results is None or study.repeat is None:
        return Findings(results) if results is not None else None
    again = []
    for name in best(study.repeat, results):
        seeds = _read_all(
            f"{study.name}-seeds", [(name, seed) for seed in study.repeat.seeds], study.repeat.samples, None
        )
        if seeds is None:
            return None
        again.append(seeds)
    return Findings(results, tuple(again))


def run_study(study: Study, bench: Bench) -> Findings | None:
    """Run what is missing, and keep it; None if a recipe failed, which is told and keeps no other from running."""
    for name in study.recipes:
        _make(study.name, name, 0, None, study.standard, bench)
    results = _read_all(study.name, [(name, 0) for name in study.recipes], None, study.standard)
    if results is not None and study.repeat is not None:
        for name in best(study.repeat, results):
            for seed in study.repeat.seeds:
                _make(f"{study.name}-seeds", name, seed, study.repeat.samples, None, bench)
    return kept(study)


def best(repeat: Repeat, results: Sequence[Result]) -> list[str]:
    """Names of the recipes that run again with more seeds."""
    ordered = sorted(results, key=lambda result: result.strongest.accuracy, reverse=True)
    return [result.recipe for result in ordered[: repeat.best]]


def _read_all(
    folder: str, runs: Sequence[tuple[str, int]], samples: int | None, standard: int | None
) -> tuple[Result, ...] | None:
    found = [read(folder, name, seed, samples, standard) for name, seed in runs]
    results = tuple(result for result in found if result is not None)
    if len({result.images_sha256 for result in results}) > 1:
        raise RecipeError(f"results of {folder!r} saw different test images: delete those that are out of date")
    return results if len(results) == len(runs) else None


def _make(folder: str, name: str, seed: int, samples: int | None, standard: int | None, bench: Bench) -> None:
    if read(folder, name, seed, samples, standard) is not None:
        return
    try:
        keep(obtain(name, bench, seed=seed, samples=samples, standard=standard), folder)
    except RunError as error:
        bench.tell(f"{name}, seed {seed}, failed: {error.code}: {error.detail}")


def section(study: Study, findings: Findings) -> str:
    """The study's part of the page."""
    parts = [f"## {study.title}", study.text.strip(), comparison(findings.results, curves=study.curves)]
    if study.repeat:
        parts += [
            f"The {study.repeat.best} best by seed 0, trained again with seeds "
            f"{', '.join(map(str, study.repeat.seeds))}, under the recipe's own suite on {study.repeat.samples:,} test "
            "images:",
            repeated(findings.repeated),
        ]
    claims = [claim(findings.results) for claim in CLAIMS.get(study.name, ())]
    if claims:
        parts.append("\n".join(f"- {claim}" for claim in claims))
    return "\n\n".join(parts) + "\n"


def page() -> str:
    """The whole page from the kept results; it says which studies have not been run to their end."""
    parts, missing = [_HEAD], []
    for study in studies():
        findings = kept(study)
        if findings is not None:
            parts.append(section(study, findings))
            continue
        so_far = [read(study.name, name, 0, None, study.standard) for name in study.recipes]
        results = [result for result in so_far if result is not None]
        missing.append(f"- {study.title}")
        if results:
            table = comparison(results, curves=study.curves)
            missing[-1] += f": {len(results)} of {len(so_far)} recipes so far. {study.text}\n{table}\n"
    if missing:
        parts.append("## Not run to its end yet\n\n" + "\n".join(missing) + "\n")
    return "\n".join(parts)

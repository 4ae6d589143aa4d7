"""docs/results.md: studies run, and written down, by one command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field

from recipes.claims import CLAIMS
from recipes.results import Result, keep, obtain, read
from recipes.runner import Bench
from recipes.tables import comparison, repeated

STUDIES = Path(__file__).parent / "_studies"
PAGE = Path(__file__).parents[1] / "docs" / "results.md"

_HEAD = """# Results

Written by `python -m recipes results`; every number comes from `benchmarks/results/`, every run from a recipe. Under
each title it says how many test images were attacked; an accuracy on 1,000 images has a 95% interval of at most 3.1
points to either side, on 400 images of 4.9. "standard" is AutoAttack's standard version as this project implements it.
FB counts forward and backward passes on one example in training. Seconds were measured on shared cores and are no
benchmark. Fine-tuning holds images out of its own training set; the clean checkpoint has seen them.
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

    def look(recipe: str, seed: int, samples: int | None, standard: int | None, folder: str) -> Result:
        result = read(folder, recipe, seed, samples, standard)
        if result is None:
            raise LookupError(recipe)
        return result

    try:
        return _gather(study, look)
    except LookupError:
        return None


def run_study(study: Study, bench: Bench) -> Findings:
    """Run what is missing, and keep it."""

    def make(recipe: str, seed: int, samples: int | None, standard: int | None, folder: str) -> Result:
        result = read(folder, recipe, seed, samples, standard)
        if result is None:
            result = obtain(recipe, bench, seed=seed, samples=samples, standard=standard)
            keep(result, folder)
        return result

    return _gather(study, make)


Obtain = Callable[[str, int, int | None, int | None, str], Result]


def _gather(study: Study, obtain: Obtain) -> Findings:
    results = tuple(obtain(name, 0, None, study.standard, study.name) for name in study.recipes)
    if study.repeat is None:
        return Findings(results)
    repeat, folder = study.repeat, f"{study.name}-seeds"
    best = sorted(results, key=lambda result: result.strongest.accuracy, reverse=True)[: repeat.best]
    return Findings(
        results,
        tuple(
            tuple(obtain(result.recipe, seed, repeat.samples, None, folder) for seed in repeat.seeds) for result in best
        ),
    )


def section(study: Study, findings: Findings) -> str:
    """The study's part of the page."""
    parts = [f"## {study.title}", study.text.strip(), comparison(findings.results, curves=study.curves)]
    if study.repeat:
        parts += [
            f"The {study.repeat.best} best with {len(study.repeat.seeds)} seeds each, under the recipe's own suite on "
            f"{study.repeat.samples:,} test images:",
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
            missing[-1] += f": {len(results)} of {len(so_far)} recipes so far\n\n{comparison(results)}\n"
    if missing:
        parts.append("## Not run to its end yet\n\n" + "\n".join(missing) + "\n")
    return "\n".join(parts)

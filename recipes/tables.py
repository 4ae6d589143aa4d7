"""Results as Markdown tables."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from recipes.catalog import Recipe, load
from recipes.results import Result, UnderAttack


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; all columns but the first are right-aligned."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def comparison(results: Sequence[Result], *, curves: bool = False) -> str:
    """Method, clean, each attack of the suite, suite standard, FB, seconds, beside what was published.

    ``curves`` adds PGD-10 on training and on held-out images after the last epoch.
    """
    attacks = list(dict.fromkeys(_attack(a) for result in results for a in result.attacks))
    standard = {result.standard.total for result in results if result.standard}
    with_corruptions = any(result.corruptions_hou is not None for result in results)
    with_published = any(load(result.recipe).published for result in results)
    header = ["recipe", "optimizer, peak rate, schedule", "clean", *attacks]
    header += ["train, PGD-10", "held-out, PGD-10"] * curves
    header += [f"standard, {'/'.join(map(str, sorted(standard)))} images"] * bool(standard)
    header += ["six corruptions"] * with_corruptions + ["FB", "choosing FB", "seconds"]
    header += ["published: clean; under attack"] * with_published
    rows = []
    for result in results:
        by_attack = {_attack(a): a.correct.accuracy for a in result.attacks}
        row = [_label(result), result.optimizer, percent(result.clean.accuracy)]
        row += [percent(by_attack.get(attack)) for attack in attacks]
        row += [percent(s) for s in (result.curves[-1].train_robust, result.curves[-1].held_out_robust)] * curves
        row += [percent(result.standard.accuracy if result.standard else None)] * bool(standard)
        row += [percent(result.corruptions_hou)] * with_corruptions
        row += [f"{result.fb:,}", f"{result.choosing_fb:,}", f"{result.seconds:,.0f}"]
        row += [_published(load(result.recipe))] * with_published
        rows.append(row)
    return markdown(header, rows)


def _attack(under: UnderAttack) -> str:
    """For example "pgd-20, step eps/4, eps 0.1, 1,000 images"."""
    steps, step_size = under.params.get("steps"), under.params.get("step_size")
    name = under.name + (f"-{steps}" if steps else "") + (f", step {step_size}" if step_size else "")
    return f"{name}, eps {under.eps:.3g}, {under.correct.total:,} images"


def repeated(results: Sequence[Sequence[Result]]) -> str:
    """One row a recipe: mean over its seeds, and the spread from the smallest to the largest."""
    rows = []
    for seeds in results:
        clean, robust = ([getattr(r, side).accuracy for r in seeds] for side in ("clean", "robust"))
        rows.append([seeds[0].recipe, str(len(seeds)), mean_and_spread(clean), mean_and_spread(robust)])
    return markdown(["recipe", "seeds", "clean, mean (spread)", "worst case, mean (spread)"], rows)


def mean_and_spread(values: Sequence[float]) -> str:
    """For example "59.6% (0.8)": the mean, and largest minus smallest in points."""
    return f"{statistics.mean(values):.1%} ({100 * (max(values) - min(values)):.1f})"


def percent(share: float | None) -> str:
    """For example "59.6%"."""
    return "" if share is None else f"{share:.1%}"


def _label(result: Result) -> str:
    return result.recipe + (" (stopped: it collapsed)" if result.stopped == "catastrophic-overfitting" else "")


def _published(recipe: Recipe) -> str:
    clean = next((row.clean for row in recipe.published if row.clean is not None), None)
    robust = "; ".join(f"{row.attack} {row.robust:g}" for row in recipe.published if row.robust is not None)
    return "; ".join(part for part in (f"{clean:g}" if clean is not None else "", robust) if part)

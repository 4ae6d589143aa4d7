"""Results as Markdown tables."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from recipes.results import Result


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; all columns but the first are right-aligned."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def comparison(results: Sequence[Result], *, curves: bool = False) -> str:
    """Method, clean, each attack of the suite, suite standard, FB, seconds, beside what was published.

    ``curves`` adds PGD-10 on training and on held-out images after the last epoch.
    """
    attacks = list(dict.fromkeys((a.name, a.eps) for result in results for a in result.attacks))
    names = [f"{name}, eps {eps:.3g}" for name, eps in attacks]
    with_standard = any(result.standard for result in results)
    with_corruptions = any(result.corruptions_hou is not None for result in results)
    with_published = any(result.published for result in results)
    header = ["recipe", "clean", *names]
    header += ["train, PGD-10", "held-out, PGD-10"] * curves
    header += ["standard"] * with_standard + ["six corruptions"] * with_corruptions + ["FB", "seconds"]
    header += ["published: clean; under attack"] * with_published
    rows = []
    for result in results:
        by_attack = {(a.name, a.eps): a.count.accuracy for a in result.attacks}
        row = [_label(result), percent(result.clean.accuracy), *(percent(by_attack.get(key)) for key in attacks)]
        row += [percent(s) for s in (result.curves[-1].train_robust, result.curves[-1].held_out_robust)] * curves
        row += [percent(result.standard.accuracy if result.standard else None)] * with_standard
        row += [percent(result.corruptions_hou)] * with_corruptions
        row += [f"{result.fb:,}", f"{result.seconds:,.0f}"] + [_published(result)] * with_published
        rows.append(row)
    return markdown(header, rows)


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


def _published(result: Result) -> str:
    clean = next((row.clean for row in result.published if row.clean is not None), None)
    robust = "; ".join(f"{row.attack} {row.robust:g}" for row in result.published if row.robust is not None)
    return "; ".join(part for part in (f"{clean:g}" if clean is not None else "", robust) if part)

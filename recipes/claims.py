"""What the papers claim, held against our results; each claim becomes one sentence with its numbers.

A claim holds or does not where the difference is beyond chance (95%, the two accuracies taken as independent, which is
on the careful side for the same images); otherwise it is undecided. All runs have one seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from core.report import Count
from recipes.results import Result

Claim = Callable[[Sequence[Result]], str]


def above(first: Count, second: Count) -> bool | None:
    """Whether the first accuracy is above the second; None if chance may have made the difference."""
    difference = first.accuracy - second.accuracy
    variance = sum(c.accuracy * (1 - c.accuracy) / c.total for c in (first, second))
    if abs(difference) <= 1.96 * math.sqrt(variance):
        return None
    return difference > 0


def _all(outcomes: Iterable[bool | None]) -> bool | None:
    """True if all are; False if one is; else undecided."""
    found = list(outcomes)
    return False if False in found else (None if None in found else True)


def _sentence(claim: str, outcome: bool | None, numbers: str) -> str:
    words = {True: "Holds", False: "Does not hold", None: "Undecided"}
    return f"{claim} **{words[outcome]}** here: {numbers}."


def _by_name(results: Sequence[Result]) -> dict[str, Result]:
    return {result.recipe.rpartition("/")[2]: result for result in results}


def _strongest(result: Result) -> Count:
    return result.strongest


def _robust(result: Result) -> Count:
    return result.robust


def _best(results: Iterable[Result], of: Callable[[Result], Count]) -> Result:
    return max(results, key=lambda result: of(result).accuracy)


def _short(result: Result) -> str:
    return f"`{result.recipe.rpartition('/')[2]}`"


def _p(count: Count) -> str:
    return f"{count.accuracy:.1%}"


def patch_augment_is_robust(results: Sequence[Result]) -> str:
    """Agarwal et al., table 1."""
    found = _by_name(results)["optimizer-adam"]
    pgd = next(a for a in found.attacks if a.name == "pgd").count
    return _sentence(
        "Agarwal et al.: a few epochs of patch augmentation leave 53.7% under PGD-10 at eps 0.3.",
        pgd.ci95[1] >= 0.5372,
        f"{_p(pgd)} under the paper's own PGD-10, {_p(found.robust)} in the worst case of its attacks",
    )


def optimizer_decides(results: Sequence[Result]) -> str:
    """Agarwal et al.: "role of optimizer"."""
    found = sorted(results, key=lambda result: result.robust.accuracy)
    least, most = found[0].robust, found[-1].robust
    return _sentence(
        "Agarwal et al.: the optimizer decides how robust the fine-tuned network is.",
        above(most, least) if most.accuracy - least.accuracy > 0.05 else False,
        ", ".join(f"{_short(result)} {_p(result.robust)}" for result in found) + " in the worst case",
    )


def aft_is_enough(results: Sequence[Result]) -> str:
    """Jeddi et al., table 1."""
    found = _by_name(results)
    best = _best((found[name] for name in ("pgd-at", "free-at", "fast-at", "yopo", "atta")), _strongest)
    return _sentence(
        "Jeddi et al.: fine-tuning by `aft` is more robust than Madry's training, Free, Fast, YOPO and ATTA.",
        above(found["aft"].strongest, best.strongest),
        f"`aft` {_p(found['aft'].strongest)}, the best of the others, {_short(best)}, {_p(best.strongest)}; all are "
        "fine-tuned at one FB budget, at a learning rate chosen with `aft`",
    )


def slow_start_fast_decay_is_best(results: Sequence[Result]) -> str:
    """Jeddi et al., the ablation of step-LR(i, 0.5)."""
    found = _by_name(results)
    ours = found["schedule-slow-start-fast-decay"]
    best = _best((result for name, result in found.items() if name.startswith("schedule-step-")), _robust)

    def gap(result: Result) -> float:
        return 100 * (result.curves[-1].train_robust - result.curves[-1].held_out_robust)

    return _sentence(
        "Jeddi et al.: slow start and fast decay is more robust on test images than step-LR(i, 0.5) for every i.",
        above(ours.robust, best.robust),
        f"{_p(ours.robust)} against {_p(best.robust)} for {_short(best)}; the gap between training and held-out "
        f"robustness at the end is {gap(ours):.1f} and {gap(best):.1f} points",
    )


def dra_keeps_clean_accuracy(results: Sequence[Result]) -> str:
    """Hou et al., tables II and III."""
    found = _by_name(results)
    dra, trades = found["dra"], found["trades"]
    lost = above(dra.before_clean, dra.clean)
    return _sentence(
        "Hou et al.: `dra` keeps clean accuracy (93.7% before and 93.8% after on CIFAR-10) while robustness grows.",
        not lost and dra.strongest.accuracy > 0.1,
        f"clean goes from {_p(dra.before_clean)} to {_p(dra.clean)}, and {_p(dra.strongest)} are left in the worst "
        f"case; `trades`: {_p(trades.clean)} and {_p(trades.strongest)}",
    )


def robustness_grows_with_p(results: Sequence[Result]) -> str:
    """Hou et al., table VI."""
    ordered = sorted(results, key=lambda result: result.recipe)
    falls = any(above(earlier.robust, later.robust) for earlier, later in pairwise(ordered))
    rises = above(ordered[-1].robust, ordered[0].robust)
    costs = above(ordered[0].clean, ordered[-1].clean)
    return _sentence(
        "Hou et al.: with p, the share of pixels that may change, robustness grows and clean accuracy falls.",
        False if falls else _all([rises, costs]),
        "worst case "
        + ", ".join(_p(result.robust) for result in ordered)
        + "; clean "
        + ", ".join(_p(result.clean) for result in ordered)
        + ", in the order of p",
    )


def dra_attack_helps(results: Sequence[Result]) -> str:
    """Hou et al., table V."""
    found = _by_name(results)
    pairs = [(found[f"swap-{frame}-dra"], found[f"swap-{frame}-pgd"]) for frame in ("madry", "trades", "ours")]
    return _sentence(
        "Hou et al.: in Madry's training, in TRADES and in theirs, the DRA attack serves robustness better than PGD.",
        _all(above(dra.robust, pgd.robust) for dra, pgd in pairs),
        "; ".join(f"{_short(dra)} {_p(dra.robust)} against {_p(pgd.robust)}" for dra, pgd in pairs),
    )


def dra_helps_against_corruptions(results: Sequence[Result]) -> str:
    """Hou et al., table VII."""
    found = _by_name(results)
    before, after = found["natural"].corruptions_hou, found["dra"].corruptions_hou
    if before is None or after is None:
        raise ValueError("corruptions were not measured")
    return _sentence(
        "Hou et al.: `dra` improves accuracy under the six corruptions (76.2% to 82.8% on average on CIFAR-10-C).",
        after > before,
        f"{before:.1%} without, {after:.1%} with it",
    )


CLAIMS: dict[str, tuple[Claim, ...]] = {
    "fashion-mnist": (aft_is_enough, dra_keeps_clean_accuracy),
    "cifar10": (dra_helps_against_corruptions,),
    "optimizers": (patch_augment_is_robust, optimizer_decides),
    "schedules": (slow_start_fast_decay_is_best,),
    "dra-p": (robustness_grows_with_p,),
    "attack-swap": (dra_attack_helps,),
}

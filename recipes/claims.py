"""What the papers claim, held against our results; each claim becomes one sentence with its numbers.

A claim holds or does not where the difference is beyond chance (see ``correct.above``); otherwise it is undecided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from recipes.correct import Correct, above
from recipes.results import Result

Claim = Callable[[Sequence[Result]], str]


def _all(outcomes: Iterable[bool | None]) -> bool | None:
    """True if all are; False if one is; else undecided."""
    found = list(outcomes)
    return False if False in found else (None if None in found else True)


def _sentence(claim: str, outcome: bool | None, numbers: str) -> str:
    words = {True: "Holds", False: "Does not hold", None: "Undecided"}
    return f"{claim} **{words[outcome]}** here: {numbers}."


def _by_name(results: Sequence[Result]) -> dict[str, Result]:
    return {result.recipe.rpartition("/")[2]: result for result in results}


def _strongest(result: Result) -> Correct:
    return result.strongest


def _robust(result: Result) -> Correct:
    return result.robust


def _best(results: Iterable[Result], of: Callable[[Result], Correct]) -> Result:
    return max(results, key=lambda result: of(result).accuracy)


def _short(result: Result) -> str:
    return f"`{result.recipe.rpartition('/')[2]}`"


def _p(share: Correct) -> str:
    return f"{share.accuracy:.1%}"


def patch_augment_is_robust(results: Sequence[Result]) -> str:
    """Agarwal et al., table 1."""
    found, published = _by_name(results)["optimizer-adam"], 0.5372
    pgd = found.under("pgd", 0.3)
    below = pgd.count.ci95[1] < published
    return _sentence(
        "Agarwal et al.: a few epochs of patch augmentation leave 53.7% under PGD-10 at eps 0.3.",
        False if below else (True if pgd.accuracy >= published else None),
        f"{_p(pgd)} under the paper's own PGD-10, {_p(found.robust)} in the worst case of its attacks",
    )


def optimizer_decides(results: Sequence[Result]) -> str:
    """Agarwal et al.: "role of optimizer"."""
    found = sorted(results, key=lambda result: result.robust.accuracy)
    least, most = found[0].robust, found[-1].robust
    return _sentence(
        "Agarwal et al.: how robust the fine-tuned network is depends on the optimizer.",
        above(most, least) if most.accuracy >= 0.05 else None,  # where nobody is robust, nothing can be told
        ", ".join(f"{_short(result)} {_p(result.robust)}" for result in found) + " in the worst case",
    )


def aft_is_enough(results: Sequence[Result]) -> str:
    """Jeddi et al., table 1."""
    found = _by_name(results)
    best = _best((found[name] for name in ("pgd-at", "free-at", "fast-at", "yopo", "atta")), _strongest)
    return _sentence(
        "Jeddi et al., on CIFAR-10: fine-tuning by `aft` is more robust than Madry's training, Free, Fast, YOPO and "
        "ATTA from scratch.",
        above(found["aft"].strongest, best.strongest),
        f"`aft` {_p(found['aft'].strongest)}, the best of the others, {_short(best)}, {_p(best.strongest)}; here all "
        "fine-tune the same checkpoint at one FB budget and one learning rate",
    )


def long_plateaus_overfit(results: Sequence[Result]) -> str:
    """Jeddi et al., section 3.2 and figure 5: as i grows, so does overfitting."""
    found = _by_name(results)
    short, long = found["schedule-step-1"], found["schedule-step-10"]

    def gap(result: Result) -> float:
        return 100 * (result.curves[-1].train_robust - result.curves[-1].held_out_robust)

    return _sentence(
        "Jeddi et al.: the longer the plateaus of the learning rate, the more is lost on test images to overfitting.",
        _all([above(short.robust, long.robust), above(short.clean, long.clean)]),
        f"{_short(short)} {_p(short.clean)} clean and {_p(short.robust)} robust, {_short(long)} {_p(long.clean)} and "
        f"{_p(long.robust)}; from training to held-out images robustness falls by {gap(short):.1f} and {gap(long):.1f} "
        "points",
    )


def slow_start_fast_decay_is_best(results: Sequence[Result]) -> str:
    """Jeddi et al.: what they propose after figure 5, though they print no comparison."""
    found = _by_name(results)
    ours = found["schedule-slow-start-fast-decay"]
    best = _best((result for name, result in found.items() if name.startswith("schedule-step-")), _robust)
    return _sentence(
        "Implied by Jeddi et al.: slow start and fast decay is more robust than the best of step-LR(i, 0.5).",
        above(ours.robust, best.robust),
        f"{_p(ours.robust)} against {_p(best.robust)} for {_short(best)}",
    )


def dra_keeps_clean_accuracy(results: Sequence[Result]) -> str:
    """Hou et al., tables II and III; a loss of one point of clean accuracy would already be larger than theirs."""
    found = _by_name(results)
    dra, trades = found["dra"], found["trades"]
    grows = above(dra.strongest, found["natural"].strongest)
    return _sentence(
        "Hou et al.: `dra` keeps clean accuracy (93.7% before and 93.8% after on CIFAR-10) while robustness grows.",
        _all([_lost_at_most(dra.before_clean, dra.clean, 0.01), grows]),
        f"clean goes from {_p(dra.before_clean)} to {_p(dra.clean)}, and {_p(dra.strongest)} are left in the worst "
        f"case; `trades`: {_p(trades.clean)} and {_p(trades.strongest)}",
    )


def _lost_at_most(before: Correct, after: Correct, points: float) -> bool | None:
    """Whether the loss on the same images is surely below ``points``, or surely above (95%, paired)."""
    gained = float((after.mask & ~before.mask).mean())
    lost = float((before.mask & ~after.mask).mean())
    loss = lost - gained
    margin = 1.96 * math.sqrt(max(gained + lost - loss**2, 0.0) / before.total)
    return True if loss + margin < points else (False if loss - margin > points else None)


def robustness_grows_with_p(results: Sequence[Result]) -> str:
    """Hou et al., table VI; under PGD-20 at eps 0.1."""
    ordered = sorted(results, key=lambda result: result.recipe)
    left = [result.under("pgd", 0.1) for result in ordered]
    falls = any(above(earlier, later) for earlier, later in pairwise(left))
    return _sentence(
        "Hou et al.: with p, the share of pixels that may change, robustness grows and clean accuracy falls.",
        False if falls else _all([above(left[-1], left[0]), above(ordered[0].clean, ordered[-1].clean)]),
        "under PGD-20 at eps 0.1 "
        + ", ".join(_p(share) for share in left)
        + "; clean "
        + ", ".join(_p(result.clean) for result in ordered)
        + ", in the order of p",
    )


def dra_attack_helps(results: Sequence[Result]) -> str:
    """Hou et al., table V; under PGD-20 at eps 0.1."""
    found = _by_name(results)
    pairs = [
        [(name, found[name].under("pgd", 0.1)) for name in (f"swap-{frame}-dra", f"swap-{frame}-pgd")]
        for frame in ("madry", "trades", "ours")
    ]
    return _sentence(
        "Hou et al.: in Madry's training, in TRADES and in theirs, the DRA attack serves robustness better than PGD of "
        "the same strength.",
        _all(above(dra, pgd) for (_, dra), (_, pgd) in pairs),
        "under PGD-20 at eps 0.1 "
        + "; ".join(f"`{name}` {_p(dra)} against {_p(pgd)}" for (name, dra), (_, pgd) in pairs),
    )


def dra_helps_against_corruptions(results: Sequence[Result]) -> str:
    """Hou et al., table VII; also held against clean training that cost as much."""
    found = _by_name(results)
    dra, natural = found["dra"], found["natural"]
    before, control, after = dra.before_corruptions_hou, natural.corruptions_hou, dra.corruptions_hou
    if before is None or control is None or after is None:
        raise ValueError("corruptions were not measured")
    return _sentence(
        "Hou et al.: `dra` improves accuracy under the six corruptions (76.2% to 82.8% on average on CIFAR-10-C).",
        _all(_grew(other, after, dra.clean.total) for other in (before, control)),
        f"{before:.1%} before, {after:.1%} after; `natural`, as much training on clean images, {control:.1%}",
    )


def _grew(before: float, after: float, images: int) -> bool | None:
    """Whether a mean over corruptions is surely higher, or surely lower (95%).

    Of an image it varies less than one answer does, so the margin is on the careful side.
    """
    margin = 1.96 * math.sqrt((before * (1 - before) + after * (1 - after)) / images)
    return None if abs(after - before) <= margin else after > before


CLAIMS: dict[str, tuple[Claim, ...]] = {
    "fashion-mnist": (aft_is_enough, dra_keeps_clean_accuracy),
    "cifar10": (dra_helps_against_corruptions,),
    "optimizers": (patch_augment_is_robust, optimizer_decides),
    "schedules": (long_plateaus_overfit, slow_start_fast_decay_is_best),
    "dra-p": (robustness_grows_with_p,),
    "attack-swap": (dra_attack_helps,),
}

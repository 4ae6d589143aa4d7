"""What the papers claim, held against our results; each claim becomes one sentence with its numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from recipes.results import Result

Claim = Callable[[Sequence[Result]], str]


def _by_name(results: Sequence[Result]) -> dict[str, Result]:
    return {result.recipe.rpartition("/")[2]: result for result in results}


def _sentence(claim: str, holds: bool, numbers: str) -> str:
    return f"{claim} **{'Holds' if holds else 'Does not hold'}** here: {numbers}."


def _p(share: float) -> str:
    return f"{share:.1%}"


def patch_augment_is_robust(results: Sequence[Result]) -> str:
    """Agarwal et al., table 1."""
    found = _by_name(results)["optimizer-adam"]
    pgd = next(a for a in found.attacks if a.name == "pgd")
    return _sentence(
        "Agarwal et al.: two or three epochs of patch augmentation leave 53.7% under PGD-10 at eps 0.3.",
        pgd.count.accuracy > 0.4,
        f"{_p(pgd.count.accuracy)} under the paper's own PGD-10, {_p(found.strongest.accuracy)} in the worst case",
    )


def optimizer_decides(results: Sequence[Result]) -> str:
    """Agarwal et al.: "role of optimizer"."""
    found = _by_name(results)
    robust = {name: found[f"optimizer-{name}"].robust.accuracy for name in ("adam", "rmsprop", "sgd")}
    spread = max(robust.values()) - min(robust.values())
    return _sentence(
        "Agarwal et al.: the optimizer decides how robust the fine-tuned network is.",
        spread > 0.05,
        ", ".join(f"{name} {_p(value)}" for name, value in robust.items()) + " in the worst case",
    )


def aft_is_enough(results: Sequence[Result]) -> str:
    """Jeddi et al., table 1."""
    found = _by_name(results)
    others = {name: found[name].strongest.accuracy for name in ("pgd-at", "free-at", "fast-at", "yopo", "atta")}
    best = max(others, key=lambda name: others[name])
    aft = found["aft"].strongest.accuracy
    return _sentence(
        "Jeddi et al.: fine-tuning by `aft` is more robust than Madry's training, Free, Fast, YOPO and ATTA.",
        aft >= others[best],
        f"`aft` {_p(aft)}, the best of the others, `{best}`, {_p(others[best])}, all fine-tuned at one FB budget",
    )


def slow_start_fast_decay_is_best(results: Sequence[Result]) -> str:
    """Jeddi et al., the ablation of step-LR(i, 0.5)."""
    found = _by_name(results)
    ours = found["schedule-slow-start-fast-decay"]
    steps = {name: result for name, result in found.items() if name.startswith("schedule-step-")}
    best = max(steps, key=lambda name: steps[name].robust.accuracy)

    def gap(result: Result) -> float:
        return result.curves[-1].train_robust - result.curves[-1].held_out_robust

    return _sentence(
        "Jeddi et al.: slow start and fast decay is more robust on test images than step-LR(i, 0.5) for every i.",
        ours.robust.accuracy > steps[best].robust.accuracy,
        f"{_p(ours.robust.accuracy)} against {_p(steps[best].robust.accuracy)} for `{best}`; the gap between "
        f"training and held-out robustness at the end is {100 * gap(ours):.1f} and {100 * gap(steps[best]):.1f} points",
    )


def dra_keeps_clean_accuracy(results: Sequence[Result]) -> str:
    """Hou et al., tables II and III."""
    found = _by_name(results)
    dra, trades = found["dra"], found["trades"]
    lost = dra.before_clean.accuracy - dra.clean.accuracy
    return _sentence(
        "Hou et al.: `dra` keeps clean accuracy (93.7% before and 93.8% after on CIFAR-10) while robustness grows.",
        lost < 0.01 and dra.strongest.accuracy > 0.1,
        f"clean falls by {100 * lost:.1f} points to {_p(dra.clean.accuracy)}, {_p(dra.strongest.accuracy)} are left in "
        f"the worst case; `trades`: {_p(trades.clean.accuracy)} and {_p(trades.strongest.accuracy)}",
    )


def robustness_grows_with_p(results: Sequence[Result]) -> str:
    """Hou et al., table VI."""
    ordered = sorted(results, key=lambda result: result.recipe)
    robust = [result.robust.accuracy for result in ordered]
    clean = [result.clean.accuracy for result in ordered]
    rises = all(later >= earlier - 0.01 for earlier, later in pairwise(robust))
    falls = all(later <= earlier + 0.01 for earlier, later in pairwise(clean))
    return _sentence(
        "Hou et al.: with p, the share of pixels that may change, robustness grows and clean accuracy falls.",
        rises and falls,
        "worst case " + ", ".join(map(_p, robust)) + "; clean " + ", ".join(map(_p, clean)) + ", in the order of p",
    )


def dra_attack_helps(results: Sequence[Result]) -> str:
    """Hou et al., table V."""
    found = _by_name(results)
    pairs = [(found[f"swap-{frame}-pgd"], found[f"swap-{frame}-dra"]) for frame in ("madry", "trades", "ours")]
    return _sentence(
        "Hou et al.: in Madry's training, in TRADES and in theirs, the DRA attack serves robustness better than PGD.",
        all(dra.robust.accuracy > pgd.robust.accuracy for pgd, dra in pairs),
        "; ".join(
            f"`{d.recipe.rpartition('/')[2]}` {_p(d.robust.accuracy)} against {_p(p.robust.accuracy)}" for p, d in pairs
        ),
    )


def dra_helps_against_corruptions(results: Sequence[Result]) -> str:
    """Hou et al., table VII."""
    found = _by_name(results)
    before, after = found["natural"].corruptions_hou or 0.0, found["dra"].corruptions_hou or 0.0
    return _sentence(
        "Hou et al.: `dra` improves accuracy under the six corruptions (76.2% to 82.8% on average on CIFAR-10-C).",
        after > before,
        f"{_p(before)} without, {_p(after)} with it",
    )


CLAIMS: dict[str, tuple[Claim, ...]] = {
    "fashion-mnist": (aft_is_enough, dra_keeps_clean_accuracy),
    "optimizers": (patch_augment_is_robust, optimizer_decides),
    "schedules": (slow_start_fast_decay_is_best,),
    "dra-p": (robustness_grows_with_p,),
    "attack-swap": (dra_attack_helps,),
    "cifar10": (dra_helps_against_corruptions,),
}

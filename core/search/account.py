"""What the report says of a search."""

from __future__ import annotations

from typing import Literal

from core.report import Count, Search, SearchPoint, SearchRung, Trial
from core.search import search as searching
from core.search.plan import pareto
from core.search.state import Tried
from core.search.trials import ATTACK
from core.train import Trained

Ended = Literal["goal", "budget", "complete"]


def found(search: searching.Search, trained: Trained) -> Search:
    """The search section of the report, once the winner is trained."""
    state, final = search.state, search.state.final
    if final is None or search.winner.training is None or state.scale is None:
        raise ValueError("the search is not over")
    stopped, where = _ended(search, trained)
    return Search(
        goal=search.auto.goal.model_dump(),
        least_clean=search.target.clean,
        held_out_images=len(search.held_out),
        attack=ATTACK.model_dump(mode="json"),
        scale=state.scale,
        refused=search.refused,
        rungs=tuple(_rungs(search)),
        winner=final.candidate,
        final=_trial(search, final, True, "the winner, trained on all images"),
        defense=search.winner.defense.model_dump(mode="json"),
        training=search.winner.training.model_dump(mode="json"),
        pareto=tuple(_pareto(search, [*state.tried, final])),
        shipped=_point(search, search.shipped),
        met=search.violation(search.shipped) == 0,
        stopped=stopped,
        where=where,
        seconds=search.trials.elapsed,
    )


def remarks(search: Search) -> list[str]:
    """What a reader of the report must know about it."""
    shipped, goal = search.shipped, search.goal
    tried = {trial.candidate for rung in search.rungs for trial in rung.trials}
    chosen = (
        f"{search.winner!r} was chosen among {max(1, len(tried))} candidates by {search.held_out_images} training "
        "images that were held out. Being chosen flatters the search's own numbers, and those alone: the search "
        "used nothing of the test split."
    )
    notes = [chosen]
    if shipped.rung is not None:
        notes.append(
            f"What ships is {shipped.candidate!r} as rung {shipped.rung} left it: the winner's whole training, of "
            "which the curves are, ended further from the goal."
        )
    if not search.met:
        notes.append(
            f"The goal was not met: on held-out images the model is {shipped.robust:.1%} robust and "
            f"{shipped.clean:.1%} clean, asked were {goal['robust']:.1%} and {search.least_clean:.1%}. It is the best "
            f"that was found ({search.where}); search.pareto shows what else there is."
        )
    return notes


def _ended(search: searching.Search, trained: Trained) -> tuple[Ended, str]:
    state, number = search.state, len(trained.state.curves)
    epochs = f"{number} epoch" + "s" * (number != 1)
    if trained.state.stopped == "goal":
        return "goal", f"the winner met the goal after epoch {number} of {search.planned}"
    if state.cut is not None:
        return "budget", f"the search's share of the budget ended {state.cut}; the winner had {epochs}"
    if number < search.planned and trained.state.stopped in (None, "budget"):
        return "budget", f"the budget left {number} of {search.planned} epochs to the winner"
    if state.rungs < len(search.rungs):
        return "complete", f"rung {state.rungs} met the goal already; {epochs} of the winner"
    return "complete", f"all rungs, and {epochs} of the winner"


def _rungs(search: searching.Search) -> list[SearchRung]:
    rungs, ended_in = [], search.state.rungs - (search.state.cut is None)
    for number, rung in enumerate(search.rungs):
        tried = [each for each in search.state.tried if each.rung == number]
        ranks = {each.candidate: rank for rank, each in enumerate(sorted(tried, key=search.rank), 1)}
        most = search.rungs[number + 1].candidates if number < ended_in else 1
        trials = []
        for each in tried:
            rank = ranks[each.candidate]
            kept = rank <= most and each.failed is None
            place = f"rank {rank} of {len(tried)}; {most} of them {'goes' if most == 1 else 'go'} on"
            trials.append(_trial(search, each, kept, each.failed or place))
        if trials:
            rungs.append(SearchRung(share=rung.share, images=rung.images, trials=tuple(trials)))
    return rungs


def _trial(search: searching.Search, tried: Tried, kept: bool, reason: str) -> Trial:
    total = len(search.held_out)
    return Trial(
        candidate=tried.candidate,
        rung=tried.rung + 1,
        images=tried.images,
        epochs=tried.epochs,
        clean=None if tried.clean is None else Count.of(tried.clean, total),
        robust=None if tried.robust is None else Count.of(tried.robust, total),
        violation=None if tried.clean is None else search.violation(tried),
        fb=tried.fb,
        seconds=tried.seconds,
        kept=kept,
        reason=reason,
    )


def _pareto(search: searching.Search, trained: list[Tried]) -> list[SearchPoint]:
    measured = {
        each: (each.clean, each.robust) for each in trained if each.clean is not None and each.robust is not None
    }
    return [_point(search, each) for each in pareto(measured)]


def _point(search: searching.Search, tried: Tried) -> SearchPoint:
    total = len(search.held_out)
    return SearchPoint(
        candidate=tried.candidate,
        rung=None if tried is search.state.final else tried.rung + 1,
        clean=(tried.clean or 0) / total,
        robust=(tried.robust or 0) / total,
        fb=tried.fb,
    )

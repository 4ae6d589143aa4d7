"""Report: what a run found out, with everything needed to check it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from core.spec import JobSpec
from core.stats import mcnemar, wilson
from core.threat import ThreatModel


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Count(_Part):
    """A share with its 95% Wilson interval; always of all evaluated images."""

    correct: int
    total: int
    accuracy: float
    ci95: tuple[float, float]

    @classmethod
    def of(cls, correct: int, total: int) -> Count:
        """From counts."""
        return cls(
            correct=correct,
            total=total,
            accuracy=correct / total if total else 0.0,
            ci95=wilson(correct, total),
        )


class AttackResult(Count):
    """Accuracy under one attack.

    ``counted``: it is part of the worst case in ``robust``. ``cumulative``: it was tried only on the images that no
    attack before it had fooled, and the accuracy is that of all so far. ``adapted`` says what it did otherwise than
    published, with few classes.
    """

    name: str
    params: dict[str, Any]
    threat: ThreatModel
    counted: bool
    cumulative: bool
    attacked: int
    fooled: int
    adapted: str | None = None


class ClassCount(_Part):
    """Images of one class, and how many of them are correct, clean and in the worst case."""

    label: int
    total: int
    clean: int
    robust: int


class Confusion(_Part):
    """How many images of class ``true`` the attacks turned into ``predicted``."""

    true: int
    predicted: int
    count: int


class Curve(_Part):
    """Accuracy against eps, in the headline's norm, on ``images`` images drawn by the seed; an upper bound.

    ``beyond_suite``: of those that the suite left, how many the curve's own search fooled within the headline's eps.
    """

    eps: tuple[float, ...]
    accuracy: tuple[float, ...]
    images: int
    beyond_suite: int = 0


class CorruptionAccuracy(_Part):
    """Accuracy under one common corruption, for severities 1 to 5."""

    name: str
    accuracy: tuple[float, ...]
    mean: float


class Corruptions(_Part):
    """Common corruptions. ``mean``: of the 15 main ones; ``mean_all``: of all 19; ``mean_hou``: of Hou's six."""

    images: int
    mean: float
    mean_all: float
    mean_hou: float
    results: tuple[CorruptionAccuracy, ...]


class Sign(_Part):
    """One check of whether the robustness is real.

    ``severity``: "masking" makes the verdict suspect, "weak" means that the attacks were too weak to judge, "note" is
    worth knowing. ``value`` was measured, ``threshold`` raises the sign; null where there is no number.
    """

    code: str
    raised: bool
    severity: Literal["masking", "weak", "note"]
    value: float | None
    threshold: float | None
    sentence: str


class Side(_Part):
    """One model under the suite. ``robust``: correct under every counted attack, image by image.

    ``diagnosis``: every check that was made, raised or not; null if none was asked for.
    """

    clean: Count
    attacks: tuple[AttackResult, ...]
    robust: Count
    randomised: bool = False
    by_class: tuple[ClassCount, ...] = ()
    confusion: tuple[Confusion, ...] = ()
    curve: Curve | None = None
    corruptions: Corruptions | None = None
    diagnosis: tuple[Sign, ...] | None = None


class PairedChange(_Part):
    """Before against after on the same images: McNemar's exact test on those that changed sides."""

    delta: float
    gained: int
    lost: int
    p_value: float

    @classmethod
    def of(cls, gained: int, lost: int, total: int) -> PairedChange:
        """From counts."""
        delta = (gained - lost) / total if total else 0.0
        return cls(delta=delta, gained=gained, lost=lost, p_value=mcnemar(gained, lost))


class Change(_Part):
    """What hardening gained and cost."""

    clean: PairedChange
    robust: PairedChange


class EpochCurve(_Part):
    """One epoch: accuracies on held-out and on as many training images, clean and under PGD-10.

    ``held_out_fgsm``: under one step of the whole eps. It soars while PGD falls where single-step training collapses.
    ``strength``: share of eps that the adversary of training had at its end.
    """

    epoch: int
    lr: float
    train_loss: float
    train_clean: float
    train_robust: float
    held_out_clean: float
    held_out_robust: float
    held_out_fgsm: float
    strength: float
    seconds: float


class Training(_Part):
    """The training curves, which epoch ships and why, and why training ended early; null if it did not."""

    curves: tuple[EpochCurve, ...]
    selected_epoch: int
    selected_by: str
    stopped: Literal["patience", "catastrophic-overfitting", "goal", "budget"] | None = None
    train_images: int
    held_out_images: int


class Trial(_Part):
    """One training of a search. The accuracies are on held-out training images; null where it came to none.

    ``violation``: how much robust and clean accuracy miss the goal by, added up. ``fb``: passes of the training;
    ``seconds`` has the choice of its epoch and the measuring too. ``reason`` says why it was kept or dropped.
    """

    candidate: str
    rung: int
    images: int
    epochs: int
    clean: Count | None
    robust: Count | None
    violation: float | None
    fb: int
    seconds: float
    kept: bool
    reason: str


class SearchRung(_Part):
    """One round of successive halving; ``share`` is that of the passes of the winner's planned training."""

    share: float
    images: int
    trials: tuple[Trial, ...]


class SearchPoint(_Part):
    """A trained model that no other beats in both accuracies; ``rung`` is null for the winner's whole training."""

    candidate: str
    rung: int | None
    clean: float
    robust: float
    fb: int


class Search(_Part):
    """How ``auto`` chose. All accuracies are on ``held_out_images``, which no candidate was trained on.

    Being chosen by them makes the winner's look better than they are; the report's other sides are free of that.
    ``scale``: share of the planned passes that the rungs got, below 1 on a machine too slow for the budget.
    ``refused``: who could not do the job, and why. ``defense``, ``training``: the winner's set-up; its epoch is chosen
    by the goal. ``shipped`` is the nearest to the goal of all that were trained, and ``met`` says whether it meets it
    on the held-out images. ``stopped`` and ``where`` say what ended it all.
    """

    goal: dict[str, float]
    least_clean: float
    held_out_images: int
    attack: dict[str, Any]
    scale: float
    refused: dict[str, str]
    rungs: tuple[SearchRung, ...]
    winner: str
    final: Trial
    defense: dict[str, Any]
    training: dict[str, Any]
    pareto: tuple[SearchPoint, ...]
    shipped: SearchPoint
    met: bool
    stopped: Literal["goal", "budget", "complete"]
    where: str
    seconds: float


class Verdict(_Part):
    """Is the robustness real? ``robust`` is never said without a strong suite and the diagnosis.

    ``remedies``: for ``unverified``, what another evaluation needs, each an imperative.
    """

    kind: Literal["robust", "brittle", "suspect", "unverified"]
    reasons: tuple[str, ...]
    remedies: tuple[str, ...] = ()


class Images(_Part):
    """The frozen test images that both sides were evaluated on."""

    count: int
    ids_sha256: str


class PhaseCost(_Part):
    """Example-passes and seconds of one phase; FB is one forward and backward pass of one example."""

    seconds: float
    forwards: int = 0
    input_backwards: int = 0
    weight_backwards: int = 0
    fb: int = 0


class Cost(_Part):
    """What the run cost, by phase. A resumed run counts the work that its result rests on."""

    phases: dict[str, PhaseCost]
    total_fb: int
    total_seconds: float
    peak_memory_bytes: int


class Output(_Part):
    """The hardened checkpoint. ``sha256`` is that of the format that came in, ``files`` has all."""

    sha256: str
    format: str
    files: dict[str, str]
    tensors: int
    snippet: str


class Diagnostic(Sign):
    """A raised sign, and of which side."""

    side: Literal["before", "after"]


class Report(_Part):
    """The whole report; ``after``, ``change``, ``training`` and ``output`` are null for defense none.

    ``search`` is null for all but ``auto``.
    """

    report_version: Literal[1] = 1
    verdict: Verdict
    threat: ThreatModel
    suite: str
    images: Images
    before: Side
    after: Side | None
    change: Change | None
    training: Training | None
    search: Search | None = None
    notes: tuple[str, ...]
    diagnostics: tuple[Diagnostic, ...] = ()
    cost: Cost
    inputs: dict[str, Any]
    output: Output | None
    environment: dict[str, Any]
    spec: JobSpec

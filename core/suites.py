"""Suites: named lists of attacks, each under its threat model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from core.attacks.apgd import APGD
from core.attacks.apgd_t import TargetedAPGD
from core.attacks.base import Attack
from core.attacks.fab_t import TargetedFAB
from core.attacks.fgsm import FGSM
from core.attacks.i_fgsm import IFGSM
from core.attacks.pgd import PGD
from core.attacks.square import Square
from core.models.base import ImageShape
from core.threat import ThreatModel

SuiteName = Literal["quick", "agarwal", "jeddi", "hou", "standard", "strict"]
STRONG: frozenset[str] = frozenset({"standard", "strict"})
"""The suites after which a model may be called robust."""


class Entry(NamedTuple):
    """One attack under one threat model."""

    attack: Attack
    threat: ThreatModel


@dataclass(frozen=True)
class Suite:
    """Attacks in order, the cheap ones first.

    ``cascade``: an attack sees only images that none before it fooled, so its accuracy is that of all so far; else each
    attack sees every correctly classified image and is judged alone. ``if_randomised`` replaces the attacks of a
    model whose output differs from pass to pass.
    """

    entries: tuple[Entry, ...]
    cascade: bool = False
    if_randomised: tuple[Entry, ...] | None = None


def quick(threat: ThreatModel, image: ImageShape) -> Suite:
    """FGSM and PGD-20 with step eps/4, under the job's threat model."""
    return _under(threat, FGSM(), PGD(steps=20, step_size="eps/4"))


def agarwal(threat: ThreatModel, image: ImageShape) -> Suite:
    """Agarwal et al. 2021, table 1: FGSM, I-FGSM and PGD-10, step 0.01, eps 0.3 on grey and 0.03 on colour images.

    Ten steps of 0.01 reach a third of eps = 0.3: a protocol to compare with, not a measure of robustness.
    """
    own = ThreatModel(norm="linf", eps=0.3 if image.channels == 1 else 0.03)
    return _under(own, FGSM(), IFGSM(steps=10, step_size=0.01), PGD(steps=10, step_size=0.01))


def jeddi(threat: ThreatModel, image: ImageShape) -> Suite:
    """Jeddi et al. 2020: PGD-20 with step 2/255 at 8/255; at 2/255 with step eps/4 on images over 64 px (ImageNet).

    Grey images, which the paper does not have, take the job's own threat model with the same ratio of step to eps.
    """
    pgd = PGD(steps=20, step_size="eps/4")
    if image.channels == 1:
        return _under(threat, pgd)
    eps = 2 / 255 if min(image.height, image.width) > 64 else 8 / 255
    return _under(ThreatModel(norm="linf", eps=eps), pgd)


def hou(threat: ThreatModel, image: ImageShape) -> Suite:
    """Hou et al. 2022: PGD-20 with step eps/20; eps 0.1 and 0.3 on grey images, 2, 5 and 8/255 on colour.

    A step of eps/20 hardly leaves the random start's neighbourhood: a protocol to compare with.
    """
    radii = (0.1, 0.3) if image.channels == 1 else (2 / 255, 5 / 255, 8 / 255)
    pgd = PGD(steps=20, step_size="eps/20")
    return Suite(tuple(Entry(pgd, ThreatModel(norm="linf", eps=eps)) for eps in radii))


def standard(threat: ThreatModel, image: ImageShape) -> Suite:
    """AutoAttack's standard version, Croce and Hein 2020, https://arxiv.org/abs/2003.01690 (l1: arXiv 2103.01208).

    APGD-CE, targeted APGD-DLR, targeted FAB, Square with 5,000 queries, each on what the ones before left. l1 takes
    five restarts of APGD-CE and five targets. A randomised model gets its "rand" version: APGD-CE and APGD-DLR, 20
    passes averaged for each gradient.
    """
    l1 = threat.norm == "l1"
    attacks = (
        APGD(name="apgd-ce", restarts=5 if l1 else 1),
        TargetedAPGD(targets=5 if l1 else 9),
        TargetedFAB(),
        Square(rescale=False),
    )
    rand = (APGD(name="apgd-ce", eot=20), APGD(name="apgd-dlr", eot=20))
    return Suite(_under(threat, *attacks).entries, cascade=True, if_randomised=_under(threat, *rand).entries)


def strict(threat: ThreatModel, image: ImageShape) -> Suite:
    """``standard``, PGD-50 on the margin loss with 5 restarts, and Square with 20,000 queries."""
    base = standard(threat, image)
    more = _under(threat, PGD(steps=50, restarts=5, loss="margin"), Square(queries=20_000)).entries
    return Suite(base.entries + more, cascade=True, if_randomised=(base.if_randomised or ()) + more)


def _under(threat: ThreatModel, *attacks: Attack) -> Suite:
    return Suite(tuple(Entry(attack, threat) for attack in attacks))


SUITES: dict[SuiteName, Callable[[ThreatModel, ImageShape], Suite]] = {
    "quick": quick,
    "agarwal": agarwal,
    "jeddi": jeddi,
    "hou": hou,
    "standard": standard,
    "strict": strict,
}

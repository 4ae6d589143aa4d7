"""Suites: named lists of attacks, each under its threat model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from core.attacks.base import Attack
from core.attacks.fgsm import FGSM
from core.attacks.i_fgsm import IFGSM
from core.attacks.pgd import PGD
from core.models.base import ImageShape
from core.threat import ThreatModel

SuiteName = Literal["quick", "agarwal", "jeddi", "hou"]


class Entry(NamedTuple):
    """One attack under one threat model."""

    attack: Attack
    threat: ThreatModel


def quick(threat: ThreatModel, image: ImageShape) -> list[Entry]:
    """FGSM and PGD-20 with step eps/4, under the job's threat model."""
    return [Entry(FGSM(), threat), Entry(PGD(steps=20, step_size="eps/4"), threat)]


def agarwal(threat: ThreatModel, image: ImageShape) -> list[Entry]:
    """Agarwal et al. 2021, table 1: FGSM, I-FGSM and PGD-10, step 0.01, eps 0.3 on grey and 0.03 on colour images.

    Ten steps of 0.01 reach a third of eps = 0.3: a protocol to compare with, not a measure of robustness.
    """
    own = ThreatModel(norm="linf", eps=0.3 if image.channels == 1 else 0.03)
    return [
        Entry(FGSM(), own),
        Entry(IFGSM(steps=10, step_size=0.01), own),
        Entry(PGD(steps=10, step_size=0.01), own),
    ]


def jeddi(threat: ThreatModel, image: ImageShape) -> list[Entry]:
    """Jeddi et al. 2020: PGD-20 with step 2/255 at 8/255; at 2/255 with step eps/4 on images over 64 px (ImageNet).

    Grey images, which the paper does not have, take the job's own threat model with the same ratio of step to eps.
    """
    if image.channels == 1:
        return [Entry(PGD(steps=20, step_size="eps/4"), threat)]
    eps = 2 / 255 if min(image.height, image.width) > 64 else 8 / 255
    return [Entry(PGD(steps=20, step_size="eps/4"), ThreatModel(norm="linf", eps=eps))]


def hou(threat: ThreatModel, image: ImageShape) -> list[Entry]:
    """Hou et al. 2022: PGD-20 with step eps/20; eps 0.1 and 0.3 on grey images, 2, 5 and 8/255 on colour.

    A step of eps/20 hardly leaves the random start's neighbourhood: a protocol to compare with.
    """
    radii = (0.1, 0.3) if image.channels == 1 else (2 / 255, 5 / 255, 8 / 255)
    return [Entry(PGD(steps=20, step_size="eps/20"), ThreatModel(norm="linf", eps=eps)) for eps in radii]


SUITES: dict[str, Callable[[ThreatModel, ImageShape], list[Entry]]] = {
    "quick": quick,
    "agarwal": agarwal,
    "jeddi": jeddi,
    "hou": hou,
}

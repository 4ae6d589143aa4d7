"""auto: a goal in place of a recipe; the engine tries other defenses and trains the one that comes nearest to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from core.defenses.base import Batch, Defense, Moment, Published, State
from core.models.base import Domain
from core.models.classifier import Classifier


class Goal(BaseModel):
    """What the hardened model is to reach, and how long it may be looked for."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    robust: float = Field(0.5, gt=0, le=1, description="Robust accuracy to reach, as a share: 0.45 is 45%.")
    max_clean_drop: float = Field(
        0.05, ge=0, le=1, description="Clean accuracy that may be lost on the way, as a share: 0.03 is 3 points."
    )
    budget_minutes: float = Field(
        60,
        gt=0,
        le=100_000,
        description="Minutes for the search and the training of the winner together; what is measured before and "
        "after comes on top.",
    )


class Auto(Defense):
    """Successive halving over defenses (Jamieson, Talwalkar 2016, https://arxiv.org/abs/1502.07943); docs/adr/0021.

    It has no loss of its own: every candidate is trained by the loop, under its own name.
    """

    title: ClassVar[str] = "A goal instead of a recipe: tries defenses and trains the best"
    paper: ClassVar[str] = "https://arxiv.org/abs/1502.07943"
    trains: ClassVar[bool] = False
    searches: ClassVar[bool] = True

    name: Literal["auto"] = "auto"
    goal: Goal = Field(Goal(), description="When it is good enough, and when it has taken long enough.")
    candidates: tuple[str, ...] = Field(
        ("temper", "mart", "trades", "rst", "fast-at", "dra"),
        min_length=1,
        max_length=32,
        description="Defenses to try, by name; of equals the first wins.",
    )
    eta: int = Field(
        3, ge=2, le=8, description="In each rung one of so many candidates goes on, at so many times the passes."
    )
    fb_per_image: int = Field(
        60,
        ge=1,
        le=100_000,
        description="Forward and backward passes on each training image in the winner's whole training: 60 are ten "
        "epochs of five attack steps.",
    )
    held_out: int = Field(
        1000,
        ge=1,
        le=100_000,
        description="Training images held out to judge the candidates on; at most a tenth of them.",
    )

    @field_validator("candidates")
    @classmethod
    def _can_be_tried(cls, candidates: tuple[str, ...]) -> tuple[str, ...]:
        from core.defenses import DEFENSES  # which finds this module

        known = [name for name in DEFENSES.names() if DEFENSES[name].trains]
        for name in candidates:
            if name not in known:
                raise ValueError(f"{name!r} is no defense to try; choose from {', '.join(known)}")
        if len(set(candidates)) < len(candidates):
            raise ValueError("name each candidate once")
        return candidates

    @classmethod
    def published(cls, domain: Domain, *, small: bool) -> Published:
        """Each candidate has a set-up of its own."""
        return Published(epochs=0, optimizer="", lr={}, schedule={}, augment=(), select="last")

    def adversarial_losses(self, model: Classifier, batch: Batch, moment: Moment, state: State) -> Iterator[Tensor]:
        """No loss."""
        return iter(())

    def adversarial_fb(self) -> int:
        """Zero: the candidates' passes are counted as theirs."""
        return 0

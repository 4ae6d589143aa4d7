"""The threat model: how far an adversarial example may lie from its clean image."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.values import Pixels

Norm = Literal["linf", "l2", "l1"]


class ThreatModel(BaseModel):
    """A ball around each clean image, always intersected with the box [0, 1]."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    norm: Norm = Field("linf", description="Norm of the perturbation.")
    eps: Annotated[Pixels, Field(le=1e8)] = Field(
        description='Radius of the ball, pixels in [0, 1]; a number or a fraction like "8/255".'
    )

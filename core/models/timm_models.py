"""timm: any of timm's classifiers, as "timm/NAME"."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator
from torch import nn

from core.models.base import Architecture, Domain, ImageShape
from core.models.names import known_model


class Timm(Architecture):
    """A classifier from timm, without its pretrained weights: those come from the upload."""

    title: ClassVar[str] = 'Any classifier of timm, written "timm/resnet50"'
    domain: ClassVar[Domain] = "imagenet"

    name: Literal["timm"] = "timm"
    model: str = Field(description="Name in timm.list_models().")

    @field_validator("model")
    @classmethod
    def _known(cls, model: str) -> str:
        return known_model(model, cls.models())

    @classmethod
    def models(cls) -> list[str]:
        """All classifiers of the installed timm."""
        import timm  # heavy, and most jobs do not need it

        return sorted(timm.list_models())

    def build(self, num_classes: int, image: ImageShape) -> nn.Module:
        """See the base class."""
        import timm

        net: nn.Module = timm.create_model(
            self.model, pretrained=False, num_classes=num_classes, in_chans=image.channels
        )
        return net

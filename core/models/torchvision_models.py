"""torchvision: any of torchvision's classifiers, as "torchvision/NAME"."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator
from torch import nn

from core.errors import UnsupportedError
from core.models.base import Architecture, Domain, ImageShape
from core.models.names import known_model


class Torchvision(Architecture):
    """A classifier from torchvision.models, without its pretrained weights: those come from the upload."""

    title: ClassVar[str] = 'Any classifier of torchvision, written "torchvision/resnet50"'
    domain: ClassVar[Domain] = "imagenet"

    name: Literal["torchvision"] = "torchvision"
    model: str = Field(description="Name in torchvision.models.list_models().")

    @field_validator("model")
    @classmethod
    def _known(cls, model: str) -> str:
        return known_model(model, cls.models())

    @classmethod
    def models(cls) -> list[str]:
        """All classifiers of the installed torchvision."""
        import torchvision  # heavy, and most jobs do not need it

        return sorted(torchvision.models.list_models(module=torchvision.models))

    def build(self, num_classes: int, image: ImageShape) -> nn.Module:
        """See the base class."""
        import torchvision

        if image.channels != 3:
            raise UnsupportedError(
                f"torchvision/{self.model} takes 3 channels, the images have {image.channels}",
                f"timm/{self.model}, where it exists, takes any number of channels",
            )
        # their random initialisation is overwritten by the upload; skipping it saves seconds
        quick = {"init_weights": False} if self.model in ("googlenet", "inception_v3") else {}
        net: nn.Module = torchvision.models.get_model(self.model, weights=None, num_classes=num_classes, **quick)
        return net

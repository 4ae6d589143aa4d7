"""What every architecture is: a name and parameters that build a bare torch module."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from core.registry import Entry

Domain = Literal["grey28", "cifar", "imagenet", "custom"]
"""The kind of images an architecture is made for; published defaults depend on it; "custom" has none of its own."""


@dataclass(frozen=True)
class ImageShape:
    """Channels, height and width of the job's images."""

    channels: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.channels}x{self.height}x{self.width}"


class Architecture(Entry):
    """A classifier without its normalisation."""

    domain: ClassVar[Domain]
    small: ClassVar[bool] = False  # small networks take larger learning rates

    @abstractmethod
    def build(self, num_classes: int, image: ImageShape) -> nn.Module:
        """A freshly initialised network.

        Raises: UnsupportedError if it cannot take such images.
        """

    @classmethod
    def models(cls) -> list[str]:
        """Names that the ``model`` field may take, for entries that stand for a library of classifiers."""
        return []

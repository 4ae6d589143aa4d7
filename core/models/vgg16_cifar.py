"""vgg16-cifar: VGG-16's convolutions and one dense layer, for 32 px images."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from core.errors import UnsupportedError
from core.models.base import Architecture, Domain, ImageShape


class VGGNet(nn.Module):
    """Configuration D's convolutions, then one dense layer on the 512 features left at 32 px."""

    def __init__(self, num_classes: int, image: ImageShape, *, batch_norm: bool) -> None:
        super().__init__()
        from torchvision.models import vgg  # heavy, and most jobs do not need it

        self.features = vgg.make_layers(vgg.cfgs["D"], batch_norm=batch_norm)
        self.features[0] = nn.Conv2d(image.channels, 64, 3, padding=1)
        self.classifier = nn.Linear(512 * (image.height // 32) * (image.width // 32), num_classes)
        for module in self.features:
            if isinstance(module, nn.Conv2d):  # torch's own start is so small that the last features are all alike
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.constant_(module.get_parameter("bias"), 0)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, classes)."""
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


class VGG16CIFAR(Architecture):
    """Simonyan & Zisserman 2015, https://arxiv.org/abs/1409.1556, configuration D, cut down for 32 px."""

    title: ClassVar[str] = "VGG-16 for 32 px images, without or with BatchNorm (-bn-)"
    paper: ClassVar[str] = "https://arxiv.org/abs/1409.1556"
    domain: ClassVar[Domain] = "cifar"

    name: Literal["vgg16-cifar", "vgg16-bn-cifar"]

    def build(self, num_classes: int, image: ImageShape) -> nn.Module:
        """See the base class."""
        if min(image.height, image.width) < 32:
            raise UnsupportedError(f"{self.name} halves its input five times; images of {image} are too small")
        return VGGNet(num_classes, image, batch_norm=self.name == "vgg16-bn-cifar")

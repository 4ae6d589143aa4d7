"""resnet18-cifar and its deeper kin: ResNets with a 3x3 stem and no max-pooling, for 32 px images."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import nn

from core.models.base import Architecture, Domain, ImageShape

_LAYERS = {
    "resnet18-cifar": ("BasicBlock", [2, 2, 2, 2]),
    "resnet34-cifar": ("BasicBlock", [3, 4, 6, 3]),
    "resnet50-cifar": ("Bottleneck", [3, 4, 6, 3]),
    "resnet101-cifar": ("Bottleneck", [3, 4, 23, 3]),
}


class ResNetCIFAR(Architecture):
    """He et al. 2016, https://arxiv.org/abs/1512.03385, in the form that the CIFAR literature uses."""

    title: ClassVar[str] = "ResNet for 32 px images: 3x3 stem, no max-pooling"
    paper: ClassVar[str] = "https://arxiv.org/abs/1512.03385"
    domain: ClassVar[Domain] = "cifar"

    name: Literal["resnet18-cifar", "resnet34-cifar", "resnet50-cifar", "resnet101-cifar"]

    def build(self, num_classes: int, image: ImageShape) -> nn.Module:
        """See the base class; the keys are torchvision's."""
        from torchvision.models import resnet  # heavy, and most jobs do not need it

        block, layers = _LAYERS[self.name]
        net: nn.Module = resnet.ResNet(getattr(resnet, block), layers, num_classes=num_classes)
        net.conv1 = nn.Conv2d(image.channels, 64, 3, padding=1, bias=False)
        net.maxpool = nn.Identity()
        return net

"""torchvision's networks, with a first layer for small images in place of the one for 224x224."""

from torch import nn
from torchvision import models


def _first(channels: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, kernel_size=3, stride=1, padding=1, bias=False)


def resnet18(*, shape: tuple[int, int, int], num_cls: int) -> nn.Module:
    """ResNet-18 with a 3x3 stride-1 first convolution; the max pool behind it stays."""
    network = models.resnet18(num_classes=num_cls)
    network.conv1 = _first(shape[0], 64)
    return network


def densenet121(*, shape: tuple[int, int, int], num_cls: int) -> nn.Module:
    """DenseNet-121 with a 3x3 stride-1 first convolution; the max pool behind it stays."""
    network = models.densenet121(num_classes=num_cls)
    network.features.conv0 = _first(shape[0], 64)
    return network


def vgg16bn(*, shape: tuple[int, int, int], num_cls: int) -> nn.Module:
    """VGG-16 with BatchNorm and a 512-4096-4096-C classifier behind a 1x1 average pool."""
    network = models.vgg16_bn(num_classes=num_cls, init_weights=False)
    if shape[0] != 3:
        network.features[0] = nn.Conv2d(shape[0], 64, kernel_size=3, padding=1)
    network.avgpool = nn.AdaptiveAvgPool2d(1)
    network.classifier[0] = nn.Linear(512, 4096)
    return network

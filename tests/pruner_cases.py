"""A small network and its records that tests of pruning share."""

import torch
from torch import nn

from models.layers import initialise
from pruner import PRUNERS
from pruner.context import Context

WEIGHT_PRUNERS = [name for name in PRUNERS if PRUNERS[name].options["layer"] == "Linear"]


def small_network():
    """Two convolutions with biases and BatchNorm, and a linear layer of 4 outputs."""
    network = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Conv2d(5, 7, 3, padding=1),
        nn.BatchNorm2d(7),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(7, 4),
    )
    draw = torch.Generator().manual_seed(0)
    initialise(network, draw)
    with torch.no_grad():
        for module in network:
            if isinstance(module, nn.BatchNorm2d):
                module.weight.normal_(generator=draw)
            if hasattr(module, "bias"):
                module.bias.normal_(generator=draw)
    return network


def small_context(seed=0, count=12, batch_size=5, dtype=torch.float32):
    draw = torch.Generator().manual_seed(seed)
    return Context(
        x=torch.randn(count, 3, 6, 6, generator=draw, dtype=dtype),
        y=torch.arange(count) % 4,
        generator=draw,
        batch_size=batch_size,
    )


def final_sparsity(pruner, usual=0.6):
    """`usual`, or the one that the pruner has by definition."""
    return PRUNERS[pruner].options.get("sparsity", usual)


def linear(rows):
    """A linear layer of these weights without bias, in float64, as a network."""
    weight = torch.tensor(rows, dtype=torch.float64)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
    return nn.Sequential(layer)


def filters(rows):
    """A 1 x n convolution of these filters without bias, in float64, as a network."""
    weight = torch.tensor(rows, dtype=torch.float64)
    layer = nn.Conv2d(1, weight.shape[0], (1, weight.shape[1]), bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(weight[:, None, None])
    return nn.Sequential(layer)

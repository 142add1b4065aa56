"""The perceptron for tables."""

import math

from torch import nn


def columnfc(*, shape: tuple[int, ...], num_cls: int) -> nn.Module:
    """256-128-C with ReLU and dropout .1 behind each hidden layer; images are flattened."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(shape), 256),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(256, 128),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(128, num_cls),
    )

"""The perceptron of the neural attacks and of adversarial regularization, and what it is shown."""

import torch
from torch import nn
from torch.nn import functional as F


def perceptron(*, inputs: int) -> nn.Module:
    """512-256-128-2 with ReLU, dropout .2 behind the first two layers; logits of (non-member,
    member)."""
    return nn.Sequential(
        nn.Linear(inputs, 512),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(512, 256),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(256, 128),
        nn.ReLU(),
        nn.Linear(128, 2),
    )


def posterior_and_class(posterior: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(n, C) and (n,) to (n, 2C): the posterior and the one-hot class."""
    return torch.cat([posterior, F.one_hot(labels, posterior.shape[1]).to(posterior.dtype)], dim=1)

"""The perceptrons of the neural attacks and of adversarial regularization, and what they are shown."""

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


class TwoBranches(nn.Module):
    """CompLeak-MR's (Li et al., USENIX Security 2026, its authors' code): two membership
    probabilities and a cross-entropy for each of m releases, (B, 2m) and (B, m) side by side, to
    the logits of (non-member, member).

    Each kind has a branch of its own, 128-64; both together 256-128-64-2. ReLU and dropout .5.
    """

    def __init__(self, *, releases: int):
        super().__init__()
        self.inputs = (2 * releases, releases)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Linear(inputs, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 64))
            for inputs in self.inputs
        )
        hidden = [
            layer
            for inputs, outputs in ((128, 256), (256, 128), (128, 64))
            for layer in (nn.Dropout(0.5), nn.Linear(inputs, outputs), nn.ReLU())
        ]
        self.head = nn.Sequential(*hidden, nn.Dropout(0.5), nn.Linear(64, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3m) to (B, 2)."""
        parts = zip(self.branches, x.split(self.inputs, dim=1))
        return self.head(torch.cat([branch(part) for branch, part in parts], dim=1))


def posterior_and_class(posterior: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(n, C) and (n,) to (n, 2C): the posterior and the one-hot class."""
    return torch.cat([posterior, F.one_hot(labels, posterior.shape[1]).to(posterior.dtype)], dim=1)

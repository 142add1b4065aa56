"""No defence, and the form that all defences have."""
import torch
from torch import nn

from base_model import cross_entropy
from datasets import Records


class Basic:
    """Cross-entropy alone. Other defences override `start`, `loss` or both.

    Args:
        strength: the option `--defend_arg`.
    """

    def __init__(self, strength: float | None = None):
        self.strength = strength

    def start(self, records: Records, *, train: torch.Tensor, dev: torch.Tensor, batch_size: int,
              generator: torch.Generator) -> None:
        """Called once before training; `train` and `dev` are record numbers, on the device of `records`."""

    def loss(self, network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The loss of a batch, a scalar with gradients; `network` is in training mode and is left so."""
        return cross_entropy(network, x, y)

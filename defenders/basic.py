"""No defence, and the form that all defences have."""
import torch
from torch import nn
from torch.nn import functional as F

from datasets import Records


class Basic:
    """Cross-entropy alone. Other defences override `criterion`, or `loss` and `start`.

    Args:
        strength: the option `--defend_arg`.
    """

    def __init__(self, strength: float | None = None):
        self.strength = strength

    def start(self, records: Records, *, train: torch.Tensor, dev: torch.Tensor, batch_size: int,
              generator: torch.Generator) -> None:
        """Called once before training; `train` and `dev` are record numbers, on the device of `records`."""

    def loss(self, network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The loss of a batch, a scalar with gradients; `network` is in training mode and is left so.

        A defence that overrides this cannot be trained in a stack (see `base_model.Stack`); one that overrides
        `criterion` can.
        """
        return self.criterion(network(x), y)

    def criterion(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The loss of a batch as it follows from logits (B, C) and labels (B,)."""
        return F.cross_entropy(logits, y)

    def quality(self, model, records: Records, dev: torch.Tensor) -> list[float]:
        """What the best epoch is the best of, of a model or each of a stack: the accuracy on dev."""
        return model.accuracies(records, dev)

    def state(self) -> dict:
        """All that `loss` changes, as tensors and plain values, for a training to be resumed."""
        return {}

    def set_state(self, state: dict) -> None:
        """Go on from what `state` returned; called after `start`."""

"""No defence, and the form that all defences have."""
from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.nn import functional as F

from datasets import Records, batches


class Basic:
    """Cross-entropy alone. Other defences override `criterion`, or `loss` and `start`, or the step itself with its
    batches and optimiser.

    Args:
        strength: the option `--defend_arg`.
    """

    def __init__(self, strength: float | None = None):
        self.strength = strength

    def start(self, records: Records, *, train: torch.Tensor, dev: torch.Tensor, batch_size: int,
              generator: torch.Generator) -> None:
        """Called once before training; `train` and `dev` are record numbers, on the device of `records`."""

    def build_optimizer(self, network: nn.Module, recipe) -> torch.optim.Optimizer:
        """That of a `base_model.Recipe`."""
        return recipe.build_optimizer(network.parameters())

    def batches(self, indices: torch.Tensor, size: int, *generators: torch.Generator) -> Iterable[torch.Tensor]:
        """Those of an epoch, see `datasets.batches`."""
        return batches(indices, size, *generators)

    def step(self, network: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable, x: torch.Tensor,
             y: torch.Tensor) -> torch.Tensor:
        """Take a step on a batch; returns its loss, without gradients: a scalar, or (K,) of a stack.

        `loss` is this defence's, in the precision of the training, for a stack of each model.
        """
        optimizer.zero_grad(set_to_none=True)
        value = loss(network, x, y)
        value.sum().backward()
        optimizer.step()
        return value.detach()

    def loss(self, network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The loss of a batch, a scalar with gradients; `network` is in training mode and is left so.

        A defence that overrides this or `step` cannot be trained in a stack (see `base_model.Stack`); one that
        overrides `criterion` can.
        """
        return self.criterion(network(x), y)

    def criterion(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The loss of a batch as it follows from logits (B, C) and labels (B,)."""
        return F.cross_entropy(logits, y)

    def quality(self, model, records: Records, dev: torch.Tensor) -> list[float]:
        """What the best epoch is the best of, of a model or each of a stack: the accuracy on dev."""
        return model.accuracies(records, dev)

    def privacy(self, *, n: int, batch_size: int, epochs: int, delta: float | None) -> dict | None:
        """What a training on n records for at most so many epochs guarantees; None = nothing."""
        return None

    def state(self) -> dict:
        """All that `loss` or `step` changes, as tensors and plain values, for a training to be resumed."""
        return {}

    def set_state(self, state: dict) -> None:
        """Go on from what `state` returned; called after `start`."""

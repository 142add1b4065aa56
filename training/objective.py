"""What training minimises."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional as F

from datasets import Records, batches
from training.config import TrainConfig, TrainSet


class Model(Protocol):
    """What an objective and a run use of a `BaseModel`, or of a `Stack` of them."""

    network: nn.Module
    device: torch.device

    def logits(self, records: Records, indices: torch.Tensor) -> torch.Tensor: ...

    def accuracies(self, records: Records, indices: torch.Tensor) -> list[float]: ...

    def _update_best(
        self, better: list[bool], before: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]: ...


class Objective:
    """What training minimises: cross-entropy. Defences and regression heads are subclasses.

    Args:
        strength: of a defence, the option `--defend_arg`; None where it has none.
    """

    def __init__(self, strength: float | None = None):
        self.strength: float = 0.0 if strength is None else strength

    @classmethod
    def is_stackable(cls) -> bool:
        """Whether all that it changes follows from each model's logits, so that it can train a
        `Stack`: of all hooks it overrides `criterion` alone, and `privacy`, which is no part of
        training."""
        own = {"criterion", "privacy", "is_stackable"}
        hooks = {name for name in vars(Objective) if not name.startswith("_")} - own
        return all(getattr(cls, hook) is getattr(Objective, hook) for hook in hooks)

    def setup(self, data: TrainSet, *, batch_size: int, generator: torch.Generator) -> None:
        """Called once before training; `generator` draws on the records' device."""

    def build_optimizer(self, network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
        return config.build_optimizer(network.parameters())

    def batches(
        self, indices: torch.Tensor, size: int, *generators: torch.Generator
    ) -> Iterable[torch.Tensor]:
        """The batches of an epoch, see `datasets.batches`."""
        return batches(indices, size, *generators)

    def step(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: Callable,
        x: torch.Tensor,
        y: torch.Tensor,
    ) -> torch.Tensor:
        """Take a step on a batch; returns its loss, without gradients: a scalar, or (K,) of a
        stack.

        `loss` is this objective's, in the precision of the training, for a stack of each model.
        """
        optimizer.zero_grad(set_to_none=True)
        value = loss(network, x, y)
        value.sum().backward()
        optimizer.step()
        return value.detach()

    def loss(self, network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The loss of a batch, a scalar with gradients; `network` is in training mode and is left
        so."""
        return self.criterion(network(x), y)

    def criterion(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The loss of a batch as it follows from logits (B, C) and labels (B,)."""
        return F.cross_entropy(logits, y)

    def selection_metric(self, model: Model, records: Records, dev: torch.Tensor) -> list[float]:
        """What is highest in the best epoch, for a model or each of a stack: the accuracy on
        dev."""
        return model.accuracies(records, dev)

    def privacy(self, *, n: int, batch_size: int, epochs: int, delta: float | None) -> dict | None:
        """What differential privacy guarantees of a training on n records; None = nothing."""
        return None

    def state(self) -> dict:
        """All that `loss` or `step` changes, as tensors and plain values, to resume a training."""
        return {}

    def set_state(self, state: dict) -> None:
        """Go on from what `state` returned; called after `setup`."""

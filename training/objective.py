"""What training minimises."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True, eq=False)
class Batch:
    """What a step sees; of a stack of K models, x, y and record_ids have K in front.

    Attributes:
        x: (B, ...), records as the network takes them.
        y: (B,) labels.
        record_ids: (B,), the records' numbers in the data set.
        epoch: which one this is, from 0.
    """

    x: torch.Tensor
    y: torch.Tensor
    record_ids: torch.Tensor
    epoch: int = 0


def _unknown(*_) -> torch.Tensor:
    raise ValueError("this training knows of no other network")


@dataclass(frozen=True, eq=False)
class Context:
    """What an objective may ask for before a training: nothing in it is of another role.

    Attributes:
        data: the records that are trained on.
        batch_size: of a step.
        nominal_size: the number of train records that is no secret, by which private steps draw
            theirs; None = how many there are.
        generator: draws on the records' device.
        epochs_before: of the rounds before this one, as they were planned; 0 in the first.
        original: called with numbers of records (n,), gives logits (n, C) of the network before
            compression, in evaluation mode, on the device.
        original_network: called, gives that network in evaluation mode, on the device.
        sub_models: called with subsets of `data.train`, each numbers (m,), gives logits (M, n, C)
            for all n of `data.train` of M networks, each trained from new weights on its subset
            alone, as the original was on all.
        subsets: draws them: on the CPU, the same in every round, of every defence.
    """

    data: TrainSet
    batch_size: int
    generator: torch.Generator
    epochs_before: int = 0
    nominal_size: int | None = None
    original: Callable[[torch.Tensor], torch.Tensor] = _unknown
    original_network: Callable[[], nn.Module] = _unknown  # type: ignore[assignment]
    sub_models: Callable[[Sequence[torch.Tensor]], torch.Tensor] = _unknown
    subsets: torch.Generator = field(default_factory=torch.Generator)


class Objective:
    """What training minimises: cross-entropy. Defences and regression heads are subclasses.

    A defence overrides one method: `criterion` for the loss, `batches` for order and choice of
    records, `step`, or `release` for what the network answers; `setup` for what it needs before.

    Args:
        strength: of a defence, the option `--defend_arg`; None where it has none.
    """

    def __init__(self, strength: float | None = None):
        self.strength: float = 0.0 if strength is None else strength

    @classmethod
    def is_stackable(cls) -> bool:
        """Whether all that it changes follows from each model's logits, so that it can train a
        `Stack`: of all hooks it overrides `criterion` alone, and those that are no part of training."""
        own = {"criterion", "privacy", "release", "setup_release", "is_stackable", "is_releasing"}
        hooks = {name for name in vars(Objective) if not name.startswith("_")} - own
        return all(getattr(cls, hook) is getattr(Objective, hook) for hook in hooks)

    @classmethod
    def is_releasing(cls) -> bool:
        """Whether it changes what the trained network answers."""
        return cls.release is not Objective.release

    def setup(self, context: Context) -> None:
        """Called once before training."""

    def build_optimizer(self, network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
        return config.build_optimizer(network.parameters())

    def batches(
        self, indices: torch.Tensor, size: int, *generators: torch.Generator, epoch: int = 0
    ) -> Iterable[torch.Tensor]:
        """The batches of an epoch, counted from 0, see `datasets.batches`."""
        return batches(indices, size, *generators)

    def step(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: Callable[[nn.Module, Batch], torch.Tensor],
        batch: Batch,
    ) -> torch.Tensor:
        """Take a step on a batch; returns its loss, without gradients: a scalar, or (K,) of a
        stack.

        `loss` is this objective's, in the precision of the training, for a stack of each model.
        """
        optimizer.zero_grad(set_to_none=True)
        value = loss(network, batch)
        value.sum().backward()
        optimizer.step()
        return value.detach()

    def loss(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        """The loss of a batch, a scalar with gradients; `network` is in training mode and is left
        so."""
        return self.criterion(network(batch.x), batch)

    def criterion(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The loss of a batch as it follows from logits (B, C), a scalar."""
        return F.cross_entropy(logits, batch.y)

    def setup_release(self, network: nn.Module, context: Context) -> None:
        """Called once before the trained network answers queries, where `release` is overridden."""

    def release(self, logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """What is answered for records x (n, ...) in place of their logits (n, C)."""
        return logits

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


class Released(nn.Module):
    """A network as its defence lets it answer; `objective.setup_release` has been called."""

    def __init__(self, network: nn.Module, objective: Objective):
        super().__init__()
        self.network, self.objective = network, objective

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.objective.release(self.network(x), x)

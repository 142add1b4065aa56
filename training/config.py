"""What a training starts from and what it comes to."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from core.console import UserError
from datasets import Records


class Diverged(UserError):
    """A loss is not a number any more."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a network is trained. `early_stop` = 0 trains for all epochs; `milestones` divide lr by
    ten."""

    epochs: int
    batch_size: int = 128
    optimizer: str = "adam"
    lr: float = 1e-3
    weight_decay: float = 5e-4
    early_stop: int = 0
    milestones: tuple[int, ...] = ()

    def build_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of these parameters; SGD has momentum 0.9."""
        common: dict[str, Any] = dict(lr=self.lr, weight_decay=self.weight_decay, fused=True)
        if self.optimizer == "sgd":
            return torch.optim.SGD(parameters, momentum=0.9, **common)
        return {"adam": torch.optim.Adam}[self.optimizer](parameters, **common)

    @property
    def is_scheduled(self) -> bool:
        """Whether the learning rate changes."""
        return bool(self.milestones)

    def build_schedule(self, optimizer: torch.optim.Optimizer) -> LRScheduler:
        """What changes its learning rate after each epoch."""
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, self.milestones)


@dataclass(frozen=True, kw_only=True)
class CosineConfig(TrainConfig):
    """The learning rate falls from lr to 0 as half a cosine (Loshchilov & Hutter, ICLR 2017,
    without restarts): lr (1 + cos(pi t / epochs)) / 2 after t epochs."""

    @property
    def is_scheduled(self) -> bool:
        return True

    def build_schedule(self, optimizer):
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.epochs)


@dataclass(frozen=True, eq=False)
class TrainSet:
    """What a network is trained on: numbers of `records`, on the records' device.

    Attributes:
        train: (n,), or (K, n) of a stack of K.
        dev: those of the records that choose the epoch to keep; None = the last epoch is kept.
        augment: whether train records, images, are seen as `models.views.augmented` makes them, drawn
            anew in each epoch; dev records never are.
    """

    records: Records
    train: torch.Tensor
    dev: torch.Tensor | None = None
    augment: bool = False


@dataclass
class TrainingHistory:
    """What a training came to: the epoch that was kept (0 = the start) and the accuracy on dev
    after each one.

    An objective may put another selection metric in the place of that accuracy (see
    `Objective.selection_metric`).
    """

    best_epoch: int = 0
    best_accuracy: float = -math.inf
    dev_accuracy: list[float] = field(default_factory=list)
    stopped: bool = False

    def add(self, accuracy: float, early_stop: int) -> bool:
        """Take an epoch's accuracy into account; returns whether it is the best so far."""
        if self.stopped:
            return False
        self.dev_accuracy.append(accuracy)
        epoch = len(self.dev_accuracy)
        better = accuracy > self.best_accuracy
        if better:
            self.best_accuracy, self.best_epoch = accuracy, epoch
        self.stopped = 0 < early_stop < epoch - self.best_epoch
        return better

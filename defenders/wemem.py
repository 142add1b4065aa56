"""WeMem: windows over records sorted by memorisation, and more weight decay on memorised ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import nn

from base_model import Batch, Context, Objective, TrainConfig
from defenders.sub_models import memorisation, of_each_record

WIDTH = 0.4  # of a window, as a share of the mean class: 15 records on Location
STEPS_IN_WIDTH = 15  # strides that a window takes to pass over a record: 1 rank each on Location
RISK_DECAY = 0.1  # weight decay on records that are at risk


class Windows:
    """A window of ranks within each class that slides epoch by epoch (RSW).

    In each class the records are sorted by memorisation, and an epoch is trained on those of ranks
    [start, start + width), start moving on by a stride each epoch; width and stride are the same in
    all classes. The last window of a class holds its last ranks, and is followed by the first
    again. A class of no more than `width` records is taken as a whole.

    Args:
        sorted_classes: record numbers of each class, in order.
    """

    def __init__(self, sorted_classes: list[torch.Tensor], *, width: int, stride: int):
        self.sorted_classes, self.width, self.stride = sorted_classes, width, stride

    def __call__(self, epoch: int) -> torch.Tensor:
        """The record numbers of an epoch, counted from 0."""
        return torch.cat([self._of_class(numbers, epoch) for numbers in self.sorted_classes])

    def _of_class(self, numbers: torch.Tensor, epoch: int) -> torch.Tensor:
        last = max(0, len(numbers) - self.width)
        positions = -(-last // self.stride) + 1
        start = min(epoch % positions * self.stride, last)
        return numbers[start : start + self.width]


def sized_windows(sorted_classes: list[torch.Tensor], share: float) -> Windows:
    """Windows as wide as a share of the mean class, at least one record, with WeMem's stride."""
    mean = sum(map(len, sorted_classes)) / len(sorted_classes)
    width = max(1, round(share * mean))
    return Windows(sorted_classes, width=width, stride=max(1, round(width / STEPS_IN_WIDTH)))


def sort_classes(
    context: Context, scores: torch.Tensor, *, descending: bool = False
) -> list[torch.Tensor]:
    """Train records (m,) of each class of the data, by their scores (n,)."""
    train = context.data.train
    by_score = train[scores.argsort(descending=descending, stable=True)]
    y = context.data.records.y[by_score]
    return [by_score[y == number] for number in range(context.data.records.num_cls)]


class SlidingWindow(Objective):
    """RSW, from the least memorised records to the most (Shang et al., NDSS 2025, as in their
    code; the paper's text was not at hand).

    Memorisation is that of `sub_models.memorisation`. The strength is the width of a window as a
    share of the mean class: their settings, 15 records with stride 1 for Location and 500 with
    stride 50 for CIFAR-10, are 0.4 of a class of their splits or near it. Windows start anew in each
    round of pruning, as theirs do; where a window has come to the end of a class they go on with
    ever fewer records, and here it starts over.
    """

    def setup(self, context: Context) -> None:
        classes = sort_classes(context, memorisation(context))
        self.windows = sized_windows(classes, self.strength)

    def batches(
        self, indices: torch.Tensor, size: int, *generators: torch.Generator, epoch: int = 0
    ) -> Iterable[torch.Tensor]:
        return super().batches(self.windows(epoch), size, *generators, epoch=epoch)


class RiskRegularization(Objective):
    """RMR: records memorised by the strength or more come first in an epoch, in batches of their
    own, which an optimiser of weight decay 0.1 steps on; the others follow, with the optimiser of
    the run (Shang et al., NDSS 2025, as in their code).

    A single record goes with the others, whichever it is: BatchNorm cannot normalise over one.
    """

    def setup(self, context: Context) -> None:
        scores = memorisation(context)
        self.at_risk = of_each_record(scores >= self.strength, context)

    def build_optimizer(self, network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
        decaying = replace(config, weight_decay=RISK_DECAY)
        self.risk_optimizer = decaying.build_optimizer(network.parameters())
        return super().build_optimizer(network, config)

    def batches(
        self, indices: torch.Tensor, size: int, *generators: torch.Generator, epoch: int = 0
    ) -> Iterable[torch.Tensor]:
        at_risk = self.at_risk[indices]
        count = int(at_risk.sum())
        if 1 in (count, len(indices) - count):
            at_risk = torch.full_like(at_risk, count > 1)
        for self.decays, numbers in ((True, indices[at_risk]), (False, indices[~at_risk])):
            if len(numbers):
                yield from super().batches(numbers, size, *generators, epoch=epoch)

    def step(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: Callable[[nn.Module, Batch], torch.Tensor],
        batch: Batch,
    ) -> torch.Tensor:
        chosen = self.risk_optimizer if self.decays else optimizer
        return super().step(network, chosen, loss, batch)

    def state(self) -> dict:
        return {"risk_optimizer": self.risk_optimizer.state_dict()}

    def set_state(self, state: dict) -> None:
        self.risk_optimizer.load_state_dict(state["risk_optimizer"])


class WindowAndRegularization(RiskRegularization):
    """SWMR: RMR on the records of windows, which slide from the most memorised to the least (Shang
    et al., NDSS 2025, as in their code)."""

    def setup(self, context: Context) -> None:
        scores = memorisation(context)
        self.at_risk = of_each_record(scores >= self.strength, context)
        self.windows = sized_windows(sort_classes(context, scores, descending=True), WIDTH)

    def batches(
        self, indices: torch.Tensor, size: int, *generators: torch.Generator, epoch: int = 0
    ) -> Iterable[torch.Tensor]:
        return super().batches(self.windows(epoch), size, *generators, epoch=epoch)

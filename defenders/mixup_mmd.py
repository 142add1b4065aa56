"""Mixup, and posteriors on the train records that are drawn to those on others."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional as F

from base_model import Batch, Context, Objective
from models.queries import QueriesInBatches

LEAST_GAP = 0.03  # of train and dev accuracy, from which on posteriors are matched


class MixupMMD(Objective):
    """Mixup, and a match of the posteriors on train and dev records (Li, Li & Ribeiro, CODASPY
    2021, and their code).

    An epoch is a pass over mixed batches: a weight w, uniform in 0..1 (their Beta(1, 1)), for each
    batch, whose records are each mixed with another one of it, w x + (1 - w) x', and the loss is
    w CE(y) + (1 - w) CE(y'). If train and dev accuracy are then 3 points or more apart, a second
    pass takes for each record of a batch a dev record of its class, and steps by strength * squared
    MMD between the posteriors on both, of the whole batch at once, in evaluation mode; gradients
    flow through the train records' alone.

    Where it departs: train accuracy is taken in evaluation mode too (theirs is in training mode,
    where dropout hides a gap); any dev record of a class may be drawn (theirs leave the last one
    out); train records of a class without a dev record are left out of the second pass; and there is
    a second pass in the last epoch too, as the one that is kept is chosen on dev.
    """

    def setup(self, context: Context) -> None:
        """Sort the dev records by class; the generator draws weights, partners and dev records."""
        data, self.generator = context.data, context.generator
        assert data.dev is not None  # each role has them
        self.records, self.dev = data.records, data.dev
        classes = self.records.y[data.dev]
        self.by_class = data.dev[classes.argsort(stable=True)]
        self.count = classes.bincount(minlength=self.records.num_cls)
        self.first = self.count.cumsum(0) - self.count
        self.matched = data.train[self.count[self.records.y[data.train]] > 0]

    def batches(
        self, indices: torch.Tensor, size: int, *generators: torch.Generator, epoch: int = 0
    ) -> Iterable[torch.Tensor]:
        self.matching = False
        yield from super().batches(indices, size, *generators, epoch=epoch)
        if (
            self.strength > 0
            and abs(self._accuracy(indices) - self._accuracy(self.dev)) >= LEAST_GAP
        ):
            self.matching = True
            yield from super().batches(self.matched, size, *generators, epoch=epoch)

    def _accuracy(self, indices: torch.Tensor) -> float:
        """Of the network as the last step left it."""
        queries = QueriesInBatches(self.network, indices.device)
        with torch.no_grad():
            logits = queries(
                lambda part: self.network(self.records.batch(part)[0]), self.records, indices
            )
        self.network.train()
        return (logits.argmax(dim=1) == self.records.y[indices]).float().mean().item()

    def loss(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        self.network = network
        return self._mmd(network, batch) if self.matching else self._mixup(network, batch)

    def _mixup(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        draw, device = self.generator, batch.y.device
        weight = torch.rand((), generator=draw, device=device)
        partner = torch.randperm(len(batch.y), generator=draw, device=device)
        logits = network(weight * batch.x + (1 - weight) * batch.x[partner]).float()
        own, other = (F.cross_entropy(logits, y) for y in (batch.y, batch.y[partner]))
        return weight * own + (1 - weight) * other

    def _mmd(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        x, _ = self.records.batch(self._alike(batch.y))
        network.eval()
        with torch.no_grad():
            others = network(x).float()
        members = network(batch.x).float()
        network.train()
        with torch.autocast(batch.x.device.type, enabled=False):  # kernels near 1 need float32
            return self.strength * squared_mmd(members.softmax(dim=1), others.softmax(dim=1))

    def _alike(self, y: torch.Tensor) -> torch.Tensor:
        """Numbers of dev records of classes y, drawn with replacement."""
        draw = torch.rand(len(y), generator=self.generator, device=y.device)
        return self.by_class[self.first[y] + (draw * self.count[y]).long()]


def squared_mmd(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Biased squared MMD of two sets of points (n, C), (m, C) with the kernel exp(-|a - b|^2 / 2)."""

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        squares = a.square().sum(dim=1, keepdim=True) + b.square().sum(dim=1)
        return torch.exp(a @ b.T - squares / 2).mean()

    return kernel(first, first) + kernel(second, second) - 2 * kernel(first, second)

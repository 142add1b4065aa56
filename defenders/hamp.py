"""HAMP: training towards soft labels, and answers that keep the order of a posterior alone."""

from dataclasses import replace
from functools import lru_cache

import torch
from torch import nn

from base_model import Batch, Context, Objective
from defenders.criteria import log_posteriors, of_class
from defenders.record_draws import RecordDraws

ALPHA = 0.001  # of the entropy; theirs for CIFAR-10 and Location


class HAMP(Objective):
    """Enforce predictions without confidence (Chen & Pattabiraman, NDSS 2024, and their code).

    Training minimises KL(t || p) - alpha C H(p), a mean over records: the soft label t has the
    largest probability of the record's class at which its entropy is strength * log C, and the rest
    spread evenly. Their loss is this divided by C, as their KL is a mean over records and classes
    (`F.kl_div`) and their entropy one over records; they make up for it by a learning rate of 0.5.

    A query is answered with the network's scores for a random input, put into the order of the
    record's own. Random are the pixels of images, uniform in their 256 values (theirs in the lower
    255), the bits of binary tables, and otherwise numbers uniform between the least and the largest
    of their column among train records (ours: they have no such data).

    Where it departs: probabilities of the class are found exactly (theirs in steps of 0.01); and
    the random input follows from the record (`RecordDraws`), while theirs is drawn anew for each
    query, and so could be averaged out by asking again. Of equal scores the first class stays first.
    """

    def criterion(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        log_p = log_posteriors(logits)
        num_cls = log_p.shape[1]
        label, other = soft_label(num_cls, self.strength)
        own = of_class(log_p, batch.y)
        cross_entropy = -(label * own + other * (log_p.sum(dim=1) - own))
        entropy = -(log_p.exp() * log_p).sum(dim=1)
        divergence = cross_entropy - entropy_of(num_cls, label)
        return (divergence - ALPHA * num_cls * entropy).mean()

    def setup_release(self, network: nn.Module, context: Context) -> None:
        """Draw a secret, from which all random inputs follow."""
        self.network, self.draws = network, RecordDraws(context.generator)
        self.records = records = context.data.records
        if records.mean is None:
            train = records.x[context.data.train]
            self.low, self.range = (
                values.float().cpu()
                for values in (train.amin(dim=0), train.amax(dim=0) - train.amin(dim=0))
            )

    def release(self, logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        order = logits.argsort(dim=1, descending=True, stable=True)
        scores = self.network(self._random_inputs(x)).sort(dim=1, descending=True).values
        return torch.empty_like(scores).scatter_(1, order, scores)

    def _random_inputs(self, x: torch.Tensor) -> torch.Tensor:
        """One for each of records x (n, ...), normalised as they are."""
        raw = torch.stack([self._random_record(draw) for draw in self.draws(x)])
        anyone = torch.zeros(len(raw), dtype=torch.int64)
        made = replace(self.records, x=raw, y=anyone).to(x.device)
        return made.batch(torch.arange(len(raw), device=x.device))[0]

    def _random_record(self, draw: torch.Generator) -> torch.Tensor:
        shape, dtype = self.records.shape, self.records.x.dtype
        if self.records.mean is not None:
            return torch.randint(256, shape, generator=draw, dtype=dtype)
        if dtype == torch.uint8:
            return torch.randint(2, shape, generator=draw, dtype=dtype)
        return torch.rand(shape, generator=draw).mul_(self.range).add_(self.low)


def entropy_of(num_cls: int, label: float) -> float:
    """In nats, of a distribution that has `label` for one class and the rest spread evenly."""
    p = torch.full((num_cls,), (1 - label) / (num_cls - 1), dtype=torch.float64)
    p[0] = label
    return torch.special.entr(p).sum().item()


@lru_cache
def soft_label(num_cls: int, share: float) -> tuple[float, float]:
    """Probabilities of the class and of each other: the largest and the smallest with which the
    entropy is no less than `share` of that of the uniform distribution."""
    low, high = 1 / num_cls, 1.0  # the entropy falls between them
    threshold = share * entropy_of(num_cls, low)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if entropy_of(num_cls, middle) >= threshold else (low, middle)
    return low, (1 - low) / (num_cls - 1)

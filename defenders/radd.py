"""RADD: memorised records come rarely, and with the original's posteriors in place of labels."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from base_model import Batch, Context, Objective
from defenders.criteria import log_posteriors, of_class
from defenders.sub_models import memorisation, of_each_record
from defenders.wemem import sort_classes

AT_RISK = 0.6  # the memorisation from which on a record is at risk
TEMPERATURE = 3.0
ENTROPY_WEIGHT = 0.2
RISK_DECAY = 0.01
WIDTH, STRIDE = 100, 5  # records of each class in an epoch, and ranks that they move on
RISK_SHARE = 0.1  # of a class's records in an epoch, at most, that are at risk


class Budget:
    """Which records an epoch is trained on.

    Of each class min(`WIDTH`, all) records: up to a tenth that are at risk, each of which comes
    once and then no more, and else those that are not, all by memorisation and in turn.

    Args:
        classes: of each class, the record numbers that are not at risk and those that are, sorted.
    """

    def __init__(self, classes: list[tuple[torch.Tensor, torch.Tensor]]):
        self.safe = [safe for safe, _ in classes]
        self.unused = [risky for _, risky in classes]  # of which none has come yet
        self.sizes = [min(WIDTH, len(safe) + len(risky)) for safe, risky in classes]
        self.epochs: list[torch.Tensor] = []

    def __call__(self, epoch: int) -> torch.Tensor:
        """The record numbers of an epoch, counted from 0."""
        while len(self.epochs) <= epoch:
            self.epochs.append(self._next())
        return self.epochs[epoch]

    def _next(self) -> torch.Tensor:
        start, parts = STRIDE * len(self.epochs), []
        for number, (safe, size) in enumerate(zip(self.safe, self.sizes)):
            risky = _in_turn(self.unused[number], start)
            count = min(round(RISK_SHARE * size), len(risky))
            self.unused[number] = self.unused[number][
                ~torch.isin(self.unused[number], risky[:count])
            ]
            parts += [_in_turn(safe, start)[: size - count], risky[:count]]
        return torch.cat(parts)


def _in_turn(numbers: torch.Tensor, start: int) -> torch.Tensor:
    """The numbers from one on, and then those before it."""
    return numbers.roll(-(start % max(1, len(numbers))))


class RiskAwareDistillation(Objective):
    """RADD (Shen et al. 2026, as in their code; the paper is not published yet).

    With a record's memorisation m, bounded to 0..1, the risk r = m, and h = 1 where m >= 0.6 and
    else 0, the loss is the mean over records of
    (1 - h) CE + w_d r T^2 KL(p_T of the original || p_T) - 0.2 r H(p), plus
    0.01 / 2 times the mean r of the batch times the sum of squares of all weights; w_d is the
    strength and T = 3. Which records come is up to `Budget`, which counts epochs over all rounds of
    pruning, as planned.

    Where it departs: memorisation is that of `sub_models.memorisation`, where theirs compares
    networks that were each trained on a single fold, and is stretched to 0..1; and where a class has
    too few records for an epoch their code fills it up with records at risk beyond the tenth. H has
    0.1 for tables there.
    """

    def setup(self, context: Context) -> None:
        """Sort the records, and ask the original for its logits on them."""
        scores = memorisation(context)
        train = context.data.train
        self.at_risk = of_each_record(scores >= AT_RISK, context)
        self.risk = of_each_record(scores.clamp(0, 1).float(), context)
        self.teacher = of_each_record(context.original(train), context)
        classes = sort_classes(context, scores)
        self.budget = Budget([(of[~self.at_risk[of]], of[self.at_risk[of]]) for of in classes])
        self.epochs_before = context.epochs_before

    def batches(
        self, indices: torch.Tensor, size: int, *generators: torch.Generator, epoch: int = 0
    ) -> Iterable[torch.Tensor]:
        numbers = self.budget(self.epochs_before + epoch)
        if len(numbers) < 2:  # of which BatchNorm could make nothing
            return ()
        return super().batches(numbers, size, *generators, epoch=epoch)

    def loss(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        risk = self.risk[batch.record_ids]
        squares = torch.stack([weight.square().sum() for weight in network.parameters()]).sum()
        of_records = self.criterion(network(batch.x), batch)
        return of_records + 0.5 * RISK_DECAY * risk.mean() * squares

    def criterion(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        risk, at_risk = self.risk[batch.record_ids], self.at_risk[batch.record_ids]
        log_p = log_posteriors(logits)
        entropy = -(log_p.exp() * log_p).sum(dim=1)
        taught = log_posteriors(self.teacher[batch.record_ids] / TEMPERATURE)
        softened = log_posteriors(logits.to(log_p.dtype) / TEMPERATURE)
        divergence = (taught.exp() * (taught - softened)).sum(dim=1)
        of_record = (
            -of_class(log_p, batch.y) * ~at_risk
            + self.strength * risk * TEMPERATURE**2 * divergence
            - ENTROPY_WEIGHT * risk * entropy
        )
        return of_record.mean()
